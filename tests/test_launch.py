"""Submission as far as it goes without SLURM: profiles, snapshots, what is missing. 3 s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from submitit.core.utils import FailedJobError

from csn import cluster, launch, slurm, snapshot
from csn.files import held
from csn.profiles import FOLDER, Profile, read_profile
from csn.provenance import REPOSITORY, Version, code_version
from csn.recipes import MEDIUM, SMOKE
from csn.records import folder_of, read_record
from csn.slurm import Queued
from csn.spec import Run, UserError, Variant
from csn.table import cost_key, count_costs, planned_costs
from csn.train import Stopped

RUNS = [Run(variant=Variant(width=8, block="bottleneck-D"), recipe=SMOKE, seed=seed) for seed in range(4)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git checkout with one committed file of code."""
    folder = tmp_path / "repository"
    (folder / "csn").mkdir(parents=True)
    (folder / "csn" / "a.py").write_text("A = 1\n")
    (folder / ".gitignore").write_text("*.pyc\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *command], cwd=folder, check=True)
    return folder


def write(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def record(run: Run, home: Path, **facts: object) -> None:
    write(folder_of(run, home) / "record.json", {"run": run.name, **facts})


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_every_profile_of_the_project_is_read(name: str) -> None:
    profile = read_profile(name)
    assert profile.parameters()["srun_args"] == ["--kill-on-bad-exit=1", f"--cpus-per-task={profile.cpus_per_task}"]


def test_the_paper_profile_has_the_papers_gpus() -> None:
    assert read_profile("paper").devices == 64


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "gpus = 1",
            r"`key` \(=gpus\) of .*/mine.toml must be one of partition, account, qos, constraint, time, nodes",
        ),
        ("nodes = '2'", r"`nodes` \(='2'\) must be a whole number"),
        ("nodes = true", r"`nodes` \(=True\) must be a whole number"),
        ("nodes = 0", r"`nodes` \(=0\) must be at least 1"),
        ("workers = -1", r"`workers` \(=-1\) must be at least 0"),
        ("setup = 'module load x'", r"`setup` \(='module load x'\) must be a list of texts"),
        ("time = '90'", r"`time` \(=90\) must be HH:MM:SS or D-HH:MM:SS"),
        ("time = '00:12:00'", r"`time` \(=00:12:00\) must be at least 13 minutes"),
        ("signal_delay = 10", r"`signal_delay` \(=10\) must be at least 30 seconds"),
        ("device = 'tpu'", r"`device` \(=tpu\) must be cpu or cuda"),
        ("device = 'cuda'", r"`tasks_per_node` \(=1\) must equal `gpus_per_node` \(=0\)"),
        ("nodes =", r"The profile .*/mine.toml is not TOML \(Invalid value"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_rule(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_profile("mine", tmp_path)


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"`profile` \(=gpus\) must be one of gpu, local, paper"):
        read_profile("gpus")


def test_times_are_rounded_up_to_minutes() -> None:
    assert [Profile(time=t).minutes for t in ("1-02:03:04", "00:13:00")] == [24 * 60 + 2 * 60 + 3 + 1, 13]


def test_a_snapshot_holds_the_committed_code(repository: Path, tmp_path: Path) -> None:
    (repository / "csn" / "a.pyc").write_text("ignored")
    folder, version = snapshot.snapshot(repository, tmp_path / "home", allow_dirty=False)
    assert version.dirty == "" and folder == tmp_path / "home" / "snapshots" / version.commit
    assert [path.name for path in (folder / "csn").iterdir()] == ["a.py"]


def test_the_commit_of_a_project_around_the_code_is_not_that_of_the_code(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = repository / "site-packages"
    (inner / "csn").mkdir(parents=True)
    with pytest.raises(UserError, match="site-packages lies inside another project's git checkout, whose commit says nothing of it"):
        snapshot.version(inner)
    monkeypatch.delenv("CSN_COMMIT", raising=False)
    monkeypatch.setattr("csn.provenance.REPOSITORY", inner)
    assert code_version() == {"commit": "", "dirty": None}


def test_a_file_open_in_an_editor_changes_the_version_and_stops_nothing(repository: Path, tmp_path: Path) -> None:
    (repository / "csn" / ".#a.py").symlink_to("somebody@host.1:2")  # as Emacs marks it
    found = snapshot.version(repository)
    assert found.dirty and snapshot.version(repository) == found
    folder, _ = snapshot.snapshot(repository, tmp_path / "home", allow_dirty=True)
    assert [path.name for path in (folder / "csn").iterdir()] == ["a.py"]


def test_names_and_text_of_other_encodings_change_the_version_and_stop_nothing(repository: Path, tmp_path: Path) -> None:
    clean = snapshot.version(repository)
    (repository / "csn" / os.fsdecode(b"caf\xe9.py")).write_text("A = 2\n")
    new = snapshot.version(repository)
    (repository / "csn" / "a.py").write_bytes(b"A = 1  # caf\xe9\n")
    assert len({clean.dirty, new.dirty, snapshot.version(repository).dirty}) == 3
    folder, _ = snapshot.snapshot(repository, tmp_path / "home", allow_dirty=True)
    assert sorted(os.fsencode(path.name) for path in (folder / "csn").iterdir()) == [b"a.py", b"caf\xe9.py"]


def test_a_snapshot_that_cannot_be_written_is_one_sentence(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(UserError, match=r"Cannot copy the code to .*home/snapshots/.* \(Not a directory\); free space there, or give another folder"):
        snapshot.snapshot(repository, tmp_path / "home", allow_dirty=False)


@pytest.mark.parametrize("change", ["edited", "new", "deleted"])
def test_a_dirty_tree_is_refused_unless_allowed(repository: Path, tmp_path: Path, change: str) -> None:
    clean = snapshot.version(repository)
    if change == "edited":
        (repository / "csn" / "a.py").write_text("A = 2\n")
    elif change == "new":
        (repository / "csn" / "b.py").write_text("B = 1\n")
    else:
        (repository / "csn" / "a.py").unlink()
    with pytest.raises(UserError, match=rf"(?s)The code differs from commit {clean.commit}: commit it.*csn/[ab]\.py"):
        snapshot.snapshot(repository, tmp_path / "home", allow_dirty=False)
    folder, version = snapshot.snapshot(repository, tmp_path / "home", allow_dirty=True)
    assert version.commit == clean.commit and len(version.dirty) == 12 and folder.name.endswith(version.dirty)
    copied = {path.name: path.read_text() for path in folder.glob("csn/*")}
    assert copied == {path.name: path.read_text() for path in repository.glob("csn/*")}
    assert snapshot.version(repository) == version
    if change == "new":
        (repository / "csn" / "b.py").write_text("B = 2\n")
        assert snapshot.version(repository).dirty != version.dirty


def test_outside_git_it_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a git checkout with a commit"):
        snapshot.version(tmp_path)


def test_missing_are_the_runs_without_a_standing_record_that_nobody_works_on(tmp_path: Path) -> None:
    record(RUNS[0], tmp_path, video_top1=1.0)
    record(RUNS[1], tmp_path, error="the loss is nan in epoch 1")
    record(RUNS[2], tmp_path, error="OSError: disk", retry=True)
    with held(folder_of(RUNS[3], tmp_path)):
        todo, why = launch.missing([*RUNS, RUNS[2]], tmp_path)
    assert todo == [RUNS[2]]
    assert why == {RUNS[0].name: "done", RUNS[1].name: "failed", RUNS[3].name: "running"}


def test_preview_prints_the_header_and_the_gpu_hours(repository: Path, tmp_path: Path) -> None:
    wide = [replace(run, recipe=replace(SMOKE, batch=64, micro_batch=1)) for run in RUNS]  # one micro-batch for every GPU
    record(wide[0], tmp_path, video_top1=1.0)
    profile = replace(read_profile("paper"), partition="big", account="me", setup=("module load cuda",))
    text = launch.preview(wide, tmp_path, profile, {run.name: 7200.0 for run in wide}, repository)
    for line in (
        "#SBATCH --partition=big",
        "#SBATCH --account=me",
        "#SBATCH --array=0-2%1",
        "#SBATCH --nodes=8",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --signal=USR2@300",
        "#SBATCH --time=2880",
        "#SBATCH --requeue",
        "module load cuda",
        f"3 runs on 64 GPU each, about 6.0 GPU-hours, at most {3 * 48 * 64:.1f} GPU-hours before a requeue",
        f"  left out, done: {wide[0].name}",
    ):
        assert line in text.splitlines()
    assert "--array" not in launch.preview(wide[1:2], tmp_path, profile, {}, repository)  # what is submitted alone is no array
    assert "--kill-on-bad-exit=1" in text and "--qos" not in text and "--dirty" not in text
    assert not (tmp_path / "submissions").exists() and not (tmp_path / "snapshots").exists()
    assert "about 0.025 GPU-hours" in launch.preview(wide, tmp_path, profile, {run.name: 30.0 for run in wide}, repository)
    (repository / "csn" / "a.py").write_text("A = 2\n")
    text = launch.preview(wide, tmp_path, profile, {}, repository)
    assert "refuse it without --dirty" in text and "about" not in text


def test_runs_that_the_tasks_cannot_share_are_refused_before_they_queue(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`tasks` \(=64, .*\) must divide the 4 micro-batches of a step of smoke-bottleneck-D"):
        launch.preview(RUNS, tmp_path, read_profile("paper"), {}, repository)


def test_what_a_person_can_mend_is_the_record_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "joined", lambda device: nullcontext((0, "cpu")))
    job = launch.Job(RUNS[0], tmp_path, tmp_path / "data", replace(read_profile("local"), device="cpu"))
    monkeypatch.setattr(launch, "execute", Mock(side_effect=UserError("no data in /data; make some.")))
    before = signal.set_wakeup_fd(-1)
    try:
        with pytest.raises(UserError, match="make some"):
            job()
    finally:
        os.close(signal.set_wakeup_fd(before))
    found = read_record(RUNS[0], tmp_path)
    assert found is not None and found["error"] == "no data in /data; make some." and found["retry"]


def test_gpu_hours_follow_from_the_flops() -> None:
    small, run = (Run(variant=Variant(width=recipe.width), recipe=recipe, seed=0) for recipe in (SMOKE, MEDIUM))
    count_costs([small, run])
    macs = planned_costs()[cost_key(run.variant, MEDIUM)]["flops"]
    passes = 3 * MEDIUM.epochs * MEDIUM.clips_per_epoch + (9_537 + 3_783) * MEDIUM.test_clips  # training, then every view of both splits
    # a network of built-in data is too small to be bound by arithmetic: nobody knows before it was run
    assert cluster.estimates([small, run], read_profile("gpu"), {}) == {run.name: pytest.approx(2 * macs * passes / cluster.SUSTAINED)}
    assert cluster.estimates([small], read_profile("local"), {small.name: 5.0}) == {small.name: 5.0}


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (OSError(28, "No space left on device"), r"Cannot write .* \(No space left on device\); free space there, or give another --home"),
        (FailedJobError("sbatch: error: Unable to contact slurm controller (connect failure)"), r"sbatch refused \(.*\); is the cluster up\?"),
        (FailedJobError("sbatch: error: invalid partition specified: big"), r"sbatch refused \(.*big\); change the profile to what the cluster offers"),
    ],
)
def test_what_cannot_be_submitted_leaves_nothing(fault: Exception, sentence: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(launch, "missing", lambda runs, home: (list(runs), {}))
    monkeypatch.setattr("submitit.SlurmExecutor.submit_array", Mock(side_effect=fault))
    with pytest.raises(UserError, match=sentence):
        launch.submit(RUNS, tmp_path, tmp_path / "data", read_profile("local"), repository=repository)
    assert not list((tmp_path / "submissions").glob("*/submission.json"))


def test_submit_and_cancel_say_what_they_lack(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "submissions" / "1" / "submission.json", {"runs": [RUNS[0].name], "job": "7"})
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UserError, match="sbatch is missing here"):
        launch.submit(RUNS, tmp_path, tmp_path / "data", read_profile("local"), repository=repository)
    with pytest.raises(UserError, match="squeue and scancel are missing here"):
        launch.cancel(RUNS, tmp_path)
    with pytest.raises(UserError, match="squeue is missing here, so nobody knows what is queued"):
        launch.missing(RUNS, tmp_path)


@pytest.mark.parametrize("dirty", ["", "0123456789ab"])
def test_a_job_runs_the_snapshot_and_its_records_name_the_commit(tmp_path: Path, dirty: str) -> None:
    """The lines that a job begins with, through a shell, from a folder whose name has a space."""
    code = tmp_path / "the code"
    chosen = launch.parameters(replace(read_profile("local"), threads=3), "csn-1", code, Version("abc", dirty))
    tell = 'import json, os; from csn.provenance import code_version as v; e = os.environ; print(json.dumps([e["PYTHONPATH"], e["OMP_NUM_THREADS"], v()]))'
    script = "\n".join([*chosen["setup"], f"cd {REPOSITORY}", f"env -u PYTHONSAFEPATH {sys.executable} -c '{tell}'"])
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}).stdout
    assert json.loads(told) == [str(code), "3", {"commit": "abc", "dirty": dirty or None}]


