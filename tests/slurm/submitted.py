"""What the tests of --submit submit, and how they look at it and disturb it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from csn import launch, status
from csn.profiles import Profile, read_profile
from csn.recipes import SMOKE
from csn.records import folder_of, read_progress
from csn.slurm import Submission
from csn.spec import Run, Variant

from .jobs import until

LONG = replace(SMOKE, epochs=16)  # 32 steps: long enough to be interrupted on a fast machine
VARIANT = Variant(block="bottleneck-D", width=8)
RUN = Run(variant=VARIANT, recipe=LONG, seed=0)
SHORT = Run(variant=VARIANT, recipe=SMOKE, seed=0)
PROFILE = replace(read_profile("local"), checkpoint_every=1, signal_delay=120)
OWN_JOBS = replace(PROFILE, setup=(*PROFILE.setup, f"export PYTHONPATH=$PYTHONPATH:{Path(__file__).parents[1]}"))  # of work.py
MEASURED = ("params", "flops", "train_top1", "clip_top1", "video_top1", "video_top5", "n_videos", "history", "data")


def measured(record: dict[str, Any] | None) -> dict[str, Any]:
    """The part of a record that does not depend on where and when it was made."""
    return {name: (record or {}).get(name) for name in MEASURED}


def submit(run: Run, home: Path, data: Path, profile: Profile = PROFILE) -> Submission:
    """Submit one run that is missing."""
    submission, _ = launch.submit([run], home, data, profile, allow_dirty=True)
    assert submission is not None
    return submission


def until_training(run: Run, home: Path, beyond: dict[str, Any]) -> dict[str, Any]:
    """Wait until another process than that of `beyond` trains past its step; the progress then."""
    folder, step = folder_of(run, home), beyond.get("step", 1)

    def trains() -> bool:
        now = read_progress(folder)
        return now.get("pid") != beyond.get("pid") and now.get("step", 0) > step

    until(f"a new process to train past step {step}", trains)
    return read_progress(folder)


@contextlib.contextmanager
def held_until_signalled(pid: int) -> Iterator[None]:
    """Stop a process, so that it cannot finish, until SLURM signals it; what makes it do so is up to the block.

    SLURM may send SIGCONT with its signal: then the process is awake, or gone, before anybody looks.
    """

    def signalled() -> bool:
        try:
            facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        except (OSError, ValueError):
            return True
        pending = int(facts["SigPnd"], 16) | int(facts["ShdPnd"], 16)
        return not facts["State"].startswith("T") or bool(pending >> (signal.SIGUSR2 - 1) & 1)

    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        until("SIGUSR2", signalled)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def state(run: Run, home: Path) -> status.Row:
    """What --status says of a run."""
    return status.Watch([run], home).rows()[0]
