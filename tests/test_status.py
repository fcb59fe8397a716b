"""The state of runs: from files, from the queue, from what a job left behind. 3 s."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console
from test_launch import RUNS, record, write

from csn import launch, slurm, status
from csn.plan import state_of
from csn.records import folder_of, read_record
from csn.spec import Run, UserError


def test_the_rows_come_from_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    record(RUNS[0], tmp_path, video_top1=12.5, host="n1", seconds=61.0, history=[{"loss": 3.0}, {"loss": 2.0}])
    record(RUNS[1], tmp_path, error="out of memory", log=["one", "oom_kill"], retry=True)
    progress = {"phase": "train", "epoch": 1, "epochs": 2, "loss": 4.0, "clip_top1": 1.5, "host": "n2", "elapsed": 99.0}
    progress |= {"step": 3, "first_step": 1, "steps": 4, "training": 10.0}
    write(folder_of(RUNS[2], tmp_path) / "progress.json", {**progress, "time": time.time()})
    write(folder_of(RUNS[3], tmp_path) / "progress.json", {**progress, "time": time.time() - 2 * status.STALE})
    write(folder_of(RUNS[3], tmp_path) / "last.ckpt", {})
    write(tmp_path / "submissions" / "1" / "submission.json", {"runs": [run.name for run in RUNS], "job": "7"})
    status.show(RUNS, tmp_path, as_json=True)
    out, err = capsys.readouterr()
    assert err == "squeue is not installed here: the table is from files alone.\n"
    done, failed, running, stopped = json.loads(out)
    assert done == {
        "run": RUNS[0].name, "state": "done", "epoch": "2/2", "loss": 2.0, "accuracy": 12.5, "node": "n1",
        "elapsed": 61.0, "left": 0.0, "reason": None,
    }  # fmt: skip
    assert (failed["state"], failed["reason"]) == ("failed", "out of memory | one | oom_kill")
    assert (running["state"], running["epoch"], running["accuracy"], running["node"]) == ("running", "1/2", 1.5, "n2")
    assert running["left"] == 5.0  # two steps in ten seconds, one step to go
    assert stopped["state"] == "stopped"
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(status.table(status.rows(RUNS, tmp_path, {})))
    text = console.export_text()
    assert "0:01:01" in text and "12.5" in text and "1 of 4 done" in text


def test_a_run_that_is_tried_again_is_running(tmp_path: Path) -> None:
    """A killed run leaves fresh progress behind its record; one that is tried again writes progress after it."""
    run = RUNS[0]
    progress = {"phase": "train", "epoch": 1, "epochs": 2, "host": "n2"}
    write(folder_of(run, tmp_path) / "progress.json", {**progress, "time": time.time() - 5})
    record(run, tmp_path, error="killed by signal 9", log=[], retry=True)
    assert [row.state for row in status.rows([run], tmp_path, {})] == ["failed"]
    write(folder_of(run, tmp_path) / "progress.json", {**progress, "time": time.time() + 1})
    assert [row.state for row in status.rows([run], tmp_path, {})] == ["running"]


def test_a_record_that_is_deleted_meanwhile_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUNS[0]
    record(run, tmp_path, error="killed by signal 9", log=[], retry=True)
    write(folder_of(run, tmp_path) / "progress.json", {"phase": "train", "epoch": 1, "epochs": 2, "host": "n2", "time": time.time()})

    def deleted(run: Run, home: Path) -> dict[str, Any] | None:
        found = read_record(run, home)
        (folder_of(run, home) / "record.json").unlink()
        return found

    monkeypatch.setattr(status, "read_record", deleted)
    assert [row.state for row in status.rows([run], tmp_path, {})] == ["running"]


def test_a_run_that_ended_is_not_running_and_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    run, now = RUNS[0], {"phase": "train", "epoch": 1, "epochs": 2, "time": time.time()}
    folder = folder_of(run, tmp_path)
    write(folder / "progress.json", now)
    assert [row.state for row in status.rows([run], tmp_path, {})] == ["running"]
    write(folder / "progress.json", {**now, "ended": True})
    write(folder / ".12ab.new.ckpt", {})
    (found,) = status.rows([run], tmp_path, {})
    assert (found.state, found.epoch) == ("missing", "1/2") and state_of(run, tmp_path, set()) == "missing"
    write(folder / "before.ckpt", {})
    assert [row.state for row in status.rows([run], tmp_path, {})] == ["stopped"] and state_of(run, tmp_path, set()) == "resumable"


@pytest.mark.parametrize(
    ("facts", "why"),
    [({"video_top1": "abc"}, "its video_top1 is 'abc'"), ({"seconds": True}, "its seconds is True"), ({"train_top1": 250.0}, "its train_top1 is 250.0"),
     ({"clip_top1": -1}, "its clip_top1 is -1"), ({"video_top1": float("nan")}, "its video_top1 is nan"), ({"run": "other"}, "it names another run")],
)  # fmt: skip
def test_a_damaged_record_is_told_beside_the_others(facts: dict[str, object], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One among many, and nothing is asked of a cluster about it."""
    monkeypatch.setattr(slurm, "squeue", lambda _: {})
    monkeypatch.setattr(slurm, "sacct", Mock(side_effect=AssertionError))
    write(tmp_path / "submissions" / "1" / "submission.json", {"runs": [RUNS[0].name], "job": "7"})
    for run in RUNS:
        record(run, tmp_path, video_top1=12.5, history=[], seconds=61)
    path = folder_of(RUNS[0], tmp_path) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    first, *others = status.Watch(RUNS, tmp_path).rows()
    assert first.state == "damaged" and why in (first.reason or "") and "delete it" in (first.reason or "")
    assert {row.state for row in others} == {"done"} and state_of(RUNS[0], tmp_path, set()) == "damaged"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"runs": 1, "job": "7"}'])