def test_runs_in_the_queue_are_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = {RUNS[0].name: Queued("7_0", "RUNNING", "n1", "None"), RUNS[1].name: Queued("7_1", "PENDING", "", "Resources")}
    monkeypatch.setattr(slurm, "squeue", lambda _: queue)
    assert launch.missing(RUNS, tmp_path) == (RUNS[2:], {RUNS[0].name: "running", RUNS[1].name: "queued"})


def test_a_job_that_only_cleans_up_is_not_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an array: its other runs are."""
    write(tmp_path / "submissions" / "1" / "submission.json", {"runs": [run.name for run in RUNS], "job": "7"})
    record(RUNS[0], tmp_path, video_top1=1.0)
    asked: list[tuple[str, ...]] = []

    def answer(*command: str) -> str:
        asked.append(command)
        return "7_0|COMPLETING|n1|None|csn-1\n7_1|RUNNING|n1|None|csn-1\n7_2|PENDING||Priority|csn-1\n"

    monkeypatch.setattr(slurm, "ask", answer)
    assert launch.cancel(RUNS[:2], tmp_path) == [RUNS[1].name]
    assert asked[1:] == [("scancel", "7_1")]


def test_a_submission_remembers_its_job(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before sbatch it knows none: squeue finds jobs by name then."""
    before: list[object] = []

    def submit_array(self: object, jobs: list[object]) -> list[Mock]:
        (path,) = (tmp_path / "submissions").glob("*/submission.json")
        before.append(json.loads(path.read_text())["job"])
        return [Mock(job_id=f"12_{i}") for i in range(len(jobs))]

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(launch, "missing", lambda runs, home: (list(runs), {}))
    monkeypatch.setattr("submitit.SlurmExecutor.submit_array", submit_array)
    submission, why = launch.submit(RUNS, tmp_path, tmp_path / "data", read_profile("local"), repository=repository)
    assert before == [None] and why == {} and slurm.submissions(tmp_path, [RUNS[3].name]) == [submission]
    assert submission is not None and submission.job_id(RUNS[3].name) == "12_3"
    facts = json.loads((submission.folder / "submission.json").read_text())
    assert facts["commit"] and facts["dirty"] is None and facts["profile"]["device"] == "cpu"


