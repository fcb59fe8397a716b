"""What the display of runs on this machine tells: how much is done, and how long the rest takes."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import TaskID

from csn import runner
from csn.execute import HELD
from csn.files import held
from csn.recipes import SMOKE
from csn.records import folder_of, read_record, record_loss
from csn.runner import Running, command, outcome, result, seconds_left, share_of, started
from csn.spec import Run, UserError, Variant, VideoSet


def test_a_gpu_that_trains_on_films_gets_processes_to_read_them() -> None:
    run = Run(variant=Variant(width=8, depth=26), recipe=SMOKE, seed=0)
    films = replace(run, recipe=replace(SMOKE, data=VideoSet(kind="folder", classes=2)))
    cores = len(os.sched_getaffinity(0))
    for own, device, workers in ((run, "cuda", None), (films, "cpu", None), (films, "cuda:0", max(1, cores // 2))):
        told = command(own, Path("home"), Path("data"), device, 2, 30.0)
        assert (int(told[told.index("--workers") + 1]) if "--workers" in told else None) == workers


def test_the_share_of_a_run_rises_through_its_phases() -> None:
    phases = [
        {}, {"phase": "data"}, {"phase": "train", "step": 3, "steps": 12, "epoch": 1, "epochs": 2, "loss": 4.321},
        {"phase": "test", "step": 1, "steps": 2}, {"phase": "train videos", "step": 1, "steps": 2},
    ]  # fmt: skip
    told = [share_of(phase) for phase in phases]
    assert [round(share, 3) for share, _ in told] == [0, 0, 0.225, 0.925, 0.975]
    assert [facts for _, facts in told] == ["starting", "writing data", "epoch 1/2 loss 4.32", "testing", "testing fit"]


def test_a_run_that_another_process_has_is_told_by_its_lock(tmp_path: Path) -> None:
    """Not by the last line of the log, which that process writes."""
    run = Run(variant=Variant(width=8, depth=26), recipe=SMOKE, seed=0)
    with held(folder_of(run, tmp_path)):
        (folder_of(run, tmp_path) / "log.txt").write_text("test: 80 videos\n")
        one = Running(run, "ip", 1.0, subprocess.Popen(["true"]), TaskID(0), 0.0)
        sentence = outcome(one, HELD, tmp_path)
    one.process.wait()
    assert sentence == f"ip seed 0: {run.name} is being worked on by process {os.getpid()} on {socket.gethostname()}; wait for it or stop it."


def test_the_time_left_is_at_the_pace_of_this_sitting() -> None:
    assert seconds_left(60, 2.0, 4.0) == 120
    assert seconds_left(60, 0.0, 4.0) is None and seconds_left(60, 0.05, 4.0) is None


def test_the_result_tells_accuracies_the_memory_of_a_clip_and_the_warm_up(tmp_path: Path) -> None:
    run = Run(variant=Variant(width=8, depth=26), recipe=SMOKE, seed=0)
    folder_of(run, tmp_path).mkdir(parents=True)
    record = {"run": run.name, "train_top1": 51.26, "video_top1": 40.0, "train_memory_mb_per_clip": 35.2}
    without = {**record, "train_memory_mb_per_clip": None}
    for told, facts in ((", 35 MB a clip", record), ("", without), (", compiled in 41 s", {**without, "compile_seconds": 41.3})):
        (folder_of(run, tmp_path) / "record.json").write_text(json.dumps(facts))
        assert result(run, tmp_path) == f"train 51.3 %, test video@1 40.0 %{told}"


def test_a_run_that_dies_after_its_record_is_done(tmp_path: Path) -> None:
    run = Run(variant=Variant(width=8, depth=26), recipe=SMOKE, seed=0)
    own = Running(run, "ip", 1.0, subprocess.Popen([sys.executable, "-c", ""]), TaskID(0), 0.0)
    folder_of(run, tmp_path).mkdir(parents=True)
    (folder_of(run, tmp_path) / "record.json").write_text(json.dumps({"run": run.name, "video_top1": 40.0}))
    assert outcome(own, -11, tmp_path) == ""
    record_loss(run, tmp_path, "cancelled", [])  # as a cluster tells it
    assert read_record(run, tmp_path) == {"run": run.name, "video_top1": 40.0}
    (folder_of(run, tmp_path) / "record.json").write_text(json.dumps({"run": run.name, "error": "the loss is nan"}))
    assert outcome(own, -11, tmp_path) == "ip seed 0 failed: the loss is nan"
    (folder_of(run, tmp_path) / "record.json").unlink()
    assert "ip seed 0 was killed by SIGSEGV" in outcome(own, -11, tmp_path) and "nothing was saved yet" in outcome(own, -11, tmp_path)
    (folder_of(run, tmp_path) / "before.ckpt").touch()
    assert "its state is saved, the same command goes on from there" in outcome(own, -11, tmp_path)
    assert (read_record(run, tmp_path) or {})["error"] == "killed by SIGSEGV (out of memory, perhaps)"
    own.process.wait()


CHILD = """
import json, os, sys, time
if sys.argv[2] == "go on":
    facts = {"phase": "train", "step": 75, "steps": 100, "first_step": 50, "epoch": 3, "epochs": 4, "loss": 1.5, "pid": os.getpid()}
    with open(sys.argv[1] + ".part", "w") as file:
        json.dump(facts, file)
    os.replace(sys.argv[1] + ".part", sys.argv[1])
