"""--submit on a real SLURM: what was submitted ends in the records a local run would have made, whatever happens on the
way. About 4 minutes on two busy cores."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from local_cluster import Cluster

from csn import launch, status
from csn.data import moving_digits
from csn.execute import folder_of, read_record
from csn.profiles import Profile, read_profile
from csn.recipes import SMOKE
from csn.slurm import Submission
from csn.spec import MovingDigits, Run, UserError, Variant

from .jobs import REPOSITORY, job_field, sbatch, until, wait_state
from .work import Hog, Meeting, Nothing

LONG = replace(SMOKE, epochs=16)  # 32 steps: long enough to be interrupted on a fast machine
VARIANT = Variant(block="bottleneck-D", width=8)
RUNS = [Run(variant=VARIANT, recipe=LONG, seed=seed) for seed in (0, 1)]
SHORT = Run(variant=VARIANT, recipe=SMOKE, seed=0)
PROFILE = replace(read_profile("local"), checkpoint_every=1, signal_delay=120)
TESTS = f"export PYTHONPATH=$PYTHONPATH:{Path(__file__).parents[1]}"
MEASURED = ("params", "flops", "train_top1", "clip_top1", "video_top1", "video_top5", "n_videos", "history", "data")


@pytest.fixture
def here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The shared cluster, as the cluster of this process."""
    for name in set(os.environ) - set(cluster.env):
        monkeypatch.delenv(name)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    return cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert isinstance(SMOKE.data, MovingDigits)
    moving_digits.make(SMOKE.data, folder, 2, lambda done, total: None)
    return folder


