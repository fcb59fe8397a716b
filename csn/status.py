"""How runs stand: from the files of the home folder first, then one squeue and at most one sacct call."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from csn import slurm
from csn.records import folder_of, read_progress, read_record, record_loss, resumable, stands
from csn.slurm import Queued
from csn.spec import Run, UserError

FILES_EVERY, SQUEUE_EVERY, SACCT_EVERY = 2.0, 10.0, 60.0  # seconds, of the live table
OUT_OF_MEMORY = re.compile("oom.kill|exceeded.*memory|out ?of ?memory", re.IGNORECASE)  # the log knows it, the job's state does not
FAULT = re.compile(r"^[\w.]*(Error|Exception|Held)\b", re.MULTILINE)  # the last line of a traceback
KILLED = re.compile(r"exit (0:9|9:0|137:0)\)")  # SIGKILL, as SLURM tells it of a job, a step and a shell
ABOUT_JOBS = re.compile(r"(srun|slurmstepd|submitit)\b")  # lines about a job, not of the run
HEADINGS = {"accuracy": "acc %"}
STALE = 600.0  # seconds without progress after which a run outside the queue is not called running


@dataclass(frozen=True)
class Row:
    """One run. state: done, failed, running, queued, stopped (its state is saved), damaged (its record cannot be read) or missing. None: not known.

    epoch: as "3/12". loss: mean of the epoch. accuracy: video@1 when done, training clip@1 so far before, per cent.
    elapsed, left: seconds; left is of training only.
    """

    run: str
    state: str
    epoch: str | None = None
    loss: float | None = None
    accuracy: float | None = None
    node: str | None = None
    elapsed: float | None = None
    left: float | None = None
    reason: str | None = None


def rows(runs: Sequence[Run], home: Path, queue: Mapping[str, Queued]) -> list[Row]:
    """One Row a run, from its files and from the queue."""
    return [_row(run, home, queue.get(run.name)) for run in runs]


def _row(run: Run, home: Path, job: Queued | None) -> Row:
    folder = folder_of(run, home)
    try:
        record = read_record(run, home)
    except UserError as error:
        return Row(run.name, "damaged", reason=str(error))
    if record is not None and "error" not in record:
        epochs, history = run.recipe.epochs, record.get("history") or [{}]
        measured = {"loss": history[-1].get("loss"), "accuracy": record.get("video_top1"), "node": record.get("host")}
        return Row(run.name, "done", f"{epochs}/{epochs}", elapsed=record.get("seconds"), left=0.0, **measured)
    progress = read_progress(folder)
    epoch = f"{progress['epoch']}/{progress['epochs']}" if "epoch" in progress else progress.get("phase")
    facts: dict[str, Any] = {"epoch": epoch, "loss": progress.get("loss"), "accuracy": progress.get("clip_top1")}
    here = facts | {"node": progress.get("host"), "elapsed": progress.get("elapsed"), "left": _left(progress)}
    if job is not None:
        here |= {"node": job.node or None, "reason": job.reason if job.reason != "None" else None}
        return Row(run.name, "running" if job.running else "queued", **here)
    fresh = "time" in progress and not progress.get("ended") and time.time() - progress["time"] < STALE
    if record is not None and not (fresh and progress["time"] > written(folder / "record.json")):  # else it is being tried again
        reason = " | ".join([record["error"], *telling(record.get("log") or [])])
        return Row(run.name, "failed", node=record.get("host"), reason=reason, **facts)
    if fresh:
        return Row(run.name, "running", **here)
    return Row(run.name, "stopped" if resumable(folder) else "missing", **facts)


def written(path: Path) -> float:
    """When a file was, in seconds since 1970; 0 where it was removed meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def telling(log: Sequence[str]) -> list[str]:
    """The last two lines of a log that are a program's own, not what SLURM and submitit say of its end; else the very last."""
    own = [line for line in log if not ABOUT_JOBS.match(line)]
    return own[-2:] or list(log[-1:])


def _left(progress: Mapping[str, Any]) -> float | None:
    """Seconds of training left at the speed since this sitting began; None when there is nothing to tell it from."""
    if progress.get("phase") != "train" or progress.get("step", 0) <= progress.get("first_step", 0):
        return None
    done, rest = progress["step"] - progress["first_step"], progress["steps"] - progress["step"]
    return float(progress["training"] / done * rest)


def settle(runs: Sequence[Run], home: Path, queue: Mapping[str, Queued]) -> None:
    """Write the record of every submitted run whose job ended without one: cancelled, out of memory, time limit, ...

    The record says why, keeps the last lines of the log, and is marked to be tried again. One sacct call for all, none
    when every run is accounted for.
    """
    all_of_them = slurm.submissions(home, [run.name for run in runs])
    latest = {name: some for some in all_of_them for name in some.runs if some.job}
    lost = []
    for run in runs:
        if run.name in latest and run.name not in queue:
            record, since = folder_of(run, home) / "record.json", latest[run.name].folder / "submission.json"
            if not record.exists() or record.stat().st_mtime < since.stat().st_mtime:
                lost.append(run)
    ends = slurm.sacct(str(latest[run.name].job) for run in lost) if lost else {}
    for run in lost:
        some = latest[run.name]
        end = ends.get(some.job_id(run.name))
        if end is not None:
            why, log = reason_of(end, [log_tail(path) for path in some.logs(run.name)])
            record_loss(run, home, why, log)


