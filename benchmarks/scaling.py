"""How time grows: a training step with every size of the work, planning and collecting with the number of runs.

    python benchmarks/scaling.py --name scaling      both parts, a few minutes on a CPU: results/benchmarks/scaling_*.csv
    python benchmarks/scaling.py step --axes depth batch --device cuda
    python benchmarks/scaling.py runs --runs 10 1000 100000

step: one axis at a time is moved away from the base (ir-CSN and ResNet3D, depth 26, width 16, 8 x 64 x 64, batch 4); the two
networks take turns; reported are medians. "processes" shares a global batch of 8 clips between processes of one thread each, which add up their
gradients (on a CPU only). The CSV is written after every axis.
runs: a home folder of that many finished runs is made, then the table's own functions plan and collect it; and every table
script is called with --plan.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from machine import RESULTS, describe, heading, on_cuda, script, show, write
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn.collect import collect
from csn.cost import count
from csn.exchange import Exchange, process_group
from csn.flags import Parser, file_name, positive
from csn.memory import keep_memory
from csn.provenance import REPOSITORY
from csn.recipes import SMOKE
from csn.records import folder_of
from csn.resnet3d import build
from csn.runner import clock
from csn.spec import Run, Variant, require
from csn.table import Row, Table, runs_of
from csn.train import Place

BLOCKS = {"ir-CSN": "bottleneck-D", "ResNet3D": "bottleneck"}


@dataclass(frozen=True)
class Work:
    """One point: a network's size and its input."""

    depth: int = 26
    width: int = 16
    frames: int = 8
    crop: int = 64
    batch: int = 4

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items())


AXES: dict[str, tuple[int, ...]] = {
    "depth": (26, 50, 101, 152),
    "width": (8, 16, 32, 64),
    "frames": (4, 8, 16, 32),
    "crop": (32, 64, 112, 160),
    "batch": (1, 2, 4, 8, 16),
}
PROCESSES = (1, 2, 4)
COLUMNS = ("axis", "value", "network", "gmacs", "ms_per_clip", "gmacs_per_s", "time_ir_over_resnet3d", "flops_ir_over_resnet3d")


def stepper(block: str, work: Work, device: str) -> tuple[Callable[[], None], int]:
    """A function that does one training step, and the multiply-adds of one clip."""
    net: nn.Module = build(Variant(block=block, depth=work.depth, width=work.width), 400, work.frames).to(device, memory_format=torch.channels_last_3d)  # type: ignore[arg-type]
    flops = count(net, (3, work.frames, work.crop, work.crop)).flops
    several = dist.is_initialized() and dist.get_world_size() > 1
    exchange = Exchange(net, Place(torch.device(device), dist.get_rank(), dist.get_world_size()), 1) if several else None  # as csn.train
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
    clips = torch.randn(work.batch, 3, work.frames, work.crop, work.crop, device=device).contiguous(memory_format=torch.channels_last_3d)
    labels = torch.randint(400, (work.batch,), device=device)

    def step() -> None:
        sgd.zero_grad(set_to_none=exchange is None)
        nn.functional.cross_entropy(net(clips), labels).backward()
        if exchange is not None:
            exchange.add_up()
        sgd.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step, flops