@pytest.fixture(scope="module")
def local(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """The records of RUNS, made on this machine without SLURM."""
    home = tmp_path_factory.mktemp("local")
    for run in RUNS:
        folder_of(run, home).mkdir(parents=True)
        (folder_of(run, home) / "run.json").write_text(json.dumps(run.to_dict()))
    call = [sys.executable, "-m", "csn.execute", "--home", str(home), "--data", str(data)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    processes = [subprocess.Popen([*call, str(folder_of(run, home) / "run.json")], env=env, cwd="/") for run in RUNS]
    assert [process.wait() for process in processes] == [0, 0]
    yield [read_record(run, home) or {} for run in RUNS]


def measured(record: dict[str, Any] | None) -> dict[str, Any]:
    return {name: (record or {}).get(name) for name in MEASURED}


def submit(runs: list[Run], home: Path, data: Path, profile: Profile = PROFILE) -> Submission:
    submission, _ = launch.submit(runs, home, data, profile, allow_dirty=True)
    assert submission is not None
    return submission


def progress(run: Run, home: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder_of(run, home) / "progress.json").read_text())
        return content
    except (OSError, ValueError):
        return {}


def trains(run: Run, home: Path, beyond: dict[str, Any]) -> bool:
    """Whether another process than that of `beyond` has trained past its step."""
    now = progress(run, home)
    return now.get("pid") != beyond.get("pid") and now.get("step", 0) > beyond.get("step", 1)


def until_training(run: Run, home: Path, beyond: dict[str, Any]) -> dict[str, Any]:
    """Wait for trains(); the progress then."""
    until(f"a new process to train past step {beyond.get('step', 1)}", lambda: trains(run, home, beyond))
    return progress(run, home)


def until_all_held(runs: list[Run], home: Path) -> dict[str, int]:
    """Stop the process of each run (SIGSTOP) as soon as it trains, so that none can finish; process ids by run name."""
    held: dict[str, int] = {}

    def all_held() -> bool:
        for run in runs:
            if run.name not in held and trains(run, home, {}):
                held[run.name] = progress(run, home)["pid"]
                os.kill(held[run.name], signal.SIGSTOP)
        return len(held) == len(runs)

    until("the runs to train", all_held)
    return held


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
    return status.Watch([run], home).rows()[0]


def test_a_table_survives_a_preemption_and_a_dead_node(
    here: Cluster, data: Path, local: list[dict[str, Any]], tmp_path: Path
) -> None:
    submission = submit(RUNS, tmp_path, data)
    again, why = launch.submit(RUNS, tmp_path, data, PROFILE, allow_dirty=True)
    assert again is None and set(why.values()) <= {"queued", "running"} and len(why) == 2
    pids = until_all_held(RUNS, tmp_path)
    preempted, lost = (submission.job_id(run.name) for run in RUNS)
    nodes = [job_field(here, job, "NodeList") for job in (preempted, lost)]
    assert len(set(nodes)) == 2  # 2 GB each: one a node
    here.kill_node(nodes[1])
    with held_until_signalled(pids[RUNS[0].name]):
        urgent = sbatch(here, "true", "-p", "urgent", "-w", nodes[0], "-c4", "-o", "/dev/null")
    wait_state(here, urgent, "COMPLETED")
    try:
        for run in RUNS:
            until("its record", partial(read_record, run, tmp_path))
        for run, record in zip(RUNS, local, strict=True):
            assert measured(read_record(run, tmp_path)) == measured(record)
            assert job_field(here, submission.job_id(run.name), "Restarts") == "1"
        assert "the state is saved" in submission.log(RUNS[0].name).read_text()
        assert "this job is preempted" in submission.log(RUNS[0].name).read_text()
        assert [row.state for row in status.Watch(RUNS, tmp_path).rows()] == ["done", "done"]
    finally:
        here.start_node(nodes[1])
        sinfo = ("sinfo", "-h", "-p", "main", "-N", "-o", "%t")
        until("the node", lambda: set(here.call(*sinfo).stdout.split()) <= {"idle", "mix"})


def test_one_run_survives_requeue_time_limit_crash_and_cancel(
    here: Cluster, data: Path, local: list[dict[str, Any]], tmp_path: Path
) -> None:
    run, home = RUNS[0], tmp_path
    submission = submit([run], home, data)
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
    assert (state(run, home).reason or "").startswith("failed (FAILED, exit ")
    record = read_record(run, home) or {}
    assert record["retry"] and record["log"]

    submit([run], home, data)
    until_training(run, home, third)
    assert launch.cancel(RUNS, home) == [run.name]
    until("the end to be told", lambda: (state(run, home).reason or "").startswith("cancelled (CANCELLED by"))
    assert launch.cancel(RUNS, home) == []

    submit([run], home, data)
    until("its record", lambda: "error" not in (read_record(run, home) or {"error": ""}))
    assert measured(read_record(run, home)) == measured(local[0])
    assert launch.submit([run], home, data, PROFILE, allow_dirty=True) == (None, {run.name: "done"})


def test_two_tasks_share_a_run_and_one_finishes_it_after_the_other_was_killed(
    here: Cluster, data: Path, local: list[dict[str, Any]], tmp_path: Path
) -> None:
    run, pair = RUNS[0], replace(PROFILE, nodes=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    submit([run], whole, data, pair)
    until("their record", lambda: read_record(run, whole))

    submission = submit([run], broken, data, pair)
    until_training(run, broken, {})
    until("a checkpoint", lambda: any(folder_of(run, broken).glob("*.ckpt")))
    job = submission.job_id(run.name)
    ranks = dict(_ranks(job))
    assert set(ranks) == {"0", "1"}
    os.kill(ranks["1"], signal.SIGKILL)
    wait_state(here, job, "FAILED")  # not RUNNING for ever
    until("the failure to be told", lambda: state(run, broken).state == "failed")
    submit([run], broken, data)  # with one task
    until("its record", lambda: "error" not in (read_record(run, broken) or {"error": ""}))

    for home in (whole, broken):
        record = read_record(run, home) or {}
        assert "error" not in record, record
        # One epoch, two steps: rounding only (7e-8 was measured). Later epochs cannot be compared: a single process on two
        # threads instead of one, nothing but another order of sums, is 1.5 % away in the second epoch already.
        assert record["history"][0]["loss"] == pytest.approx(local[0]["history"][0]["loss"], rel=1e-5)
        assert len(record["history"]) == LONG.epochs and record["n_videos"] == local[0]["n_videos"]
    assert (read_record(run, whole) or {})["processes"] == 2


def _ranks(job: str) -> Iterator[tuple[str, int]]:
    """(rank, process id) of the tasks of a job: what runs in it and is neither srun nor a shell."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError):
            command = (process / "cmdline").read_text().split("\0")
            env = dict(entry.split("=", 1) for entry in (process / "environ").read_text().split("\0") if "=" in entry)
            if env["SLURM_JOB_ID"] == job and "submitit.core._submit" in command and "srun" not in command[0]:
                yield env["SLURM_PROCID"], int(process.name)


def test_the_record_names_the_commit_and_the_dirty_code_that_ran(here: Cluster, data: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "csn", repository / "csn", ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["init", "-q"], ["add", "csn"], ["commit", "-q", "-m", "one"]):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *command], cwd=repository, check=True
        )
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
    head = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert head.stdout.startswith(record["commit"]) and len(record["dirty"]) == 12


def test_two_tasks_on_two_nodes_meet(here: Cluster, tmp_path: Path) -> None:
    profile = replace(PROFILE, nodes=2, setup=(*PROFILE.setup, TESTS))
    launch.submit([SHORT], tmp_path, tmp_path, profile, True, make_job=lambda run, *_: Meeting(run.name, tmp_path))
    until("their record", lambda: read_record(SHORT, tmp_path))
    record = read_record(SHORT, tmp_path) or {}
    assert (record["total"], record["size"]) == (3.0, 2)


def test_out_of_memory_is_told_with_the_log(here: Cluster, tmp_path: Path) -> None:
    profile = replace(PROFILE, memory=1, setup=(*PROFILE.setup, TESTS))
    launch.submit([SHORT], tmp_path, tmp_path, profile, True, make_job=lambda *_: Hog())
    until("the end to be told", lambda: state(SHORT, tmp_path).state == "failed")
    assert (state(SHORT, tmp_path).reason or "").startswith("out of memory: ")
    assert [run.name for run in launch.missing([SHORT], tmp_path)[0]] == [SHORT.name]


def test_a_profile_the_cluster_does_not_know_is_told(here: Cluster, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sbatch refused \(.*[Ii]nvalid partition.*\); change the profile"):
        launch.submit([SHORT], tmp_path, tmp_path, replace(PROFILE, partition="nonesuch"), allow_dirty=True)
    assert [path.name for path in (tmp_path / "submissions").iterdir()] == ["lock"]
    assert launch.missing([SHORT], tmp_path)[0] == [SHORT]


def test_two_hundred_runs_need_one_sbatch_and_few_questions(
    here: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = tmp_path / "bin"
    counted.mkdir()
    for name in ("sbatch", "squeue", "sacct"):
        real = next(p for p in os.environ["PATH"].split(":") if (Path(p) / name).exists())
        (counted / name).write_text(f'#!/bin/sh\necho x >>{tmp_path}/{name}.calls\nexec {real}/{name} "$@"\n')
        (counted / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{counted}:{os.environ['PATH']}")
    runs = [replace(SHORT, seed=seed) for seed in range(200)]
    profile = replace(PROFILE, memory=1, parallel=6, setup=(*PROFILE.setup, TESTS))
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


def test_a_table_script_from_submit_to_csv(here: Cluster, data: Path, tmp_path: Path) -> None:
    script = [
        sys.executable,
        str(REPOSITORY / "experiments" / "table3_groups.py"),
        "--scale",
        "smoke",
        "--data",
        str(data),
    ]
    rows = ["--only", "simple-D", "bottleneck-D"]

    def call(home: str, *flags: str) -> str:
        command = [*script, "--home", str(tmp_path / home), *rows, *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "300"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "#SBATCH --array=0-1%2" in call("there", "--submit", "--plan", "--profile", "local")
    assert ": 2 runs" in call("there", "--submit", "--profile", "local", "--dirty")
    assert "Nothing is missing." in call("there", "--submit", "--profile", "local", "--dirty")
    seen = partial(call, "there", "--status", "--json")
    until("both to be done", lambda: [row["state"] for row in json.loads(seen())] == ["done", "done"])
    assert "2 of 2 done" in call("there", "--status")
    assert "None of the runs is queued" in call("there", "--cancel")
    call("there", "--show")
    call("here")
    columns = ("row", "seed", "train_top1", "clip_top1", "video_top1", "video_top5", "run")
    tables = []
    for home in ("there", "here"):
        with (tmp_path / home / "results" / "smoke" / "table3_groups.csv").open() as file:
            tables.append([{name: line[name] for name in columns} for line in csv.DictReader(file)])
    assert tables[0] == tables[1] and len(tables[0]) >= 2
