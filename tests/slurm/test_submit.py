"""One submitted run ends in the record that a local run makes, whatever happens on the way. About 2 minutes, most of it waiting."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from local_cluster import Cluster

from csn import launch
from csn.records import folder_of, read_record

from .jobs import job_field, until, wait_state
from .submitted import LONG, PROFILE, RUN, held_until_signalled, measured, state, submit, until_training


def test_one_run_survives_requeue_time_limit_crash_and_cancel(here: Cluster, data: Path, local: dict[str, Any], tmp_path: Path) -> None:
    run, home = RUN, tmp_path
    submission = submit(run, home, data)
    job = submission.job_id(run.name)
    first = until_training(run, home, {})
    assert state(run, home).state == "running"

    assert here.call("scontrol", "requeue", job).returncode == 0  # no signal that could be answered: resume from disk
    second = until_training(run, home, {**first, "step": 1})
    assert job_field(here, job, "Restarts") == "1"

    with held_until_signalled(second["pid"]):
        hours, minutes, _ = job_field(here, job, "RunTime").split(":")
        limit = 60 * int(hours) + int(minutes) + 2  # one to two minutes from now: the signal is due
        assert here.call("scontrol", "update", f"jobid={job}", f"TimeLimit={limit}").returncode == 0
    until("submitit to requeue", lambda: "Caught signal SIGUSR2" in submission.log(run.name).read_text())
    assert here.call("scontrol", "update", f"jobid={job}", "TimeLimit=30").returncode == 0
    third = until_training(run, home, second)
    assert job_field(here, job, "Restarts") == "2"

    os.kill(third["pid"], signal.SIGKILL)
    wait_state(here, job, "FAILED")
    until("the failure to be told", lambda: state(run, home).state == "failed")
    assert (state(run, home).reason or "").startswith("killed, out of memory perhaps: failed (FAILED, exit ")
    record = read_record(run, home) or {}
    assert record["retry"] and record["log"]

    submit(run, home, data)
    until_training(run, home, third)
    assert launch.cancel([run], home) == [run.name]
    until("the end to be told", lambda: (state(run, home).reason or "").startswith("cancelled (CANCELLED by"))
    assert launch.cancel([run], home) == []

    submit(run, home, data)
    until("its record", lambda: "error" not in (read_record(run, home) or {"error": ""}))
    assert measured(read_record(run, home)) == measured(local)
    assert launch.submit([run], home, data, PROFILE, allow_dirty=True) == (None, {run.name: "done"})


def test_two_tasks_share_a_run_and_one_finishes_it_after_the_other_was_killed(here: Cluster, data: Path, local: dict[str, Any], tmp_path: Path) -> None:
    run, pair = RUN, replace(PROFILE, nodes=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    submission = submit(run, whole, data, pair)
    until("their record", lambda: read_record(run, whole))
    wait_state(here, submission.job_id(run.name), "COMPLETED")  # no task ended by a signal after its work

    submission = submit(run, broken, data, pair)
    until_training(run, broken, {})
    until("a checkpoint", lambda: any(folder_of(run, broken).glob("*.ckpt")))
    job = submission.job_id(run.name)
    ranks = dict(_ranks(job))
    assert set(ranks) == {"0", "1"}
    os.kill(ranks["1"], signal.SIGKILL)
    wait_state(here, job, "FAILED")  # not RUNNING for ever
    until("the failure to be told", lambda: state(run, broken).state == "failed")
    submit(run, broken, data)  # with one task
    until("its record", lambda: "error" not in (read_record(run, broken) or {"error": ""}))

    for home in (whole, broken):
        record = read_record(run, home) or {}
        assert "error" not in record, record
        # One epoch, two steps: rounding only (7e-8 was measured). Later epochs cannot be compared: a single process on two
        # threads instead of one, nothing but another order of sums, is 1.5 % away in the second epoch already.
        assert record["history"][0]["loss"] == pytest.approx(local["history"][0]["loss"], rel=1e-5)
        assert len(record["history"]) == LONG.epochs and record["n_videos"] == local["n_videos"]
    assert (read_record(run, whole) or {})["processes"] == 2


def _ranks(job: str) -> Iterator[tuple[str, int]]:
    """(rank, process id) of the tasks of a job: what runs in it and is neither srun nor a shell."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError):
            command = (process / "cmdline").read_text().split("\0")
            env = dict(entry.split("=", 1) for entry in (process / "environ").read_text().split("\0") if "=" in entry)
            if env["SLURM_JOB_ID"] == job and "submitit.core._submit" in command and "srun" not in command[0]:
                yield env["SLURM_PROCID"], int(process.name)