def test_a_damaged_submission_is_one_sentence(content: str, tmp_path: Path) -> None:
    path = tmp_path / "submissions" / "1" / "submission.json"
    write(path, {})
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path} is damaged; delete the folder"):
        slurm.submissions(tmp_path, ["a"])


def test_blocks_are_shown_whole() -> None:
    names = ["small-bottleneck-26-w16-s0-0a", "small-bottleneck-D-26-w16-s0-0b", "small-bottleneck-DG4-26-w16-s0-0c", "small-simple-G8-34-w16-s0-0d"]
    short = status.short_names([status.Row(name, "missing") for name in names])
    assert list(short.values()) == ["bottleneck-26-w16-s0", "bottleneck-D-26-w16-s0", "bottleneck-DG4-26-w16-s0", "simple-G8-34-w16-s0"]
    assert list(status.short_names([status.Row(name, "missing") for name in (names[0], names[0].replace("s0", "s1"))]).values()) == ["s0", "s1"]


def test_a_terminal_of_80_columns_shows_names_whole_and_each_reason_once() -> None:
    name, waits = "small-bottleneck-DG4-50-w16-nopool-s{}-3c7710df2{}", "JobArrayTaskLimit"
    some = [status.Row(name.format(0, 0), "running", "10/12", 2.345, 12.3, "node-17.cluster", 1234.0, 40000.0)]
    some += [status.Row(name.format(seed, seed), "queued", reason=waits) for seed in (1, 2)]
    some.append(status.Row("small-ip-50-w16-s0-0123456789", "failed", reason="out of memory [node-3] | slurmstepd: " + "x" * 60))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(status.table(some))
    text = console.export_text()
    first = text.splitlines()[2].split()
    assert first[:5] == ["bottleneck-DG4-50-w16-nopool-s0", "running", "10/12", "2.345", "12.3"] and first[6:] == ["0:20:34", "11:06:40"]
    assert text.count(waits) == 1 and f"2 runs queued: {waits}" in text
    assert "ip-50-w16-s0 failed: out of memory [node-3] | slurmstepd: " in text.replace("\n", " ")
    assert "reason" not in text.splitlines()[0]


def test_a_queued_run_says_why_it_waits(tmp_path: Path) -> None:
    queue = {
        RUNS[0].name: slurm.Queued("7_0", "PENDING", "", "Resources"),
        RUNS[1].name: slurm.Queued("7_1", "RUNNING", "n3", "None"),
    }
    rows = status.rows(RUNS[:3], tmp_path, queue)
    assert [(row.state, row.node, row.reason) for row in rows] == [
        ("queued", None, "Resources"), ("running", "n3", None), ("missing", None, None),
    ]  # fmt: skip


