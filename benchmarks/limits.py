"""What limits a step of ir-CSN on a CPU: where its time goes, and how near each kind of work comes to what the machine can do.

    python benchmarks/limits.py --threads 1 --name limits_cpu_1thread      results/benchmarks/limits_cpu_1thread.csv

One step of training, and one of inference with batch norm folded, as benchmarks/step.py has them, operator by operator, in turn with steps
that are not watched: "other" is what these take beyond the operators. Products are the dense convolutions and matrix products, with the rate of
their multiply-adds (two operations each) beside the best that this processor was seen to do in float32 (best_gflop_per_s: the fastest of one
large matrix product, by torch.mm and by oneDNN, and one large 3x3 convolution); what moves memory is told in milliseconds only, beside the
time of copying the network's feature maps once (copy_ms). The CSV is written after either mode.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import RESULTS, describe, heading, script, show, write
from step import DEPTHS, prepare
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import csn
from csn.flags import Parser, file_name, positive
from csn.memory import keep_memory

KINDS = {  # of operators, by what their names contain; the first that fits
    "batch norm": ("batch_norm",),
    "ReLU": ("threshold_backward", "clamp_min", "relu"),
    "products": ("convolution", "linear_pointwise", "mm", "aten.linear"),
    "sums, copies, zeros": ("aten.add", "copy", "clone", "fill_", "zero"),
    "optimiser": ("fused_sgd",),
}
SIDE = 2048  # of the matrices whose product tells what the machine can do
LARGE = (16, 256, 56, 56)  # clips, channels, H, W of the convolution that does


class Clock(TorchDispatchMode):
    """Adds up the seconds of the operators by kind of work. (torch's profiler writes its notes between the tensors, which are then mapped afresh.)"""

    def __init__(self) -> None:
        super().__init__()
        self.total = dict.fromkeys((*KINDS, "depthwise", "other"), 0.0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.perf_counter()
        found = func(*args, **(kwargs or {}))
        self.total[kind_of(str(func), args)] += time.perf_counter() - began
        return found


def kind_of(name: str, args: Sequence[Any]) -> str:
    """The kind of work of an operator called with args."""
    filters = args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else None
    of_folded = "convolution" in name and filters is not None and filters.shape[1:] == (1, 3, 3, 3)
    if "depthwise" in name or of_folded:
        return "depthwise"
    return next((kind for kind, names in KINDS.items() if any(one in name for one in names)), "other")


def spent(step: Callable[[], None], rounds: int) -> dict[str, float]:
    """Milliseconds of one step by kind, the mean over rounds; "other" with all that is no operator, but not the watching itself."""
    for _ in range(3):
        step()
    clock, plain = Clock(), 0.0
    for _ in range(rounds):
        plain += lap(step)
        with clock:
            step()
    clock.total["other"] = max(0.0, clock.total["other"] + plain - sum(clock.total.values()))
    return {kind: 1e3 * seconds / rounds for kind, seconds in clock.total.items()}


def lap(work: Callable[[], object]) -> float:
    """Seconds of work."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def timed(work: Callable[[], object], rounds: int = 5) -> float:
    """Median seconds of work."""
    return median([lap(work) for _ in range(rounds + 1)][1:])


def best_rate() -> float:
    """GFLOP/s of the fastest of: one large matrix product by torch.mm, the same by oneDNN, one large 3x3 convolution; float32."""
    a, b = torch.randn(2, SIDE, SIDE)
    maps = torch.randn(LARGE).contiguous(memory_format=torch.channels_last)
    filters = torch.randn(LARGE[1], LARGE[1], 3, 3).contiguous(memory_format=torch.channels_last)
    convolved = maps.numel() * LARGE[1] * 9
    works: list[tuple[Callable[[], object], int]] = [
        (lambda: a @ b, SIDE**3), (lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""), SIDE**3),
        (lambda: torch.conv2d(maps, filters, padding=1), convolved),
    ]  # fmt: skip
    with torch.inference_mode():
        return max(2e-9 * products / timed(work) for work, products in works)


def rows_of(mode: str, total: dict[str, float], dense: float, best: float, copy_ms: float) -> list[dict[str, Any]]:
    """A row a kind of work, the longest first. dense: multiply-adds of the products; best: GFLOP/s that the processor can do."""
    whole = sum(total.values())
    rows = []
    for kind, ms in sorted(((kind, ms) for kind, ms in total.items() if ms), key=lambda item: -item[1]):
        rate = 2e-6 * dense / ms if kind == "products" else None
        rates = {"gflop_per_s": rate, "best_gflop_per_s": best if rate else None}
        rows.append({"mode": mode, "work": kind, "ms": ms, "share": ms / whole, **rates, "copy_ms": copy_ms})
    return rows


def multiply_adds(frames: int, crop: int, depth: int, mode: str) -> tuple[float, float]:
    """Of one clip: multiply-adds of the products (in training three times the forward's, but the first layer's twice), and values of all feature maps."""
    layers = csn.count(csn.build(csn.Variant(block="bottleneck-D", depth=depth), 400, frames), (3, frames, crop, crop)).layers
    dense = [one for one in layers if one.interactions or one.kind == "linear"]
    factor = 3 if mode == "train" else 1
    values = sum(torch.Size(one.shape).numel() for one in layers)
    return float(sum(one.flops for one in dense) * factor - (dense[0].flops if mode == "train" else 0)), float(values)


def figure(rows: list[dict[str, Any]], facts: dict[str, str], file: Path) -> None:
    """Milliseconds of a step by kind of work, a panel a mode, with the products' rate beside the processor's best; the last bar is a copy."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd

    frame = pd.DataFrame(rows)
    modes = list(frame["mode"].unique())
    fig, axes = plt.subplots(1, len(modes), figsize=(5.5 * len(modes), 3.8), squeeze=False, layout="constrained")
    for ax, mode in zip(axes[0], modes, strict=True):
        own = frame[frame["mode"] == mode]
        told = [f"{100 * one.share:.1f} %" + (f", {one.gflop_per_s:.0f} GFLOP/s" if one.gflop_per_s > 0 else "") for one in own.itertuples()]
        ax.bar_label(ax.barh(own.work, own.ms, color="C0"), told, padding=3, fontsize=8)
        copied = ax.barh(["(copy of all feature maps)"], own.copy_ms.iloc[:1], color="0.6")
        ax.bar_label(copied, ["for comparison"], padding=3, fontsize=8)
        ax.invert_yaxis()
        ax.set(title=f"{mode}: {own.ms.sum():.0f} ms", xlabel="ms a step", xlim=(0, 1.6 * own.ms.max()))
    best = f"the processor's best: {frame.best_gflop_per_s.max():.0f} GFLOP/s"
    fig.suptitle(f"{heading(facts)}; {best}", fontsize=9)
    fig.savefig(file, dpi=110)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--depth", type=int, choices=DEPTHS, default=50)
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--crop", type=positive, default=112)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--name", type=file_name, default="limits", help="of the CSV and the figure")
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    best = best_rate()
    facts = describe("cpu") | {"setting": f"ir-CSN-{args.depth}, threads {args.threads}, batch {args.batch}, {args.frames}x{args.crop}x{args.crop}, fp32"}
    rows: list[dict[str, Any]] = []
    for mode, layout in (("train", "channels_last_3d"), ("infer", "channels_last_3d folded")):
        serve = argparse.Namespace(**vars(args), serve=f"ir-CSN/{args.depth}/{layout}", mode=mode, device="cpu", dtype="fp32", compile=False)
        dense, values = multiply_adds(args.frames, args.crop, args.depth, mode)
        maps = torch.randn(int(values) * args.batch)
        copied = torch.empty_like(maps)
        copy_ms = 1e3 * timed(lambda maps=maps, copied=copied: copied.copy_(maps))  # type: ignore[misc]
        del maps, copied
        rows += rows_of(mode, spent(prepare(serve)[1], args.rounds), dense * args.batch, best, copy_ms)
        file = write(args.name, rows, facts)
    show(facts["setting"], rows)
    print(file)
    figure(rows, facts, RESULTS / f"{args.name}.png")


if __name__ == "__main__":
    script(main)
