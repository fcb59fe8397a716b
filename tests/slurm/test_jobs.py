"""What becomes of a submission that is not an ordinary training: other code, no memory, a wrong profile, two hundred runs at
once. About 2 minutes, most of it waiting."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from local_cluster import Cluster

from csn import launch, status
from csn.records import folder_of, read_record
from csn.spec import UserError

from .jobs import REPOSITORY, until, wait_state
from .submitted import OWN_JOBS, PROFILE, SHORT, state
from .work import Hog, Meeting, Nothing


def test_the_record_names_the_commit_and_the_dirty_code_that_ran(here: Cluster, data: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "csn", repository / "csn", ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["init", "-q"], ["add", "csn"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *command], cwd=repository, check=True)
    code = repository / "csn" / "__init__.py"
    code.write_text(code.read_text() + "\nSUBMITTED = True\n")
    home = tmp_path / "home"
    submission, _ = launch.submit([SHORT], home, data, PROFILE, allow_dirty=True, repository=repository)
    assert submission is not None
    code.write_text("raise RuntimeError('not the code that was submitted')\n")
    until("its record", lambda: read_record(SHORT, home))
    record, facts = read_record(SHORT, home) or {}, json.loads((submission.folder / "submission.json").read_text())
    assert "error" not in record, record
    assert (record["commit"], record["dirty"]) == (facts["commit"], facts["dirty"])
    head = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert head.stdout.startswith(record["commit"]) and len(record["dirty"]) == 12


def test_two_tasks_on_two_nodes_meet(here: Cluster, tmp_path: Path) -> None:
    profile = replace(OWN_JOBS, nodes=2)
    submission, _ = launch.submit([SHORT], tmp_path, tmp_path, profile, True, make_job=lambda run, *_: Meeting(run.name, tmp_path))
    until("their record", lambda: read_record(SHORT, tmp_path))
    record = read_record(SHORT, tmp_path) or {}
    assert (record["total"], record["size"]) == (3.0, 2)
    assert submission is not None
    wait_state(here, submission.job_id(SHORT.name), "COMPLETED")


@pytest.mark.parametrize("nodes", [1, 2])
def test_out_of_memory_is_told_with_the_log(here: Cluster, tmp_path: Path, nodes: int) -> None:
    """On two nodes it is the second task, whose log is not the first."""
    launch.submit([SHORT], tmp_path, tmp_path, replace(OWN_JOBS, memory=1, nodes=nodes), True, make_job=lambda *_: Hog(nodes - 1))
    until("the end to be told", lambda: state(SHORT, tmp_path).state == "failed")
    assert (state(SHORT, tmp_path).reason or "").startswith("out of memory: ")
    assert [run.name for run in launch.missing([SHORT], tmp_path)[0]] == [SHORT.name]


def test_a_profile_the_cluster_does_not_know_is_told(here: Cluster, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sbatch refused \(.*[Ii]nvalid partition.*\); change the profile"):
        launch.submit([SHORT], tmp_path, tmp_path, replace(PROFILE, partition="nonesuch"), allow_dirty=True)
    assert [path.name for path in (tmp_path / "submissions").iterdir()] == ["lock"]
    assert launch.missing([SHORT], tmp_path)[0] == [SHORT]


def test_two_hundred_runs_need_one_sbatch_and_few_questions(here: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = tmp_path / "bin"
    counted.mkdir()
    for name in ("sbatch", "squeue", "sacct"):
        real = next(p for p in os.environ["PATH"].split(":") if (Path(p) / name).exists())
        (counted / name).write_text(f'#!/bin/sh\necho x >>{tmp_path}/{name}.calls\nexec {real}/{name} "$@"\n')
        (counted / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{counted}:{os.environ['PATH']}")
    runs = [replace(SHORT, seed=seed) for seed in range(200)]
    profile = replace(OWN_JOBS, memory=1, parallel=6)
    launch.submit(runs, tmp_path, tmp_path, profile, True, make_job=lambda run, *_: Nothing(run.name, tmp_path))
    records = [folder_of(run, tmp_path) / "record.json" for run in runs]

    def at_least(count: int) -> bool:
        return sum(path.exists() for path in records) >= count

    for count in range(10, 201, 10):  # patience for every ten of them: a busy machine is slow, not broken
        until(f"{count} records", partial(at_least, count))
    assert [row.state for row in status.Watch(runs, tmp_path).rows()] == ["done"] * 200
    jobs = [(read_record(run, tmp_path) or {})["job"] for run in runs]
    assert len(set(jobs)) == 200  # each by a job of its own
    assert launch.missing(runs, tmp_path)[0] == []
    calls = {name: (tmp_path / f"{name}.calls").read_text().count("x") for name in ("sbatch",)}
    assert calls == {"sbatch": 1}
    assert not (tmp_path / "squeue.calls").exists() and not (tmp_path / "sacct.calls").exists()  # files told it all
    for path in records[:100]:
        path.unlink()
    watch = status.Watch(runs, tmp_path)
    for _ in range(5):
        states = [row.state for row in watch.rows()]
    assert (tmp_path / "squeue.calls").read_text().count("x") == 1
    assert (tmp_path / "sacct.calls").read_text().count("x") == 1
    assert states.count("failed") == 100 and states.count("done") == 100  # the records that vanished are not lost runs