def reason_of(end: str, tails: Sequence[list[str]]) -> tuple[str, list[str]]:
    """Why a job ended, and the tail of the log that tells it, from what sacct says and the tails of all tasks' logs.

    SLURM knows a job out of memory only where cgroups count it; elsewhere a task's log says so, and where the kernel
    killed the process, nobody does.
    """
    for tail in tails:
        if OUT_OF_MEMORY.search("\n".join(tail)):
            return f"out of memory: {end}", tail
    told = next((tail for tail in tails if FAULT.search("\n".join(tail))), next(iter(tails), []))
    killed = KILLED.search(end) and "cancelled" not in end and not FAULT.search("\n".join(told))
    return f"killed, out of memory perhaps: {end}" if killed else end, told


def log_tail(path: Path, lines: int = 5) -> list[str]:
    """The last lines of a log, from its last 8 kB; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()][-lines:]
    except OSError:
        return []


def ended(run: Run, home: Path) -> bool:
    """Whether the run waits for nothing any more: its record stands, or a person has to look at it."""
    try:
        return stands(read_record(run, home))
    except UserError:
        return True


class Watch:
    """The rows again and again, asking squeue and sacct no more often than SQUEUE_EVERY and SACCT_EVERY seconds.

    note: why the queue is not known, empty when it is.
    """

    def __init__(self, runs: Sequence[Run], home: Path) -> None:
        self.runs, self.home, self.note = runs, home, ""
        self.queue: dict[str, Queued] = {}
        self.asked_squeue = self.asked_sacct = float("-inf")

    def rows(self) -> list[Row]:
        """The rows now. A queue that does not answer is told in `note`; the files are told in any case."""
        now = time.monotonic()
        if now - self.asked_squeue >= SQUEUE_EVERY:
            self.asked_squeue, self.note = now, ""
            unfinished = [run for run in self.runs if not ended(run, self.home)]
            try:
                queue = slurm.squeue(slurm.submissions(self.home, [run.name for run in unfinished]))
                if queue is None:
                    self.note = "squeue is not installed here: the table is from files alone."
                self.queue = queue or {}  # known even where sacct then fails
                if queue is not None and now - self.asked_sacct >= SACCT_EVERY:
                    self.asked_sacct = now
                    settle(unfinished, self.home, queue)
            except UserError as error:
                self.note = str(error)
        return rows(self.runs, self.home, self.queue)


def table(some: Sequence[Row]) -> Any:
    """The rows for rich to print: columns without a value left out, names without what they share; below, each reason once."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    names = [field.name for field in fields(Row) if field.name != "reason" and any(getattr(row, field.name) is not None for row in some)]
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    cells = [cells_of(row, names, short_names(some)) for row in some]
    for name, column in zip(names, zip(*cells, strict=True), strict=False):
        title = HEADINGS.get(name, name)
        wide = name != "node"  # 80 columns hold it all when the node gives way
        shown.add_column(title, no_wrap=wide, overflow="ellipsis", min_width=max(map(len, (title, *column))) if wide else 4)
    for line in cells:
        shown.add_row(*line)
    reasons: dict[str, list[str]] = {}
    for row in some:
        if row.reason:
            reasons.setdefault(f"{row.state}: {row.reason}", []).append(short_names(some)[row.run])
    told = [f"{of[0] if len(of) == 1 else f'{len(of)} runs'} {reason}" for reason, of in reasons.items()]
    return Group(shown, *map(escape, told), f"{sum(row.state == 'done' for row in some)} of {len(some)} done")


def cells_of(row: Row, names: Sequence[str], runs: Mapping[str, str]) -> list[str]:
    """The cells of a row as a person reads them; runs: names to show."""
    form = {"loss": "{:.3f}".format, "accuracy": "{:.1f}".format, "elapsed": span, "left": span}
    values = [(name, getattr(row, name)) for name in names]
    return [runs[row.run] if name == "run" else "" if value is None else form.get(name, str)(value) for name, value in values]


def short_names(some: Sequence[Row]) -> dict[str, str]:
    """Names of runs without their digests and the parts that all of them begin with, unless that makes two the same."""
    parts = {row.run: re.split(r"-(?!(?:G|D|DG)\d*-)", row.run)[:-1] for row in some}  # simple-D and bottleneck-G8 are one part
    shared = next((i for i, words in enumerate(zip(*parts.values(), strict=False)) if len(set(words)) > 1), 0)
    short = {name: "-".join(part[shared:]) for name, part in parts.items()}
    return short if len(set(short.values())) == len(short) else {name: name for name in parts}


def span(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def show(runs: Sequence[Run], home: Path, as_json: bool = False) -> None:
    """Print the state of the runs: on a terminal live until none is queued or running, or Ctrl-C; elsewhere once."""
    from rich.console import Console
    from rich.live import Live

    console, watch = Console(), Watch(runs, home)
    some = watch.rows()
    if as_json:
        print(json.dumps([asdict(row) for row in some], indent=1), flush=True)
    elif not console.is_terminal:
        console.print(table(some))
    else:
        with Live(table(some), console=console, auto_refresh=False) as live:
            try:
                while any(row.state in ("queued", "running") for row in some):
                    time.sleep(FILES_EVERY)
                    some = watch.rows()
                    live.update(table(some), refresh=True)
            except KeyboardInterrupt:
                pass
    if watch.note:
        print(watch.note, file=sys.stderr)
