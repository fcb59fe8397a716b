"""What limits a step of ir-CSN on a CPU: where its time goes, and how near each kind of work comes to what the machine can do.

    python benchmarks/limits.py --threads 1      results/benchmarks/limits_cpu_1thread.csv

One step of training, and one of inference with batch norm folded, as benchmarks/step.py has them, operator by operator. Products are
the dense convolutions and matrix products, with the rate of their multiply-adds (two operations each) beside that of one large matrix product
in float32; what moves memory is told in milliseconds only, beside the time of copying the network's feature maps once.
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
from step import prepare
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import csn

KINDS = {  # of operators, by what their names contain; the first that fits
    "batch norm": ("batch_norm",),
    "ReLU": ("threshold_backward", "clamp_min", "relu"),
    "products": ("convolution", "linear_pointwise", "mm", "aten.linear"),
    "sums, copies, zeros": ("aten.add", "copy", "clone", "fill_", "zero"),
    "optimiser": ("fused_sgd",),
}
SIDE = 2048  # of the matrices whose product tells what the machine can do


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
    """Milliseconds of one step by kind, the mean over rounds; "other" with all that is no operator."""
    for _ in range(3):
        step()
    began = time.perf_counter()
    with Clock() as clock:
        for _ in range(rounds):
            step()
    whole = time.perf_counter() - began
    clock.total["other"] += whole - sum(clock.total.values())
    return {kind: 1e3 * seconds / rounds for kind, seconds in clock.total.items()}


def timed(work: Callable[[], object], rounds: int = 5) -> float:
    """Median seconds of work."""
    laps = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        laps.append(time.perf_counter() - began)
    return median(laps[1:])


def rows_of(mode: str, total: dict[str, float], dense: float, best: float, copy_ms: float) -> list[dict[str, Any]]:
    """A row a kind of work, the longest first. dense: multiply-adds of the products; best: GFLOP/s of a large product."""
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
    """Milliseconds of a step by kind of work, a panel a mode, with the products' rate beside that of one large product; the last bar is a copy."""
    import matplotlib
    from machine import heading

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
    best = f"one large matrix product: {frame.best_gflop_per_s.max():.0f} GFLOP/s"
    fig.suptitle(f"{heading(facts)}; {best}", fontsize=9)
    fig.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--crop", type=int, default=112)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    from machine import RESULTS, describe, show, write

    from csn.memory import keep_memory

    keep_memory()
    torch.set_num_threads(args.threads)
    a, b = torch.randn(2, SIDE, SIDE)
    best = 2e-9 * SIDE**3 / timed(lambda: a @ b)
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
    show(facts["setting"], rows)
    name = f"limits_cpu_{args.threads}thread{'s' if args.threads > 1 else ''}"
    print(write(name, rows, facts))
    figure(rows, facts, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
