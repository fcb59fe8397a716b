"""The two gradients of the depthwise 3x3x3 convolution on a CPU: the ways that csn.depthwise could take, of which its own are fixed.

    python benchmarks/ways.py --threads 1 --name ways_cpu_1thread       the layers of ir-CSN-50, 4 clips of 8 x 112 x 112

All are torch's operators on channels_last_3d maps. The ways take turns, each finds nothing in cache of what the one before left, and reported are
medians; over_ours: times as long as ours. error: the largest difference from float64's gradient, over its largest value; a way that is further off
than 2e-5 is an error of this script, not a row. The last row of a way adds up the layers of the network, each as often as it has it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from depthwise import layers, times
from machine import RESULTS, describe, heading, script, show, write
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn import depthwise
from csn.flags import Parser, file_name, positive
from csn.memory import keep_memory

NDHWC, NCDHW = torch.channels_last_3d, torch.contiguous_format
BOUND = 2e-5  # stated in csn.depthwise
Stride = Sequence[int]
Gradient = Callable[[Tensor, Tensor, Tensor, Stride], Tensor]  # of g, x, weight, stride


def torch_of(wanted: int, layout: torch.memory_format) -> Gradient:
    """torch's own gradient of the input (0) or of the weight (1) in a layout, the conversions to it and back included."""

    def gradient(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
        g, x = g.contiguous(memory_format=layout), x.contiguous(memory_format=layout)
        rest = (stride, (1, 1, 1), (1, 1, 1), False, (0, 0, 0), len(weight), (wanted == 0, wanted == 1, False))
        return torch.ops.aten.convolution_backward(g, x, weight, None, *rest)[wanted].contiguous(memory_format=NDHWC if wanted == 0 else NCDHW)

    return gradient


def transposed(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """The transposed convolution."""
    missing = [n - 1 - (m - 1) * s for n, m, s in zip(x.shape[2:], g.shape[2:], stride, strict=True)]
    return F.conv_transpose3d(g, weight, None, tuple(stride), 1, tuple(missing), len(weight)).contiguous(memory_format=NDHWC)


def taps(g: Tensor, x: Tensor, stride: Stride) -> Iterator[tuple[tuple[int, int, int], Tensor, Tensor]]:
    """For each of the 27 places of the filter: it, and the parts of g and of x that meet there."""
    for place in product(range(3), repeat=3):
        cut_g, cut_x = [slice(None)] * 2, [slice(None)] * 2
        for k, s, n, m in zip(place, stride, x.shape[2:], g.shape[2:], strict=True):
            first, last = -(-max(0, 1 - k) // s), min(m, (n - k) // s + 1)
            cut_g.append(slice(first, last))
            cut_x.append(slice(first * s + k - 1, (last - 1) * s + k if last > first else 0, s))
        yield place, g[tuple(cut_g)], x[tuple(cut_x)]


def input_by_taps(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """27 products, each added where it belongs."""
    whole = torch.zeros_like(x, memory_format=NDHWC)
    for place, part, into in taps(g, whole, stride):
        into.addcmul_(part, weight[(slice(None), 0, *place)].view(-1, 1, 1, 1))
    return whole


def weight_by_taps(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """27 sums of products."""
    whole = torch.zeros_like(weight)
    for place, part, beside in taps(g, x, stride):
        whole[(slice(None), 0, *place)] = (part * beside).sum((0, 2, 3, 4))
    return whole


def weight_by_einsum(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """27 sums of products by einsum."""
    whole = torch.zeros_like(weight)
    for place, part, beside in taps(g, x, stride):
        whole[(slice(None), 0, *place)] = torch.einsum("bcthw,bcthw->c", part, beside)
    return whole


def weight_by_windows(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """A matrix product with a view of all windows, channel by channel."""
    windows = F.pad(x, (1, 1, 1, 1, 1, 1))
    for axis, s in enumerate(stride, 2):
        windows = windows.unfold(axis, 3, s)
    return torch.einsum("bcthw,bcthwijk->cijk", g, windows).unsqueeze(1)


def weight_by_convolution(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """A convolution of the input with the output gradient as its filter, spread by the stride; clips beside channels, then added up."""
    clips, channels = x.shape[:2]
    beside = x.reshape(1, clips * channels, *x.shape[2:])
    found = F.conv3d(beside, g.reshape(clips * channels, 1, *g.shape[2:]), None, 1, 1, tuple(stride), clips * channels)
    return found.view(clips, channels, 1, *found.shape[2:])[..., :3, :3, :3].sum(0)


def weight_by_clips(g: Tensor, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """As ours, without the films: every clip's ends are cut off, which copies."""
    frames_x, frames_g = x.transpose(1, 2), g.transpose(1, 2)
    planes = []
    for d in (-1, 0, 1):
        first, last = (max(-d, 0) + stride[0] - 1) // stride[0], min(g.shape[2], (x.shape[2] - 1 - d) // stride[0] + 1)
        partners = slice(first * stride[0] + d, max(0, (last - 1) * stride[0] + d + 1), stride[0])
        pairs = frames_g[:, first:last], frames_x[:, partners]
        planes.append(depthwise._plane_of_pairs(*pairs, (3, 3), stride) if last > first else torch.zeros_like(weight[:, :, 0]))
    return torch.stack(planes, 2)


WAYS: dict[str, dict[str, Gradient]] = {
    "grad_input": {
        "ours": lambda g, x, weight, stride: depthwise.grad_input(g, weight, x.shape[2:], stride),
        "torch NDHWC": torch_of(0, NDHWC), "torch NCDHW": torch_of(0, NCDHW), "transposed": transposed, "27 products": input_by_taps,
    },
    "grad_weight": {
        "ours": lambda g, x, weight, stride: depthwise.grad_weight(g, x, weight.shape[2:], stride),
        "torch NDHWC": torch_of(1, NDHWC), "torch NCDHW": torch_of(1, NCDHW), "27 products": weight_by_taps, "27 einsums": weight_by_einsum,
        "windows": weight_by_windows, "as a convolution": weight_by_convolution, "clip by clip": weight_by_clips,
    },
}  # fmt: skip


def measure(args: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, after every layer."""
    rows: list[dict[str, Any]] = []
    for (c, t, h, w, stride), count in layers(50, args.frames, args.crop, args.width).items():
        x = torch.randn(args.batch, c, t, h, w).relu().contiguous(memory_format=NDHWC)
        weight = torch.randn(c, 1, 3, 3, 3)
        g = torch.randn_like(depthwise.depthwise_conv3d(x, weight, stride))
        for direction, ways in WAYS.items():
            want = torch_of(direction == "grad_weight", NDHWC)(g.double(), x.double(), weight.double(), stride)
            errors = {name: ((way(g, x, weight, stride) - want).abs().max() / want.abs().max()).item() for name, way in ways.items()}
            assert max(errors.values()) < BOUND, errors
            found = times({name: partial(way, g, x, weight, stride) for name, way in ways.items()}, False, args.rounds)
            rows += [
                {
                    "direction": direction, "way": name, "layers": count, "shape": "x".join(map(str, x.shape)), "stride": "x".join(map(str, stride)),
                    "ms": 1e3 * seconds, "over_ours": seconds / found["ours"], "error": errors[name],
                }
                for name, seconds in found.items()
            ]  # fmt: skip
        yield rows


def network(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per way: all layers of the network."""
    found = []
    for direction, ways in WAYS.items():
        for name in ways:
            own, ours = ([row for row in rows if (row["direction"], row["way"]) == (direction, one)] for one in (name, "ours"))
            ms, beside = (sum(row["ms"] * row["layers"] for row in some) for some in (own, ours))
            facts = {"layers": sum(row["layers"] for row in own), "shape": "network", "stride": ""}
            found.append({"direction": direction, "way": name, **facts, "ms": ms, "over_ours": ms / beside, "error": max(row["error"] for row in own)})
    return found


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--crop", type=positive, default=112)
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument("--width", type=positive, default=64)
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--name", type=file_name, default="ways", help="of the CSV and the figure")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    keep_memory()
    facts = describe("cpu") | {"setting": "fp32, " + ", ".join(f"{k} {getattr(args, k)}" for k in ("batch", "frames", "crop", "width", "threads", "rounds"))}
    for rows in measure(args):
        file = write(args.name, rows + network(rows), facts)
    show(f"Gradients of the depthwise 3x3x3, all layers of ir-CSN-50, {facts['setting']}", network(rows), "direction", "way", "ms", "over_ours", "error")
    print(file)
    figure(rows, facts, RESULTS / f"{args.name}.png")


def figure(rows: list[dict[str, Any]], facts: dict[str, str], file: Path) -> None:
    """Every layer's time over ours, by way: right of 1 is slower."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns
    from matplotlib.ticker import FixedLocator, FuncFormatter

    frame = pd.DataFrame(rows)
    frame = frame[frame["way"] != "ours"]
    fig, axes = plt.subplots(2, 1, figsize=(8, 5.5), sharex=True, height_ratios=[len(ways) for ways in WAYS.values()])
    for ax, direction in zip(axes, WAYS, strict=True):
        sns.stripplot(frame[frame["direction"] == direction], x="over_ours", y="way", hue="shape", palette="viridis", jitter=False, legend=ax is axes[0], ax=ax)
        ax.axvline(1, color="black", linewidth=1)
        ax.set(xscale="log", xlabel="times as long as ours (left of 1: faster)", ylabel="", title=direction)
        ax.grid(axis="x", alpha=0.3)
    axes[1].xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200]))
    axes[1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes[0].legend(title="batch x channels x frames x h x w", frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, title_fontsize=8)
    fig.suptitle(heading(facts), fontsize=9)
    fig.tight_layout()
    fig.savefig(file, dpi=110)


if __name__ == "__main__":
    script(main)
