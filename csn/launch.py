"""The same Runs on a SLURM cluster: one job array of what is missing, from a snapshot of the code, through submitit.

    HOME/submissions/<time>-<hex>/submission.json    which runs, in the order of the array; job id, profile, commit
                                  logs/              one log a run and task, and submitit's files
    HOME/snapshots/<commit>/                         the code that runs

Only files and squeue decide what is missing, so submitting twice trains nothing twice.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from csn import slurm
from csn.execute import execute
from csn.files import Held, held, write_json
from csn.profiles import Profile
from csn.provenance import REPOSITORY, Version, version
from csn.records import folder_of, read_record, record_loss, stands
from csn.slurm import Submission
from csn.snapshot import snapshot
from csn.spec import Run, UserError

MOST_TIMEOUTS = 30  # sittings a run may take before submitit gives it up
LOCK_SECONDS = 180  # how long a dead node's lock may outlive it on a shared file system
TERM_SECONDS = 600  # how long after SIGTERM the cluster may take to end the job


@dataclass(frozen=True)
class Job:
    """What one element of the array does on its node or nodes. SLURM may end it and start it again at any time."""

    run: Run
    home: Path
    data: Path
    profile: Profile

    def __call__(self) -> None:
        """Train and test the run to its record; raises RuntimeError with the record's reason when it failed."""
        with joined(self.profile.device) as (rank, device):
            self.work(rank, device)

    def work(self, rank: int, device: str) -> None:
        """What one task does, among those that share the run."""
        from csn.train import Stopped

        profile = self.profile
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)  # execute has its own handlers; this tells afterwards which signals came
        options = (device, profile.threads, profile.workers, float(profile.checkpoint_every))
        patience = time.monotonic() + LOCK_SECONDS
        record = None
        while record is None:
            try:
                record = execute(self.run, self.home, self.data, *options)
            except Held:
                if time.monotonic() > patience:
                    raise
                time.sleep(2)
            except UserError as error:
                record_loss(self.run, self.home, str(error), [])  # --status tells it as it is, not as the end of a log
                raise
            except Stopped as stop:
                print(f"{stop}; the state is saved.", flush=True)
                leave(requeue=rank == 0 and signal.SIGUSR2 in read_now(reader))
        if "error" in record:
            raise RuntimeError(record["error"])

    def checkpoint(self) -> Any:
        """What submitit requeues: the same job, which goes on from the state on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@contextmanager
def joined(device: str) -> Iterator[tuple[int, str]]:
    """Among the other tasks of the job, if there are any: (rank, device of this task)."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    environment = JobEnvironment()
    name = f"cuda:{environment.local_rank}" if device == "cuda" else "cpu"
    with ExitStack() as stack:
        if environment.num_tasks > 1:
            import torch

            from csn.exchange import process_group

            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)  # SLURM has set it
            if device == "cuda":
                torch.cuda.set_device(environment.local_rank)
            stack.enter_context(process_group("nccl" if device == "cuda" else "gloo"))
        yield environment.global_rank, name


def leave(requeue: bool) -> None:
    """Leave the job to the cluster after the state was saved; returns only if nobody ends it.

    requeue: let submitit's own handler of SIGUSR2, in place again, requeue the job and exit. Otherwise (SIGTERM, or a
    task that is not the first) the cluster decides: to exit would turn a preemption into a failure.
    """
    if requeue:
        signal.raise_signal(signal.SIGUSR2)
    time.sleep(TERM_SECONDS)


def read_now(descriptor: int) -> bytes:
    """The bytes that wait there; none when nothing does (another task was the one that got the signal)."""
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def missing(runs: Sequence[Run], home: Path) -> tuple[list[Run], dict[str, str]]:
    """The runs to submit, and why each other is not: done, failed (and would again), running or queued.

    Raises UserError where squeue is not installed or does not answer but would have to be asked.
    """
    why: dict[str, str] = {}
    for run in runs:
        record = read_record(run, home)
        if stands(record):
            why[run.name] = "failed" if "error" in record else "done"
        elif folder_of(run, home).exists():
            try:
                with held(folder_of(run, home)):
                    pass
            except Held:
                why[run.name] = "running"
    todo = {run.name: run for run in runs if run.name not in why}
    queue = slurm.squeue(slurm.submissions(home, todo))
    if queue is None:
        raise UserError("squeue is missing here, so nobody knows what is queued; submit on the cluster's login node.")
    why |= {name: "running" if job.running else "queued" for name, job in queue.items() if name in todo}
    return [run for name, run in todo.items() if name not in why], why


def parameters(profile: Profile, name: str, code: Path, current: Version) -> dict[str, Any]:
    """The profile as submitit takes it, with the lines that make the job run the snapshot."""
    exports = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(profile.threads)}
    exports |= {"CSN_COMMIT": current.commit, "CSN_DIRTY": current.dirty}
    setup = [f"export {key}={shlex.quote(value)}" for key, value in exports.items()] + list(profile.setup)
    return {**profile.parameters(), "job_name": name, "setup": setup, "additional_parameters": {"requeue": True}}