def test_a_silent_or_failing_squeue_is_told_and_the_files_still_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "submissions" / "1" / "submission.json", {"runs": [run.name for run in RUNS], "job": "7"})
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", str(tmp_path))
    for script, note in (
        ("echo on the way down >&2; echo down >&2; exit 1", "squeue failed (down); is the cluster up?"),
        ("exec /bin/sleep 60", "did not"),
    ):
        squeue.write_text(f"#!/bin/sh\n{script}\n")
        squeue.chmod(0o755)
        monkeypatch.setattr(slurm, "CALL_SECONDS", 1)
        status.show(RUNS, tmp_path)
        out, err = capsys.readouterr()
        assert note in err and "0 of 4 done" in out
        with pytest.raises(UserError, match=r"squeue (failed|did not answer)"):
            launch.missing(RUNS, tmp_path)


def test_elements_of_an_array_that_ended_together_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "7_0|COMPLETED|0:0\n7_[1-3,5%2]|CANCELLED by 0|0:0\n7_4|RUNNING|0:0\n8|TIMEOUT|0:0\n9_[2,...]|CANCELLED|0:0\n"
    monkeypatch.setattr(slurm, "ask", lambda *command: lines)
    ended = slurm.sacct(["7", "8", "9"])
    assert list(ended) == ["7_0", "7_1", "7_2", "7_3", "7_5", "8", "9_2"] and ended["7_5"] == "cancelled (CANCELLED by 0, exit 0:0)"


def test_a_failing_sacct_leaves_the_queue_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "submissions" / "1" / "submission.json", {"runs": [run.name for run in RUNS], "job": "7"})
    monkeypatch.setattr(slurm, "squeue", lambda some: {RUNS[1].name: slurm.Queued("7_1", "RUNNING", "n1", "None")})
    monkeypatch.setattr(slurm, "sacct", Mock(side_effect=UserError("sacct failed (accounting is off); is the cluster up?")))
    watch = status.Watch(RUNS, tmp_path)
    assert [row.state for row in watch.rows()] == ["missing", "running", "missing", "missing"] and "accounting is off" in watch.note


def test_the_lines_shown_of_a_log_are_those_of_the_program() -> None:
    log = ["step 5", "RuntimeError: it broke", "srun: error: n1: task 0: Exited", "slurmstepd: error: *** STEP CANCELLED", "srun: error: Timed out"]
    assert status.telling(log) == ["step 5", "RuntimeError: it broke"]
    assert status.telling(log[2:]) == ["srun: error: Timed out"] and status.telling([]) == []


def test_the_log_tail_is_the_last_lines_that_say_something(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(f"line {i}" for i in range(10000)) + "\n\n")
    assert status.log_tail(tmp_path / "log", 2) == ["line 9998", "line 9999"]
    assert status.log_tail(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("end", "tails", "reason", "log"),
    [
        ("failed (FAILED, exit 9:0)", [["srun: error: n1: task 0: Killed"]], "killed, out of memory perhaps: failed (FAILED, exit 9:0)", 0),
        ("failed (FAILED, exit 1:0)", [["epoch 1"], ["Traceback", "csn.spec.UserError: no file x"]], "failed (FAILED, exit 1:0)", 1),
        ("failed (FAILED, exit 9:0)", [["a"], ["slurmstepd: error: Detected 1 oom-kill event(s)"]], "out of memory: failed (FAILED, exit 9:0)", 1),
        ("failed (FAILED, exit 1:0)", [["torch.OutOfMemoryError: CUDA out of memory."]], "out of memory: failed (FAILED, exit 1:0)", 0),
        ("cancelled (CANCELLED by 0, exit 0:9)", [["a"]], "cancelled (CANCELLED by 0, exit 0:9)", 0),
        ("time limit (TIMEOUT, exit 0:15)", [], "time limit (TIMEOUT, exit 0:15)", None),
    ],
)
def test_the_reason_of_an_end_is_found_in_the_logs_of_all_tasks(end: str, tails: list[list[str]], reason: str, log: int | None) -> None:
    assert status.reason_of(end, tails) == (reason, [] if log is None else tails[log])


