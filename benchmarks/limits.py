"""What limits a step of ir-CSN on a CPU: where its time goes, and how near each kind of work comes to what the machine can do.

    python benchmarks/limits.py --threads 1      results/benchmarks/limits_cpu_1thread.csv

One step of training, and one of inference with batch norm folded, as benchmarks/step.py has them, seen by torch's profiler. Products are
the dense convolutions and matrix products, with the rate of their multiply-adds (two operations each) beside that of one large matrix product
in float32; what moves memory is told in milliseconds only, beside the time of copying the network's feature maps once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from step import prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import csn

KINDS = {  # of operators, by what their names contain; the first that fits
    "batch norm": ("batch_norm",),
    "ReLU": ("threshold_backward", "clamp_min", "relu"),
    "products": ("convolution", "linear_pointwise", "mm"),
    "sums, copies, zeros": ("add_", "aten::add", "copy_", "fill_", "zero_"),
    "optimiser": ("fused_sgd",),
}
SIDE = 2048  # of the matrices whose product tells what the machine can do


def kind_of(event: Any) -> str:
    """The kind of work that an operator's own time belongs to."""
    above = event
    while above is not None:
        if above.name.startswith("csn::depthwise"):
            return "depthwise"
        above = above.cpu_parent
    filters = event.input_shapes[1] if len(event.input_shapes) > 1 else []
    if "convolution" in event.name and len(filters) == 5 and filters[1] == 1 and filters[2:] == [3, 3, 3]:
        return "depthwise"  # of a folded network
    return next((kind for kind, names in KINDS.items() if any(name in event.name for name in names)), "other")


def spent(step: Callable[[], None], rounds: int) -> dict[str, float]:
    """Milliseconds of one step by kind, the mean over rounds."""
    for _ in range(3):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as seen:
        for _ in range(rounds):
            step()
    total: dict[str, float] = {}
    for event in seen.events() or ():
        kind = kind_of(event)
        total[kind] = total.get(kind, 0.0) + event.self_cpu_time_total / 1e3 / rounds
    return total


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
    for kind, ms in sorted(total.items(), key=lambda item: -item[1]):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--crop", type=int, default=112)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    from machine import describe, show, write

    from csn.memory import keep_memory

    keep_memory()
    # what the profiler writes down lies between the tensors: without room for both, every large one is mapped afresh
    torch.empty(3 * 2**30, dtype=torch.uint8).fill_(1)
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
    print(write(f"limits_cpu_{args.threads}thread{'s' if args.threads > 1 else ''}", rows, facts))


if __name__ == "__main__":
    main()