def fits(runs: Sequence[Run], profile: Profile) -> None:
    """Raise UserError where a run cannot be shared by the tasks of the profile: it would queue, then fail."""
    tasks = profile.nodes * profile.tasks_per_node
    for run in runs:
        blocks = run.recipe.batch // run.recipe.micro_batch
        if blocks % tasks:
            raise UserError(
                f"`tasks` (={tasks}, nodes x tasks_per_node of the profile) must divide the {blocks} micro-batches of a step of {run.name};"
                " give another --profile, or submit such rows by themselves with --only."
            )


def preview(
    runs: Sequence[Run],
    home: Path,
    profile: Profile,
    seconds: Mapping[str, float],
    repository: Path = REPOSITORY,
) -> str:
    """What --submit would do, without doing it: the sbatch file, the number of runs, the GPU-hours.

    seconds: estimated time of runs on one device, by name; unless all are known, only the bound of the time limit is told.
    """
    from submitit.slurm.slurm import _make_sbatch_string  # the one place that writes the header

    todo, why = missing(runs, home)
    skipped = "".join(f"\n  left out, {reason}: {name}" for name, reason in why.items())
    if not todo:
        return f"Nothing is missing.{skipped}"
    fits(todo, profile)
    current = version(repository)
    chosen = parameters(profile, "csn-<time>", current.folder(home.resolve()), current)
    logs = home.resolve() / "submissions" / "<time>" / "logs"
    header = _make_sbatch_string("<command>", logs, map_count=len(todo) if len(todo) > 1 else None, **chosen)
    unit = profile.device.replace("cuda", "gpu").upper()
    cost = f"at most {len(todo) * profile.minutes / 60 * profile.devices:.1f} {unit}-hours before a requeue"
    if all(run.name in seconds for run in todo):
        hours = sum(seconds[run.name] for run in todo) / 3600
        told = f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}" if hours >= 0.001 else "less than 0.001"
        cost = f"about {told} {unit}-hours, {cost}"
    text = f"{header}\n{len(todo)} run{'s' if len(todo) > 1 else ''} on {profile.devices} {unit} each, {cost}{skipped}"
    if current.dirty:
        text += f"\nThe code differs from commit {current.commit}: --submit will refuse it without --dirty."
    return text


def submit(
    runs: Sequence[Run],
    home: Path,
    data: Path,
    profile: Profile,
    allow_dirty: bool = False,
    repository: Path = REPOSITORY,
    make_job: Callable[[Run, Path, Path, Profile], Callable[[], None]] = Job,
) -> tuple[Submission | None, dict[str, str]]:
    """Submit the missing runs as one job array and return at once: (None if there are none, why others were left out).

    make_job: what an element of the array calls. Raises UserError: no sbatch here, the code is dirty, sbatch refuses.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if shutil.which("sbatch") is None:
        raise UserError("sbatch is missing here: submit on a cluster's login node (slurm/README.md: one on a laptop).")
    home, data = home.resolve(), data.resolve()
    with one_at_a_time(home / "submissions"):
        todo, why = missing(runs, home)
        fits(todo, profile)
        if not todo:
            return None, why
        code, current = snapshot(repository, home, allow_dirty)
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        folder, names = home / "submissions" / name, tuple(run.name for run in todo)
        facts = {"runs": names, "commit": current.commit, "dirty": current.dirty or None, "profile": asdict(profile)}
        folder.mkdir()
        write_json(folder / "submission.json", {**facts, "job": None})  # before sbatch: squeue knows the job by name
        try:
            executor = submitit.SlurmExecutor(folder / "logs", max_num_timeout=MOST_TIMEOUTS)
            executor.update_parameters(**parameters(profile, f"csn-{name}", code, current))
            job = executor.submit_array([make_job(run, home, data, profile) for run in todo])[0]
        except (FailedJobError, FailedSubmissionError) as error:
            shutil.rmtree(folder)
            told = [line for line in str(error).splitlines() if "error" in line.lower()] or [str(error)]
            away = re.search("contact|connect|communicat|timed out|establish|lookup|resolve", told[-1], re.IGNORECASE)
            remedy = "is the cluster up?" if away else "change the profile to what the cluster offers."
            raise UserError(f"sbatch refused ({told[-1].strip()}); {remedy}") from None
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"Cannot write {folder} ({error.strerror or error}); free space there, or give another --home.") from None
        submission = Submission(name, folder, names, str(job.job_id).partition("_")[0])
        write_json(folder / "submission.json", {**facts, "job": submission.job})
    return submission, why


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the submissions folder: two --submit at once would both submit the same runs."""
    try:
        with held(folder):
            yield
    except Held:
        raise UserError(f"Another --submit is at work in {folder}; wait for it, then submit what it left.") from None


def cancel(runs: Sequence[Run], home: Path) -> list[str]:
    """scancel those of the runs that are queued or running, in one call; their names. UserError without SLURM."""
    names = [run.name for run in runs if not stands(read_record(run, home))]  # a job that is only cleaning up is left alone
    queue = slurm.squeue(slurm.submissions(home, names))
    if queue is None:
        raise UserError("squeue and scancel are missing here; cancel on the cluster's login node.")
    chosen = {name: job.id for name, job in queue.items() if name in names}
    if chosen:
        slurm.ask("scancel", *chosen.values())
    return sorted(chosen)
