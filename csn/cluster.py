"""The flags of a table script that speak to a cluster: --submit [--plan], --status [--json], --cancel, --profile, --dirty."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csn import launch, status
from csn.profiles import Profile, read_profile
from csn.recipes import VIDEOS
from csn.spec import Embedded, Run
from csn.table import cost_key, planned_costs

SUSTAINED = 10e12  # floating-point operations a second of one GPU in training, for estimates: an assumption, ours


def add_flags(parser: argparse.ArgumentParser, action: Any) -> None:
    """Add the flags; `action` is the group of those that exclude each other."""
    action.add_argument("--submit", action="store_true", help="submit the missing runs to SLURM as one job array and return")
    action.add_argument("--status", action="store_true", help="a live table of the runs, from files and from SLURM where it is")
    action.add_argument("--cancel", action="store_true", help="cancel the queued and running jobs of these runs")
    parser.add_argument("--profile", help="with --submit: slurm/NAME.toml, what a run asks of the cluster (default: gpu)")
    parser.add_argument("--dirty", action="store_true", help="with --submit: allow code that differs from its commit")
    parser.add_argument("--json", action="store_true", help="with --status: print once, as JSON")


def act(args: argparse.Namespace, runs: Sequence[Run], home: Path, data: Path, took: Mapping[str, float]) -> int:
    """Do what --submit, --status or --cancel says with the runs; the exit code.

    took: expected seconds of runs on a CPU, by run name, where they are known. Raises UserError.
    """
    if args.status:
        status.show(runs, home, args.json)
        return 0
    if args.cancel:
        names = launch.cancel(runs, home)
        print("\n".join(f"cancelled {name}" for name in names) or "None of the runs is queued or running.")
        return 0
    profile = read_profile(args.profile or "gpu")
    if args.plan:
        print(launch.preview(runs, home, profile, estimates(runs, profile, took)))
        return 0
    submission, why = launch.submit(runs, home, data, profile, args.dirty)
    print(submission.text() if submission else "Nothing is missing.")
    left_out = [(reason, sum(other == reason for other in why.values())) for reason in sorted(set(why.values()))]
    if left_out:
        print("left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out))
    return 0


def estimates(runs: Sequence[Run], profile: Profile, took: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each run on one device, by name: on CPUs as earlier runs took, on GPUs by FLOPs at SUSTAINED."""
    return dict(took) if profile.device == "cpu" else gpu_seconds(runs)


def gpu_seconds(runs: Sequence[Run]) -> dict[str, float]:
    """Seconds of each run on one GPU that sustains SUSTAINED, by name; an estimate. Runs of unknown cost are left out, and those of built-in
    data, whose networks are too small for a GPU to be bound by arithmetic.

    Two operations a multiply-add; a training clip costs three forward passes; then every view of all test videos, and of all
    training videos for the accuracy of the fit where there was training, costs one. Reading and decoding are left out.
    """
    costs, expected = planned_costs(), {}
    for run in runs:
        recipe, data = run.recipe, run.recipe.data
        macs = costs.get(cost_key(run.variant, recipe), {}).get("flops")
        if macs is None or isinstance(data, Embedded):
            continue
        view = costs.get(cost_key(run.variant, recipe, view=True), {}).get("flops") or macs * (recipe.test_crop / recipe.crop) ** 2
        train, test = VIDEOS[data.kind]
        videos = test + (train if recipe.clips_per_epoch else 0)
        forward = 3 * macs * recipe.epochs * recipe.clips_per_epoch + view * recipe.test_clips * recipe.test_crops * videos
        expected[run.name] = 2 * forward / SUSTAINED
    return expected
