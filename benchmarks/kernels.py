"""Where a step's time goes on a GPU, by kind of kernel: ir-CSN beside ResNet3D, training and inference.

    python benchmarks/kernels.py --depth 152 --frames 32 --crop 224 --batch 4 --name kernels_gpu_152

Steps as benchmarks/step.py has them, one CUDA graph each, watched by torch's profiler: every kernel's time on the device. idle is what the step
takes beyond, by the clock, without the profiler: the gaps between kernels, and starting the graph; 0 where the kernels, watched, take longer than
the step. The CSV is written after every step measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import RESULTS, describe, heading, on_cuda, script, show, write
from step import DEPTHS, WARM, prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn.flags import Parser, file_name, positive

KINDS = {  # of kernels, by what their names contain; the first that fits
    "batch norm, ReLU, sum": ("statistics_kernel", "moments_kernel", "scale_kernel", "sums_kernel", "totals_kernel", "gradient_kernel", "affine_kernel"),
    "depthwise": ("forward_kernel", "scatter_kernel", "weight_kernel", "total_kernel"),
    "convolutions": ("implicit_gemm",),
    "1x1x1 products": ("nvjet", "gemm", "splitKreduce"),
    "pooling": ("pool",),
    "optimiser, zeros": ("multi_tensor", "FillFunctor", "Memset"),
    "sums of gradients": ("CUDAFunctor_add",),
    "copies, casts": ("copy", "Memcpy", "CatArray", "blocks_kernel"),
}
NETWORKS = ("ir-CSN", "ResNet3D")
ROUNDS = 5  # steps that are timed, and as many that are watched
Kernels = Mapping[str, tuple[float, float]]  # name -> how many of them a step has, and their milliseconds together


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def clocked(step: Callable[[], None]) -> float:
    """Median milliseconds of a step by the clock."""
    laps = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        laps.append(time.perf_counter() - began)
    return 1e3 * median(laps)


def watched(step: Callable[[], None]) -> Kernels:
    """The kernels of a step, the mean over ROUNDS."""
    found: dict[str, tuple[float, float]] = {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(ROUNDS):
            step()
        torch.cuda.synchronize()
    for event in profile.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            number, ms = found.get(event.name, (0.0, 0.0))
            found[event.name] = number + 1 / ROUNDS, ms + event.time_range.elapsed_us() / 1e3 / ROUNDS
    return found


def rows_of(mode: str, network: str, kernels: Kernels, whole: float) -> list[dict[str, Any]]:
    """A row a kind of work, the longest first, and last what of the whole step, in milliseconds, no kernel takes."""
    total: dict[str, tuple[float, float]] = {}
    for name, (number, ms) in kernels.items():
        before = total.get(kind_of(name), (0.0, 0.0))
        total[kind_of(name)] = before[0] + number, before[1] + ms
    idle = whole - sum(ms for _, ms in total.values())
    ordered = [*sorted(total.items(), key=lambda item: -item[1][1]), ("idle", (0.0, max(0.0, idle)))]
    return [{"mode": mode, "network": network, "work": kind, "kernels": round(n), "ms": ms, "share": ms / whole} for kind, (n, ms) in ordered]


def figure(rows: list[dict[str, Any]], facts: Mapping[str, str], file: Path) -> None:
    """Milliseconds of a step by kind of work, the networks side by side, a panel a mode."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    frame = pd.DataFrame(rows)
    modes = list(frame["mode"].unique())
    order = frame.groupby("work").ms.max().sort_values(ascending=False).index
    fig, axes = plt.subplots(1, len(modes), figsize=(5.5 * len(modes), 4.2), squeeze=False, sharey=True, layout="constrained")
    for ax, mode in zip(axes[0], modes, strict=True):
        own = frame[frame["mode"] == mode]
        sns.barplot(own, x="ms", y="work", hue="network", order=order, palette="colorblind", errorbar=None, ax=ax)
        for bars in ax.containers:
            ax.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)  # type: ignore[arg-type]
        whole = own.groupby("network", sort=False).ms.sum()
        ax.set(title=f"{mode}: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in whole.items()), xlabel="ms a step", ylabel="", xlim=(0, 1.15 * own.ms.max()))
        ax.legend(title=None, frameon=False, loc="lower right")
    fig.suptitle(heading(facts), fontsize=9)
    fig.savefig(file, dpi=110)
    plt.close(fig)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, choices=DEPTHS, default=152)
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument("--frames", type=positive, default=32)
    parser.add_argument("--crop", type=positive, default=224)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--name", type=file_name, default="kernels", help="of the CSV and the figure")
    args = parser.parse_args()
    on_cuda(argparse.Namespace(device="cuda"))
    facts = describe("cuda") | {"setting": f"depth {args.depth}, batch {args.batch}, {args.frames}x{args.crop}x{args.crop}, {args.dtype}"}
    rows: list[dict[str, Any]] = []
    for mode in ("train", "infer"):
        for network in NETWORKS:
            serve = argparse.Namespace(**vars(args), serve=f"{network}/{args.depth}/channels_last_3d", mode=mode, device="cuda", compile=False)
            step = prepare(serve)[1]
            for _ in range(WARM):
                step()
            torch.cuda.synchronize()
            whole = clocked(step)
            rows += rows_of(mode, network, watched(step), whole)
            del step
            file = write(args.name, rows, facts)
    show(facts["setting"], rows)
    print(file)
    figure(rows, facts, RESULTS / f"{args.name}.png")


if __name__ == "__main__":
    script(main)
