"""What was submitted, and what SLURM says of it: one bounded call of squeue, sacct or scancel each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from csn.spec import UserError

CALL_SECONDS = 30
ENDED = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "cancelled",
    "COMPLETED": "ended without a record",
    "DEADLINE": "deadline",
    "FAILED": "failed",
    "NODE_FAIL": "its node died",
    "OUT_OF_MEMORY": "out of memory",
    "PREEMPTED": "preempted and not requeued",
    "TIMEOUT": "time limit",
}


@dataclass(frozen=True)
class Submission:
    """One --submit: runs in the order of the job array; job: its id, None if --submit died before it knew."""

    name: str
    folder: Path
    runs: tuple[str, ...]
    job: str | None

    @property
    def job_name(self) -> str:
        return f"csn-{self.name}"

    def job_id(self, run: str) -> str:
        """SLURM's id of the job of one run."""
        return f"{self.job}_{self.runs.index(run)}" if len(self.runs) > 1 else str(self.job)

    def log(self, run: str) -> Path:
        """The log of the first task of one run."""
        return self.folder / "logs" / f"{self.job_id(run)}_0_log.out"

    def logs(self, run: str) -> list[Path]:
        """The logs of all its tasks, the first one's first."""
        first = self.log(run)
        return [first, *sorted(set(first.parent.glob(f"{self.job_id(run)}_*_log.out")) - {first})]

    def text(self) -> str:
        """What --submit prints."""
        array = f"_[0-{len(self.runs) - 1}]" if len(self.runs) > 1 else ""
        logs = f"logs in {self.folder / 'logs'}"
        return f"job {self.job}{array}: {len(self.runs)} run{'s' if len(self.runs) > 1 else ''}\n{logs}\nfollow with --status, end with --cancel"


@dataclass(frozen=True)
class Queued:
    """A job in the queue, as squeue tells it."""

    id: str
    state: str
    node: str
    reason: str

    @property
    def running(self) -> bool:
        return self.state in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STAGE_OUT")


def submissions(home: Path, runs: Iterable[str]) -> list[Submission]:
    """The submissions of the home folder that hold any of the runs (names), oldest first."""
    found, wanted = [], set(runs)
    for path in sorted((home / "submissions").glob("*/submission.json")):
        try:
            content = json.loads(path.read_text())
            runs, job = tuple(content["runs"]), content["job"]
        except (ValueError, KeyError, TypeError, OSError):
            raise UserError(f"{path} is damaged; delete the folder {path.parent} (its jobs, if any, go on).") from None
        if wanted & set(runs):
            found.append(Submission(path.parent.name, path.parent, runs, job))
    return found


def ask(program: str, *arguments: str) -> str | None:
    """The output of a SLURM command, None where it is not installed. UserError when it fails or does not answer."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=CALL_SECONDS, check=True)
    except subprocess.TimeoutExpired:
        raise UserError(f"{program} did not answer within {CALL_SECONDS} seconds; try again later.") from None
    except subprocess.CalledProcessError as error:
        told = error.stderr.strip().splitlines() or [f"exit {error.returncode}"]  # the last line is the one that says why
        raise UserError(f"{program} failed ({told[-1]}); is the cluster up?") from None
    return done.stdout


def squeue(some: Sequence[Submission]) -> dict[str, Queued] | None:
    """The runs of these submissions that are queued or running, by run name. None where squeue is not installed.

    Jobs are found by their names, so those of a --submit that died before it knew their id are found too.
    """
    if not some:
        return {}
    by_name = {s.job_name: s for s in some}
    output = ask("squeue", "--me", "-h", "-r", "-n", ",".join(by_name), "-o", "%i|%T|%N|%r|%j")
    if output is None:
        return None
    queue = {}
    for line in output.splitlines():
        job, state, node, reason, name = line.split("|")
        queue[by_name[name].runs[int(job.partition("_")[2] or 0)]] = Queued(job, state, node, reason)
    return queue


def sacct(jobs: Iterable[str]) -> dict[str, str]:
    """How jobs have ended, as "cancelled (CANCELLED by 0, exit 0:15)", by job id. Empty where there is no sacct."""
    output = ask("sacct", "-X", "-n", "-P", "-j", ",".join(sorted(set(jobs))), "-o", "JobID,State,ExitCode") or ""
    lines = [line.split("|") for line in output.splitlines()]
    ended = [(job, state, code) for job, state, code in lines if state.split()[0] in ENDED]
    return {one: f"{ENDED[state.split()[0]]} ({state}, exit {code})" for job, state, code in ended for one in expanded(job)}


def expanded(job: str) -> list[str]:
    """The ids of "7_[1-3,5%2]", as sacct writes the elements of an array that ended together before they began; of any other id itself."""
    array, bracket, elements = job.partition("_[")
    if not bracket:
        return [job]
    ends = re.findall(r"(\d+)(?:-(\d+))?", elements.partition("%")[0])  # of a long list SLURM leaves the rest out: "..."
    return [f"{array}_{i}" for low, high in ends for i in range(int(low), int(high or low) + 1)]
