"""The missing Runs of a table on this machine: one process a run, several at a time, progress and time left.

A run is a process of its own (`python -m csn.execute`), so a crash costs that run only, and every run computes with the
same number of threads whatever else goes on: equal seeds give equal bits. Progress is read from the runs' own files.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from csn.execute import HELD, STOPPED
from csn.files import worked_on, write_json
from csn.provenance import REPOSITORY
from csn.records import folder_of, read_progress, read_record, record_loss, resumable, stands
from csn.signals import handled, hangup
from csn.spec import Embedded, Run, UserError


@dataclass
class Running:
    """A run under way: its process and its line of the display. weight: its relative cost. carried: the share of it done in earlier sittings."""

    run: Run
    label: str
    weight: float
    process: subprocess.Popen[bytes]
    task: TaskID
    began: float
    carried: float = 0.0


def command(run: Run, home: Path, data: Path, device: str, jobs: int, checkpoint_every: float) -> list[str]:
    """The command that runs one run.json. A GPU that trains on films gets its job's share of the cores to read them."""
    here = [sys.executable, "-m", "csn.execute", str(folder_of(run, home) / "run.json")]
    if device != "cpu" and not isinstance(run.recipe.data, Embedded):
        here += ["--workers", str(max(1, len(os.sched_getaffinity(0)) // jobs))]
    return [*here, "--home", str(home), "--data", str(data), "--device", device, "--checkpoint-every", str(checkpoint_every), "--parent", str(os.getpid())]


def started(run: Run, home: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """The process of a run, which writes into the run's log. Raises UserError where the home cannot be written or no process be made."""
    folder = folder_of(run, home)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", run.to_dict())
        log = (folder / "log.txt").open("ab")
    except OSError as error:
        raise UserError(f"Cannot write {home} ({error.strerror or error}); free space there and run the same command again to go on.") from None
    with log:
        try:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=REPOSITORY)
        except OSError as error:
            remedy = "end other programs or give fewer --jobs, and run the same command again to go on"
            raise UserError(f"Cannot start a process for a run ({error.strerror or error}); {remedy}.") from None


def run_all(
    work: list[tuple[str, Run, float]], home: Path, data: Path, device: str, jobs: int, console: Console, checkpoint_every: float = 30.0
) -> tuple[list[str], bool]:
    """Run (label, run, weight) in order, `jobs` at a time; weights are relative costs, for the time left.

    Returns what went wrong, a sentence each, and whether a person interrupted (Ctrl-C): then every run has saved its state.
    Raises UserError where the home cannot be written.
    """
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[facts]}"), TimeElapsedColumn(),
               TextColumn("{task.fields[left]}")]  # fmt: skip
    troubles: list[str] = []
    waiting, running = list(work), list[Running]()
    total = sum(weight for *_, weight in work) or 1.0
    done, finished, carried = 0.0, 0, 0.0
    # a terminated launcher, or one whose terminal is closed, takes its runs along, saved, as Ctrl-C does
    # (a shell starts what it puts in the background with Ctrl-C ignored; whoever sends it means it all the same)
    asked: list[int] = []  # looked at where no run is about to be started: an exception might come between its start and the note of it
    heard = handled(lambda number, _: asked.append(number), signal.SIGTERM, signal.SIGINT, *hangup())
    with heard, Progress(*columns, console=console, transient=True, refresh_per_second=4) as display:
        whole = display.add_task(f"{len(work)} run{'s' if len(work) > 1 else ''}", total=total, facts=f"0/{len(work)}", left="")
        began = time.monotonic()
        try:
            while (waiting or running) and not asked:
                while waiting and len(running) < jobs and not asked:
                    label, run, weight = waiting.pop(0)
                    process = started(run, home, command(run, home, data, device, jobs, checkpoint_every))
                    task = display.add_task(escape(label), total=1.0, facts="starting", left="")
                    running.append(Running(run, label, weight, process, task, time.monotonic()))
                time.sleep(0.2)
                if asked:
                    break
                partial = 0.0
                for one in list(running):
                    code = one.process.poll()
                    if code is None:
                        told = read_progress(folder_of(one.run, home))
                        progress = told if told.get("pid") == one.process.pid else {}  # not what an earlier sitting left
                        share, facts = share_of(progress)
                        partial += one.weight * share
                        if progress.get("first_step") and not one.carried:
                            one.carried = share_of({**progress, "step": progress["first_step"]})[0]
                            carried += one.weight * one.carried
                        display.update(one.task, completed=share, facts=facts)
                        continue
                    running.remove(one)
                    display.remove_task(one.task)
                    done, finished = done + one.weight, finished + 1
                    took = time.monotonic() - one.began
                    sentence = outcome(one, code, home)
                    if sentence:
                        troubles.append(sentence)
                    what = sentence or f"{one.label} seed {one.run.seed}: {result(one.run, home)}"
                    console.print(f"[{finished}/{len(work)}] {what} ({took:.0f} s)", markup=False, highlight=False)
                left = seconds_left(time.monotonic() - began, done + partial - carried, total - done - partial)
                words = "" if left is None else f"about {clock(left)} left"
                display.update(whole, completed=done + partial, facts=f"{finished}/{len(work)}", left=words)
        finally:
            stop(running)  # none is left behind, whatever went wrong here
    return troubles, bool(asked)


def seconds_left(elapsed: float, done: float, rest: float) -> float | None:
    """Seconds that the rest takes at the pace of what was done here, without what earlier sittings did; None before 2 % are done."""
    return elapsed * rest / done if done > 0.02 * (done + rest) else None


def share_of(progress: dict[str, Any]) -> tuple[float, str]:
    """How much of a run is done, 0 to 1, and a phrase for the display. Training counts as 90 %."""
    phase, steps = progress.get("phase", "starting"), progress.get("steps") or 1
    step = progress.get("step", 0) / steps
    if phase == "train":
        return 0.9 * step, f"epoch {progress.get('epoch')}/{progress.get('epochs')} loss {progress.get('loss', 0):.2f}"
    if phase in ("test", "train videos"):
        return 0.9 + 0.05 * step + 0.05 * (phase == "train videos"), "testing" if phase == "test" else "testing fit"
    return 0.0, "writing data" if phase == "data" else phase


def clock(seconds: float) -> str:
    """1:05 or 2:03:00."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def last_line(run: Run, home: Path) -> str:
    """The last line a run printed."""
    try:
        lines = (folder_of(run, home) / "log.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it printed nothing (is the disk full?)"


def outcome(one: Running, code: int, home: Path) -> str:
    """ "" for a finished run, else one sentence that says why and what to do. A run that was killed gets the record that says so."""
    name = f"{one.label} seed {one.run.seed}"
    if code == 0:
        return ""
    if code == HELD:  # in the log stand the words of the process that has it
        return f"{name}: {worked_on(folder_of(one.run, home))}"
    if code in (2, STOPPED):
        return f"{name}: {last_line(one.run, home).removeprefix('error: ')}"
    if code < 0:
        what = signal.Signals(-code).name
        record_loss(one.run, home, f"killed by {what} (out of memory, perhaps)", [last_line(one.run, home)])
        record = read_record(one.run, home)
        if stands(record):  # it died after its record
            return f"{name} failed: {record['error']}" if "error" in record else ""
        saved = resumable(folder_of(one.run, home))
        remedy = "its state is saved, the same command goes on from there" if saved else "nothing was saved yet; try again, with fewer --jobs"
        return f"{name} was killed by {what} (out of memory, perhaps); {remedy}."
    return f"{name} failed: {last_line(one.run, home).removeprefix('failed: ')}"


def result(run: Run, home: Path) -> str:
    record = read_record(run, home) or {}
    memory = record.get("train_memory_mb_per_clip")
    compiling = record.get("compile_seconds")
    told = (f", {memory:.0f} MB a clip" if memory else "") + (f", compiled in {compiling:.0f} s" if compiling else "")
    return f"train {record.get('train_top1', float('nan')):.1f} %, test video@1 {record.get('video_top1', float('nan')):.1f} %{told}"


def stop(running: list[Running]) -> None:
    """Ask every run to save and leave; wait for them."""
    for one in running:
        one.process.send_signal(signal.SIGTERM)
    for one in running:
        try:
            one.process.wait(300)  # a large network takes a while to save
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