def lap(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def step_rows(axes: list[str], device: str, rounds: int) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, one a network and point, after every axis."""
    rows: list[dict[str, Any]] = []
    for axis in axes:
        for value in AXES[axis]:
            work = replace(Work(), **{axis: value})
            nets = {name: stepper(block, work, device) for name, block in BLOCKS.items()}
            laps: dict[str, list[float]] = {name: [] for name in nets}
            for k in range(rounds + 2):
                for name, (step, _) in nets.items():
                    laps[name] += [lap(step)] if k >= 2 else []
                    step() if k < 2 else None
            ratio = median(a / b for a, b in zip(laps["ir-CSN"], laps["ResNet3D"], strict=True))
            for name, (_, flops) in nets.items():
                ms = 1e3 * median(laps[name])
                rows.append({"axis": axis, "value": value, "network": name, "gmacs": flops / 1e9, "ms_per_clip": ms / work.batch,
                             "gmacs_per_s": 3 * flops * work.batch / ms / 1e6, "time_ir_over_resnet3d": ratio,
                             "flops_ir_over_resnet3d": nets["ir-CSN"][1] / nets["ResNet3D"][1]})  # fmt: skip
        yield rows


def share(rank: int, size: int, store: str, rounds: int, out: str) -> None:
    """One of `size` processes of a step on 8 clips; the first writes the median."""
    torch.set_num_threads(1)
    keep_memory()
    with process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size):
        step, _ = stepper("bottleneck-D", replace(Work(), batch=8 // size), "cpu")
        for _ in range(2):
            step()
        seconds = median(lap(step) for _ in range(rounds))
        if rank == 0:
            Path(out).write_text(json.dumps(seconds))


def process_rows(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for size in PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/seconds"
            mp.spawn(share, (size, f"{folder}/store", rounds, out), nprocs=size)  # type: ignore[no-untyped-call]
            rows.append({"axis": "processes", "value": size, "network": "ir-CSN", "ms_per_clip": 1e3 * json.loads(Path(out).read_text()) / 8})
    return rows


def run_rows(counts: list[int]) -> list[dict[str, Any]]:
    """Seconds to list, plan (state of every run) and collect (records to CSV) a table of that many finished runs."""
    from csn.plan import state_of

    labels = ("bottleneck", "bottleneck-D", "ip", "bottleneck-50", "bottleneck-D-50")
    variants = (*(Variant(block=b, depth=26) for b in ("bottleneck", "bottleneck-D", "ip")), Variant(depth=50), Variant(block="bottleneck-D", depth=50))
    table = Table(name="scaling", title="scaling", rows=tuple(Row(label=label, variant=v) for label, v in zip(labels, variants, strict=True)))
    history = [{"epoch": e, "lr": 0.1, "loss": 1.0, "clip_top1": 50.0} for e in range(1, 7)]
    rows = []
    for wanted in counts:
        seeds = range(max(1, wanted // len(labels)))
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            listed = median(lap(lambda seeds=seeds: runs_of(table.rows, SMOKE, seeds)) for _ in range(5))  # type: ignore[misc, return-value]
            work = runs_of(table.rows, SMOKE, seeds)
            for _, run in work:
                write_record(run, home, history)
            began = time.perf_counter()
            states = [state_of(run, home, set()) for _, run in work]
            planned = time.perf_counter() - began
            laps = []
            for _ in range(5 if len(work) <= 1000 else 1):  # a pause of Python's garbage collector outweighs what few take
                began = time.perf_counter()
                results, troubles = collect(table, SMOKE, home)
                laps.append(time.perf_counter() - began)
            collected = median(laps)
        if set(states) != {"done"} or troubles or len(results.lines) != len(work):
            raise SystemExit(f"Collected {len(results.lines)} of {len(work)} runs; {troubles[:1]}.")
        rows.append({"runs": len(work), "list_s": listed, "plan_s": planned, "collect_s": collected, "collect_us_per_run": 1e6 * collected / len(work)})
    return rows


def plan_rows(rounds: int) -> list[dict[str, Any]]:
    """Median seconds of every table script with --plan, a process a call."""
    laps: dict[Path, list[float]] = {table: [] for table in sorted((REPOSITORY / "experiments").glob("table*.py"))}
    for _ in range(rounds):
        for table, seen in laps.items():
            seen.append(lap(lambda table=table: subprocess.run([sys.executable, table, "--plan"], stdout=subprocess.DEVNULL, check=True)))  # type: ignore[misc]
    return [{"script": table.name, "plan_s": median(seen)} for table, seen in laps.items()]


def write_record(run: Run, home: Path, history: list[dict[str, float]]) -> None:
    """A finished run as csn.execute leaves it, less its weights."""
    folder = folder_of(run, home)
    folder.mkdir(parents=True)
    costs = {"params": 10**6, "flops": 10**9, "interactions": 10**6}
    record = {"run": run.name, "spec": run.to_dict(), **costs, "history": history, "device": "none", "commit": "0"}
    measured = {"train_top1": 60.0, "clip_top1": 50.0, "video_top1": 55.0 + run.seed % 7, "video_top5": 80.0, "n_videos": 800, "seconds": 90.0}
    (folder / "record.json").write_text(json.dumps(record | measured, indent=1, sort_keys=True))


def figure(rows: list[dict[str, Any]], facts: dict[str, str], file: Path) -> None:
    """Milliseconds a clip along every axis, a panel each, one scale for all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    frame = pd.DataFrame(rows)
    axes_of = list(frame.axis.unique())
    fig, axes = plt.subplots(1, len(axes_of), figsize=(2.6 * len(axes_of), 3.6), squeeze=False, sharey=True, layout="constrained")
    for ax, axis in zip(axes[0], axes_of, strict=True):
        own = frame[frame.axis == axis]
        sns.lineplot(own, x="value", y="ms_per_clip", hue="network", style="network", markers=True, dashes=False, palette="colorblind", ax=ax)
        ax.set(xlabel=axis, ylabel="ms a clip" if ax is axes[0][0] else "", xscale="log", yscale="log", xticks=sorted(own.value.unique()))
        ax.xaxis.set_major_formatter(plt.ScalarFormatter())
        ax.xaxis.set_minor_formatter(plt.NullFormatter())
        ax.yaxis.set_major_formatter(plt.ScalarFormatter())
        ax.yaxis.set_minor_formatter(plt.NullFormatter())
        ax.set_yticks([tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if frame.ms_per_clip.min() / 1.5 < tick < 1.5 * frame.ms_per_clip.max()])
        ax.grid(alpha=0.3)
        ax.legend(title=None) if ax is axes[0][0] else ax.get_legend().remove()
    fig.suptitle(heading(facts), fontsize=9)
    fig.savefig(file, dpi=110)


def runs_figure(rows: list[dict[str, Any]], facts: dict[str, str], file: Path) -> None:
    """Seconds to list, plan and collect against the number of runs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    names = {"list_s": "list", "plan_s": "plan", "collect_s": "collect"}
    frame = pd.DataFrame(rows).rename(columns=names).melt("runs", list(names.values()), var_name="what", value_name="seconds")
    fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    sns.lineplot(frame, x="runs", y="seconds", hue="what", style="what", markers=True, dashes=False, palette="colorblind", ax=ax)
    ax.set(xscale="log", yscale="log")
    ax.legend(title=None)
    ax.grid(alpha=0.3)
    ax.set_title(heading(facts), fontsize=9)
    fig.savefig(file, dpi=110)


def plans_figure(rows: list[dict[str, Any]], facts: dict[str, str], file: Path) -> None:
    """Seconds of every table script with --plan, beside the second that it may take."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    fig, ax = plt.subplots(figsize=(6, 0.4 * len(rows) + 1.4), layout="constrained")
    sns.barplot(pd.DataFrame(rows), x="plan_s", y="script", color="C0", ax=ax)
    ax.axvline(1, color="0.3", linestyle="--")
    ax.set(xlabel="seconds of --plan (aim: less than 1)", ylabel="")
    ax.set_title(heading(facts), fontsize=9)
    fig.savefig(file, dpi=110)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["step", "runs", "both"], default="both")
    parser.add_argument("--axes", nargs="+", choices=[*AXES, "processes"], help="of step (default: all; on cuda without processes)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--runs", type=positive, nargs="+", default=[10, 100, 1000, 10_000, 100_000], help="five and its multiples")
    parser.add_argument("--name", type=file_name, default="my_scaling", help="begin of the names of CSVs and figures")
    args = parser.parse_args()
    on_cuda(args)
    axes = args.axes or [*AXES, *(["processes"] if args.device == "cpu" else [])]
    require(args.device == "cpu" or "processes" not in axes, "--axes", "processes", "is measured on a CPU only; leave it out with --device cuda")
    for wanted in args.runs:
        require(wanted % 5 == 0, "--runs", wanted, "must be a multiple of five, for so many rows take part")
    began = time.monotonic()
    facts = describe(args.device)
    if args.part in ("step", "both"):
        torch.set_num_threads(args.threads)
        keep_memory()
        facts["setting"] = f"a training step, threads {args.threads} (processes: 1 each, 8 clips together), rounds {args.rounds}; but for the axis: {Work()}"
        rows: list[dict[str, Any]] = []
        for rows in step_rows([axis for axis in axes if axis != "processes"], args.device, args.rounds):
            write(f"{args.name}_step", rows, facts)
        rows += process_rows(args.rounds) if "processes" in axes else []
        print(write(f"{args.name}_step", rows, facts))
        show("A training step", [{column: row.get(column) for column in COLUMNS} for row in rows])
        figure(rows, facts, RESULTS / f"{args.name}_step.png")
    if args.part in ("runs", "both"):
        rows = run_rows(args.runs)
        facts["setting"] = f"records on {os.environ.get('TMPDIR', 'the default temporary folder')}"
        show("Runs", rows)
        print(write(f"{args.name}_runs", rows, facts))
        runs_figure(rows, facts, RESULTS / f"{args.name}_runs.png")
        plans = plan_rows(args.rounds)
        facts["setting"] = f"median of {args.rounds} calls in turn, a process each"
        show("--plan of every table", plans)
        print(write(f"{args.name}_plans", plans, facts))
        plans_figure(plans, facts, RESULTS / f"{args.name}_plans.png")
    print(f"{clock(time.monotonic() - began)} in all")


if __name__ == "__main__":
    script(main)
