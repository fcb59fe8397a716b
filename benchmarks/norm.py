"""Batch norm with its ReLU and sum in training on CUDA, map by map: ours, fused, against torch's operators.

    python benchmarks/norm.py --depth 152 --frames 32 --crop 224 --batch 4 --dtype bf16

Every distinct map of ir-CSN at that depth that a batch norm follows, forward and backward, in channels_last_3d. mode: norm, relu(norm),
or sum, relu(norm + other). The two take turns; reported are medians. share is what must cross memory (forward reads the map twice and
writes the result; backward reads gradient and map twice and writes the gradient; a sum reads the other branch, and reads the
result and writes the other branch's gradient), over the time, beside the bandwidth of a copy. The CSV is written after every map.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from depthwise import DTYPES, copy_bandwidth, figure, times
from machine import RESULTS, describe, on_cuda, script, show, write
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn import norm
from csn.blocks import ConvBN
from csn.flags import Parser, file_name, positive
from csn.resnet3d import build
from csn.spec import Variant

Map = tuple[int, int, int, int, str]  # channels, T, H, W, mode
PASSES = {"norm": 8, "relu": 8, "sum": 11}  # over a map, forward and backward: see above
MODES = {"norm": "norm", "relu": "relu(norm)", "sum": "relu(norm + other)"}  # what each is called in the figure


def maps(depth: int, frames: int, crop: int, width: int = 64) -> dict[Map, int]:
    """Each distinct map that a batch norm of ir-CSN follows -> how many a network has."""
    found: dict[Map, int] = {}
    with torch.device("meta"):
        net = build(Variant(block="bottleneck-D", depth=depth, width=width), 400, frames).eval()

    def note(module: Any, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        key = (*result.shape[1:], "sum" if len(inputs) > 1 else "relu" if module.relu else "norm")
        found[key] = found.get(key, 0) + 1  # type: ignore[index, arg-type]

    for module in net.modules():
        if isinstance(module, ConvBN):
            module.register_forward_hook(note)
    net(torch.empty(1, 3, frames, crop, crop, device="meta"))
    return found


def way(fused: bool, mode: str, y: Tensor, other: Tensor, g: Tensor) -> Callable[[], Tensor]:
    """One forward and backward."""
    bn = nn.BatchNorm3d(y.shape[1], eps=1e-3).cuda()
    wanted = [y, bn.weight, bn.bias, *([other] if mode == "sum" else [])]

    def work() -> Tensor:
        z = norm.normalised(bn, y, mode == "relu", other if mode == "sum" else None)
        return torch.autograd.grad(z, wanted, g)[0]

    def with_ours() -> Tensor:
        with norm.fused():
            return work()

    return with_ours if fused else work


def measure(args: argparse.Namespace, copy: float) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, after every map."""
    rows = []
    for (c, t, h, w, mode), count in maps(args.depth, args.frames, args.crop).items():
        size = (args.batch, c, t, h, w)
        y, other, g = (torch.randn(size, device="cuda", dtype=DTYPES[args.dtype]).contiguous(memory_format=norm.NDHWC).requires_grad_(k < 2) for k in range(3))
        found = times({name: way(name == "ours", mode, y, other, g) for name in ("ours", "torch")}, True, args.rounds)
        moved = PASSES[mode] * y.numel() * y.element_size()
        rows.append(
            {
                "depth": args.depth, "maps": count, "shape": "x".join(map(str, size)), "mode": mode,
                "ours_ms": 1e3 * found["ours"], "torch_ms": 1e3 * found["torch"],
                "times_faster": found["torch"] / found["ours"], "gb_per_s": moved / found["ours"] / 1e9, "share_of_copy": moved / found["ours"] / copy,
            }
        )  # fmt: skip
        yield rows


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--depth", type=int, choices=(26, 50, 101, 152), default=50)
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--crop", type=positive, default=224)
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--name", type=file_name, default="norm", help="of the CSV and the figure")
    args = parser.parse_args()
    on_cuda(argparse.Namespace(device="cuda"))
    torch.manual_seed(0)
    copy = copy_bandwidth("cuda")
    facts = describe("cuda") | {"setting": ", ".join(f"{k} {getattr(args, k)}" for k in ("dtype", "batch", "frames", "crop", "rounds"))}
    facts["copy"] = f"{copy / 1e9:.1f} GB/s"
    for rows in measure(args, copy):
        total = {name: sum(row[f"{name}_ms"] * row["maps"] for row in rows) for name in ("ours", "torch")}
        mean = geometric_mean(row["times_faster"] for row in rows)
        facts["network"] = f"{total['ours']:.1f} ms in all maps, torch {total['torch']:.1f} ms; {mean:.2f} times faster (geometric mean over the maps)"
        file = write(args.name, rows, facts)
    show(f"Batch norm, {facts['setting']}, copy {facts['copy']}", rows)
    print(file, facts["network"], sep="\n")
    draw(rows, facts, RESULTS / f"{args.name}.png")


def draw(rows: Sequence[Mapping[str, Any]], facts: dict[str, str], file: Path) -> None:
    """How many times as fast as torch's operators, by map and mode."""
    figure([{**row, "direction": MODES[row["mode"]], "stride": ""} for row in rows], facts, file, "torch's operators")


if __name__ == "__main__":
    script(main)