def test_time_left_counts_this_sitting_alone(tmp_path: Path) -> None:
    """Three of four quarters were done by an earlier sitting: the fourth is not as fast as if this one had done all."""
    facts = {"phase": "train", "epoch": 4, "epochs": 4, "steps": 400, "first_step": 300, "elapsed": 30.0, "time": time.time()}
    for step, training, left in ((310, 20.0, 180.0), (300, 0.5, None)):
        write(folder_of(RUNS[0], tmp_path) / "progress.json", {**facts, "step": step, "training": training})
        assert status.rows(RUNS[:1], tmp_path, {})[0].left == left


def submitted(home: Path, name: str, job: str | None, *runs: Run) -> Path:
    """A submission as --submit leaves it: its file."""
    path = home / "submissions" / name / "submission.json"
    write(path, {"runs": [run.name for run in runs], "job": job})
    return path


def test_jobs_in_the_queue_are_told_apart_by_their_place_in_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(tmp_path, "20260101-1", "7", *RUNS[:3])
    submitted(tmp_path, "20260102-1", "8", RUNS[3])
    asked: list[tuple[str, ...]] = []

    def answer(*command: str) -> str:
        asked.append(command)
        return "7_2|RUNNING|n1|None|csn-20260101-1\n7_0|PENDING||Resources|csn-20260101-1\n8|COMPLETING|n2|None|csn-20260102-1\n"

    monkeypatch.setattr(slurm, "ask", answer)
    queue = slurm.squeue(slurm.submissions(tmp_path, [run.name for run in RUNS]))
    assert queue is not None and {name: (job.id, job.running, job.reason) for name, job in queue.items()} == {
        RUNS[2].name: ("7_2", True, "None"), RUNS[0].name: ("7_0", False, "Resources"), RUNS[3].name: ("8", True, "None"),
    }  # fmt: skip
    assert "csn-20260101-1,csn-20260102-1" in asked[0]


def test_a_job_that_ended_without_a_record_gets_one_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and in an array; the last submission of a run counts; what waits, or wrote its own record since, is left alone."""
    again, alone, waits, own = RUNS
    submitted(tmp_path, "1", "7", again)
    old = submitted(tmp_path, "2", "8", again, waits, own)
    submitted(tmp_path, "3", "9", alone)
    record(again, tmp_path, error="killed", log=[], retry=True)  # of the job before
    os.utime(folder_of(again, tmp_path) / "record.json", (1, 1))
    record(own, tmp_path, error="OSError: disk", log=[], retry=True)
    os.utime(old, (2, 2))
    (tmp_path / "submissions" / "3" / "logs").mkdir()
    (tmp_path / "submissions" / "3" / "logs" / "9_0_log.out").write_text("epoch 1\nRuntimeError: it broke\n")
    asked: list[tuple[str, ...]] = []

    def answer(*command: str) -> str:
        asked.append(command)
        return "7|CANCELLED by 0|0:15\n8_0|TIMEOUT|0:0\n9|FAILED|1:0\n"

    monkeypatch.setattr(slurm, "ask", answer)
    status.settle(RUNS, tmp_path, {waits.name: slurm.Queued("8_1", "PENDING", "", "None")})
    found = {run: read_record(run, tmp_path) or {} for run in RUNS}
    assert [found[run].get("error") for run in RUNS] == ["time limit (TIMEOUT, exit 0:0)", "failed (FAILED, exit 1:0)", None, "OSError: disk"]
    assert found[again]["retry"] and found[alone]["retry"] and found[alone]["log"] == ["epoch 1", "RuntimeError: it broke"]
    assert [command[0] for command in asked] == ["sacct"] and "8,9" in asked[0]
    status.settle(RUNS, tmp_path, {waits.name: slurm.Queued("8_1", "PENDING", "", "None")})
    assert len(asked) == 1  # every run is accounted for


def test_a_live_table_asks_the_cluster_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds apart for two minutes: squeue every ten, sacct every sixty."""
    submitted(tmp_path, "1", "7", RUNS[0])
    clock, asked = [100.0], list[str]()
    monkeypatch.setattr(status.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(slurm, "ask", lambda program, *_: asked.append(program) or "")
    watch = status.Watch(RUNS[:1], tmp_path)
    for _ in range(60):
        watch.rows()
        clock[0] += 2
    assert (asked.count("squeue"), asked.count("sacct")) == (12, 2)
