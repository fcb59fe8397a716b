"""The depthwise 3x3x3 convolution of CSN, layer by layer: ours against torch's in both memory layouts.

    python benchmarks/depthwise.py                             CPU: 8 x 112 x 112, batch 4
    python benchmarks/depthwise.py --device cuda --frames 8 --crop 224 --batch 32 --depths 50 152 --dtype bf16

Every distinct depthwise layer of ir-CSN at the depths asked for, in its three directions; a shape of several depths is measured once. The
candidates take turns; reported are medians. On CUDA cuDNN's own kernels, which torch may pass over, are candidates too, where they exist: it has no gradient of
the weight that can be called alone. An empty cell: not there, or it cannot run. GB/s counts what must cross memory once (input,
output, weight); share is its part of the bandwidth of a copy. The CSV is written after every layer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from math import inf, isfinite, prod
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from machine import RESULTS, describe, heading, on_cuda, script, show, write
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn import depthwise, depthwise_tune
from csn.flags import Parser, file_name, positive
from csn.memory import keep_memory
from csn.resnet3d import build
from csn.spec import Variant

Way = Callable[[], Tensor]
DIRECTIONS = ("forward", "grad_input", "grad_weight")
LARGE = 2**25  # values, 128 MB: more than the caches of a processor
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def layers(depth: int, frames: int, crop: int, width: int) -> dict[tuple[Any, ...], int]:
    """(channels, input T, H, W, stride) of each distinct depthwise layer -> how many a network has."""
    found: dict[tuple[Any, ...], int] = {}
    with torch.device("meta"):
        net = build(Variant(block="bottleneck-D", depth=depth, width=width), 400, frames).eval()

    def note(module: Any, inputs: tuple[Tensor, ...]) -> None:
        key = (*inputs[0].shape[1:], tuple(module.stride))
        found[key] = found.get(key, 0) + 1

    for module in net.modules():
        if isinstance(module, depthwise.DepthwiseConv3d):
            module.register_forward_pre_hook(note)
    net(torch.empty(1, 3, frames, crop, crop, device="meta"))
    return found


def ways(x: Tensor, weight: Tensor, g: Tensor, stride: tuple[int, ...]) -> dict[str, dict[str, Way]]:
    """Direction -> name -> computation. torch's NCDHW candidates get NCDHW tensors: no conversion is timed."""
    ops = torch.ops.csn
    found: dict[str, dict[str, Way]] = {
        "forward": {"ours": lambda: ops.depthwise_conv3d(x, weight, stride)},
        "grad_input": {"ours": lambda: ops.depthwise_conv3d_grad_input(g, weight, x.shape[2:], stride)},
        "grad_weight": {"ours": lambda: ops.depthwise_conv3d_grad_weight(g, x, weight, stride)},
    }
    for name, layout in depthwise_tune.LAYOUTS.items():
        a, w, b = (t.to(x.dtype).contiguous(memory_format=layout) for t in (x, weight, g))
        rest = (stride, (1, 1, 1), (1, 1, 1), False, (0, 0, 0), w.shape[0])

        def backward(mask: tuple[bool, bool, bool], k: int, a: Tensor = a, w: Tensor = w, b: Tensor = b, rest: Any = rest) -> Tensor:
            return torch.ops.aten.convolution_backward(b, a, w, None, *rest, mask)[k]

        found["forward"][name] = lambda a=a, w=w, rest=rest: torch.ops.aten.convolution(a, w, None, *rest)  # type: ignore[misc]
        found["grad_input"][name] = lambda f=backward: f((True, False, False), 0)  # type: ignore[misc]
        found["grad_weight"][name] = lambda f=backward: f((False, True, False), 1)  # type: ignore[misc]
    if x.is_cuda:
        a, w, b = (t.to(x.dtype).contiguous(memory_format=depthwise.NDHWC) for t in (x, weight, g))
        ones, flags = (1, 1, 1), (True, False, True)  # cuDNN's own benchmark; not deterministic; TF32 as torch's convolutions
        missing = [n - 1 - (m - 1) * s for n, m, s in zip(x.shape[2:], g.shape[2:], stride, strict=True)]
        aten = torch.ops.aten
        found["forward"]["cuDNN"] = lambda: aten.cudnn_convolution(a, w, ones, stride, ones, w.shape[0], *flags)
        found["grad_input"]["cuDNN"] = lambda: aten.cudnn_convolution_transpose(b, w, ones, missing, stride, ones, w.shape[0], *flags)
    return found


def times(candidates: dict[str, Way], cuda: bool, rounds: int) -> dict[str, float]:
    """Median seconds of each, infinite where it cannot run. They take turns; on a CPU a call finds nothing in cache of what the last one left."""
    laps: dict[str, list[float]] = {name: [] for name in candidates}
    for way in () if cuda else candidates.values():
        way()  # warm-up; on CUDA `on_gpu` has its own
    other = torch.empty(0 if cuda else LARGE)
    for _ in range(rounds):
        for name, way in candidates.items():
            other.fill_(0)
            laps[name].append(on_gpu(way) if cuda else lap(way))
    return {name: median(values) for name, values in laps.items()}


def on_gpu(way: Way) -> float:
    try:
        return depthwise_tune.seconds(way)
    except torch.OutOfMemoryError:
        return inf