@pytest.mark.parametrize(("number", "rank", "requeue"), [("USR2", 0, True), ("USR2", 1, False), ("TERM", 0, False)])
def test_a_job_that_was_warned_of_its_end_is_requeued_by_its_first_task(
    number: str, rank: int, requeue: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended for another reason it leaves that to the cluster; either way it goes on from its state if it is let live."""
    profile = replace(read_profile("local"), threads=2, workers=3, checkpoint_every=7)
    given: list[tuple[object, ...]] = []
    left: list[bool] = []

    def execute(*arguments: object) -> dict[str, object]:
        given.append(arguments)
        if len(given) == 1:
            signal.raise_signal(signal.Signals[f"SIG{number}"])
            raise Stopped("stopped at step 1 of 2")
        return {"error": "the loss is nan"}

    monkeypatch.setattr(launch, "execute", execute)
    monkeypatch.setattr(launch, "leave", lambda requeue: left.append(requeue))
    handlers = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGUSR2, signal.SIGTERM)}
    before = signal.set_wakeup_fd(-1)
    try:
        with pytest.raises(RuntimeError, match="the loss is nan"):
            launch.Job(RUNS[0], tmp_path, tmp_path / "data", profile).work(rank, "cpu")
    finally:
        os.close(signal.set_wakeup_fd(before))
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert left == [requeue] and given == 2 * [(RUNS[0], tmp_path, tmp_path / "data", "cpu", 2, 3, 7.0)]