print(os.environ["OMP_NUM_THREADS"], flush=True)
time.sleep(1)
"""


@pytest.mark.parametrize("what", ["begin", "go on"])
def test_the_display_tells_this_sitting_alone(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the progress that an earlier sitting left, nor its work in the pace; a run computes on one thread."""
    run = Run(variant=Variant(width=8, depth=26), recipe=SMOKE, seed=0)
    folder, console = folder_of(run, tmp_path), Console(width=120, file=io.StringIO(), force_terminal=True)
    folder.mkdir(parents=True)
    told = {"phase": "train", "step": 50, "steps": 100, "epoch": 2, "epochs": 4, "loss": 2.25, "pid": 1}
    (folder / "progress.json").write_text(json.dumps(told))
    paces: list[tuple[float, float]] = []
    monkeypatch.setattr(runner, "seconds_left", lambda elapsed, done, rest: paces.append((round(done, 3), round(rest, 3))))
    monkeypatch.setattr(runner, "command", lambda *_: [sys.executable, "-c", CHILD, str(folder / "progress.json"), what])
    assert runner.run_all([("ip", run, 1.0)], tmp_path, tmp_path, "cpu", 1, console) == ([], False)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "starting" in shown and "loss 2.25" not in shown and ("epoch 3/4 loss 1.50" in shown) == (what == "go on")
    assert ((0.225, 0.325) in paces) == (what == "go on")  # 25 of the 50 steps that were left, of 90 %
    assert (folder / "log.txt").read_text() == "1\n"


def test_an_interrupt_as_a_run_starts_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, processes = Run(variant=Variant(width=8, depth=26), recipe=SMOKE, seed=0), list[subprocess.Popen[bytes]]()

    def interrupted(*args: Any) -> subprocess.Popen[bytes]:
        processes.append(started(*args))
        signal.raise_signal(signal.SIGINT)
        return processes[-1]

    monkeypatch.setattr(runner, "started", interrupted)
    monkeypatch.setattr(runner, "command", lambda *_: ["sleep", "100"])
    work = [("ip", run, 1.0), ("ip", replace(run, seed=1), 1.0)]
    assert runner.run_all(work, tmp_path, tmp_path, "cpu", 2, Console(file=io.StringIO())) == ([], True)
    assert [process.poll() for process in processes] == [-signal.SIGTERM]  # and the second was not begun


def test_a_process_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(variant=Variant(width=8, depth=26), recipe=SMOKE, seed=0)

    def none(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"Cannot start a process for a run \(Resource temporarily unavailable\); end other"):
        patch.setattr(subprocess, "Popen", none)
        runner.run_all([("ip", run, 1.0)], tmp_path, tmp_path, "cpu", 1, Console(file=io.StringIO()))
    (tmp_path / "runs").rename(tmp_path / "other")
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match=rf"Cannot write {tmp_path} \(Not a directory\); free space there"):
        runner.run_all([("ip", run, 1.0)], tmp_path, tmp_path, "cpu", 1, Console(file=io.StringIO()))