def lap(way: Way) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def copy_bandwidth(device: str) -> float:
    """Bytes per second of a large copy, read and written counted."""
    a = torch.empty(2**28 if device == "cuda" else 2**25, device=device)
    b = torch.empty_like(a)
    b.copy_(a)
    # on CUDA not in a graph, where a copy is made by other, slower means
    taken = [depthwise_tune.elapsed(lambda: b.copy_(a)) if device == "cuda" else lap(lambda: b.copy_(a)) for _ in range(7)]
    return 2 * a.numel() * 4 / median(taken)


def measure(args: argparse.Namespace, copy: float) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, after every layer."""
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for depth in args.depths:
        for key, count in layers(depth, args.frames, args.crop, args.width).items():
            if key in seen:
                rows += [{**row, "depth": depth, "layers": count} for row in seen[key]]
                continue
            c, t, h, w, stride = key
            size = (args.batch, c, t, h, w)
            x = torch.randn(size).to(args.device, DTYPES[args.dtype]).contiguous(memory_format=depthwise.NDHWC)
            weight = torch.randn(c, 1, 3, 3, 3, device=args.device)
            g = torch.randn_like(depthwise.depthwise_conv3d(x, weight, stride))
            moved = (x.numel() + g.numel()) * x.element_size() + weight.numel() * 4
            for direction, candidates in ways(x, weight, g, stride).items():
                found = times(candidates, args.device == "cuda", args.rounds)
                best = min(v for k, v in found.items() if k != "ours")
                ms = {k: 1e3 * v if isfinite(v) else None for k, v in found.items()}
                rows.append(
                    {
                        "depth": depth, "layers": count, "shape": "x".join(map(str, size)), "stride": "x".join(map(str, stride)), "direction": direction,
                        "ours_ms": ms["ours"], "torch_ndhwc_ms": ms["torch NDHWC"], "torch_ncdhw_ms": ms["torch NCDHW"], "cudnn_ms": ms.get("cuDNN"),
                        "times_faster": best / found["ours"], "gb_per_s": moved / found["ours"] / 1e9, "share_of_copy": moved / found["ours"] / copy,
                        "mega_elements": prod(size) / 1e6,
                    }
                )  # fmt: skip
            seen[key] = rows[-len(DIRECTIONS) :]
            yield rows
        yield rows


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--depths", type=int, nargs="+", choices=(26, 50, 101, 152), default=[50])
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--crop", type=positive, default=112)
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument("--width", type=positive, default=64)
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--name", type=file_name, default="depthwise", help="of the CSV and the figure")
    args = parser.parse_args()
    on_cuda(args)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    if args.device == "cpu":
        keep_memory()
    copy = copy_bandwidth(args.device)
    keys = ("dtype", "batch", "frames", "crop", "width", "threads", "rounds")
    facts = describe(args.device) | {"setting": ", ".join(f"{k} {getattr(args, k)}" for k in keys), "copy": f"{copy / 1e9:.1f} GB/s"}
    for rows in measure(args, copy):
        for direction in DIRECTIONS:
            mean = geometric_mean(r["times_faster"] for r in rows if r["direction"] == direction)
            facts[direction] = f"{mean:.2f} times faster than the best of torch's (geometric mean over the shapes)"
        file = write(args.name, rows, facts)
    told = ("shape", "stride", "direction", "ours_ms", "torch_ndhwc_ms", "torch_ncdhw_ms", "times_faster", "share_of_copy")
    once = {(row["shape"], row["stride"], row["direction"]): row for row in rows}
    show(f"Depthwise 3x3x3, {facts['setting']}, copy {facts['copy']}", list(once.values()), *told)
    print(file, *(f"{d}: {facts[d]}" for d in DIRECTIONS), sep="\n")
    figure(rows, facts, RESULTS / f"{args.name}.png")


def figure(rows: list[dict[str, Any]], facts: dict[str, str], file: Path, other: str = "the best of torch's") -> None:
    """How many times as fast as other, by shape and direction: right of 1 is faster, left of it slower. A row without a stride is no convolution."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    frame = pd.DataFrame(rows)
    frame["layer"] = frame["shape"] + frame["stride"].map(lambda stride: f" /{stride}" if stride else "")
    fig, ax = plt.subplots(figsize=(8, 0.45 * frame.layer.nunique() + 1.5))
    sns.pointplot(
        frame, x="times_faster", y="layer", hue="direction", palette="colorblind", markers=["o", "s", "D"], linestyle="none", dodge=0.3, errorbar=None, ax=ax
    )
    ax.grid(alpha=0.3)
    ax.axvline(1, color="black", linewidth=1)
    low, high = min(0.5, 0.9 * frame["times_faster"].min()), max(2.0, 1.1 * frame["times_faster"].max())
    shape = "batch x channels x frames x height x width" + (" /stride" if frame["stride"].any() else "")
    ax.set(xlabel=f"times as fast as {other} (left of 1: slower)", ylabel=shape, xscale="log", xlim=(low, high))
    ax.yaxis.label.set_size(8)
    ax.xaxis.set_major_locator(FixedLocator([x for x in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if low <= x <= high]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.legend(title=None, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    ax.set_title(heading(facts), fontsize=9)
    fig.tight_layout()
    fig.savefig(file, dpi=110)


if __name__ == "__main__":
    script(main)
