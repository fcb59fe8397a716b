"""How the SLURM tests submit to the shared cluster and wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from local_cluster import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 900  # seconds after which a wait is a failure; what is waited for takes a thirtieth of it on an idle machine


def until(what: str, ready: Callable[[], object]) -> None:
    """Poll until ready() is true; fail the test with `what` when PATIENCE ends."""
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            pytest.fail(f"waited {PATIENCE} s in vain for {what}")
        time.sleep(0.2)


def job_field(cluster: Cluster, job: str, name: str) -> str:
    """One field of `scontrol show job`, such as JobState, Restarts or NodeList."""
    fields = cluster.call("scontrol", "-o", "show", "job", job).stdout.split()
    return next((f.removeprefix(f"{name}=") for f in fields if f.startswith(f"{name}=")), "")


def wait_state(cluster: Cluster, job: str, *states: str) -> None:
    until(f"job {job} to be {' or '.join(states)}", lambda: job_field(cluster, job, "JobState") in states)


def sbatch(cluster: Cluster, script: str, *options: str) -> str:
    """Submit a bash script of 1 CPU and 100 MB unless options say otherwise; return the job id."""
    done = cluster.call("sbatch", "--parsable", "--mem=100", *options, "--wrap", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
