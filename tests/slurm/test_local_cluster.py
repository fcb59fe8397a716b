"""The one-machine cluster behaves as a cluster does, and leaves nothing behind. About 100 s, most of it waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import local_cluster as module
import pytest
from local_cluster import Cluster, ClusterError
from local_processes import MARK, power_cut, processes

from .jobs import REPOSITORY, job_field, sbatch, until, wait_state

SCRIPT = str(REPOSITORY / "slurm" / "local_cluster.py")
FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def timed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A job past its time limit of one minute, submitted first and looked at last; and its output file."""
    out = tmp_path_factory.mktemp("timed") / "out"
    script = "trap 'echo signalled' USR2; echo began; while true; do sleep 1; done"
    return sbatch(cluster, script, "-w", THIRD, "--time=1", "--signal=B:USR2@40", "-o", str(out)), out


@pytest.mark.usefixtures("timed")
def test_two_nodes_with_one_task_each_know_their_rank_and_gpus(cluster: Cluster) -> None:
    report = "echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_NTASKS $CUDA_VISIBLE_DEVICES"
    done = cluster.call("srun", "-w", f"{FIRST},{SECOND}", "--ntasks-per-node=1", "--gpus-per-node=2", "--mem=100", "bash", "-c", report)
    assert sorted(done.stdout.splitlines()) == [f"0 {FIRST} 2 0,1", f"1 {SECOND} 2 0,1"], done.stderr


def test_array_runs_every_element_once(cluster: Cluster, tmp_path: Path) -> None:
    job = sbatch(cluster, "echo $SLURM_ARRAY_TASK_ID", "--array=0-5%3", "-o", f"{tmp_path}/%a.out")
    until("six outputs", lambda: len([p for p in tmp_path.iterdir() if p.read_text()]) == 6)
    assert sorted(p.read_text().strip() for p in tmp_path.iterdir()) == list("012345")
    sacct = ("sacct", "-n", "-X", "-P", "-o", "State", "-j", job)
    until("sacct to say so", lambda: cluster.call(*sacct).stdout.split() == ["COMPLETED"] * 6)


def test_preempted_requeued_and_orphaned_jobs_run_again(cluster: Cluster, tmp_path: Path) -> None:
    """One job is preempted, one requeued by hand, one loses its node: each starts a second time and finishes."""

    def submit(name: str, node: str, *options: str) -> str:
        first = f"trap 'echo signalled >>{tmp_path}/{name}' USR2; for i in $(seq 900); do sleep 0.2; done"
        script = f'echo $SLURMD_NODENAME >>{tmp_path}/{name}; [ -n "$SLURM_RESTART_COUNT" ] && exit 0; {first}'
        job = sbatch(cluster, script, "-w", node, "--time=20", "-o", "/dev/null", *options)
        until(f"{name} to begin", (tmp_path / name).exists)
        return job

    preempted = submit("preempted", FIRST, "-c4", "--signal=B:USR2@60")
    requeued = submit("requeued", THIRD)
    orphan = submit("orphan", SECOND)
    assert cluster.call("scontrol", "requeue", requeued).returncode == 0
    cluster.kill_node(SECOND)
    urgent = sbatch(cluster, "true", "-p", "urgent", "-w", FIRST, "-c4", "-o", "/dev/null")
    until("SLURM to notice", lambda: job_field(cluster, orphan, "Restarts") == "1")
    cluster.start_node(SECOND)
    for job in (urgent, preempted, requeued, orphan):
        wait_state(cluster, job, "COMPLETED")
    assert (tmp_path / "preempted").read_text().split() == [FIRST, "signalled", FIRST]
    assert (tmp_path / "requeued").read_text().split() == [THIRD, THIRD]
    assert (tmp_path / "orphan").read_text().split() == [SECOND, SECOND]
    sinfo = ("sinfo", "-h", "-p", "main", "-N", "-o", "%t")
    until("the nodes", lambda: set(cluster.call(*sinfo).stdout.split()) <= {"idle", "mix"})


def test_nobody_sees_another_die_in_a_power_cut(tmp_path: Path) -> None:
    """A process that tells of the first death among its hundred children has no time to."""
    watch = f"for i in $(seq 100); do sleep 600 & done; touch {tmp_path}/began; wait -n; touch {tmp_path}/told"
    env = {"PATH": os.environ["PATH"], "SLURM_CONF": f"{tmp_path}/slurm.conf", MARK: str(tmp_path)}
    parent = subprocess.Popen(["bash", "-c", watch], env=env)
    until("the children", (tmp_path / "began").exists)
    power_cut(tmp_path, f"{MARK}={tmp_path}")
    assert parent.wait() == -signal.SIGKILL
    assert not (tmp_path / "told").exists()
    until("the children to end", lambda: not processes(tmp_path, f"{MARK}="))


def test_scancel_ends_the_job_as_cancelled(cluster: Cluster) -> None:
    job = sbatch(cluster, "sleep 600", "-o", "/dev/null")
    wait_state(cluster, job, "RUNNING")
    assert cluster.call("scancel", job).returncode == 0
    wait_state(cluster, job, "CANCELLED")
    sacct = ("sacct", "-n", "-X", "-P", "-o", "State", "-j", job)
    until("sacct to say so", lambda: cluster.call(*sacct).stdout.startswith("CANCELLED by"))


def test_killed_rank_fails_the_whole_job(cluster: Cluster, tmp_path: Path) -> None:
    script = f"srun --kill-on-bad-exit=1 bash -c 'echo $$ >{tmp_path}/$SLURM_PROCID; sleep 600'"
    job = sbatch(cluster, script, "-N2", "--ntasks-per-node=1", "-o", "/dev/null")
    until("both ranks", lambda: all((tmp_path / rank).exists() and (tmp_path / rank).read_text() for rank in "01"))
    os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
    wait_state(cluster, job, "FAILED")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("end", ["leaves", "fails", "is killed"])
def test_nothing_is_left_when_the_caller(end: str, tmp_path: Path) -> None:
    """A second cluster beside the shared one: a job that hides its environment runs when the caller ends."""
    commands = {"leaves": "exit 0", "fails": "exit 5", "is killed": "kill -9 $PPID; sleep 600"}
    inside = (
        f"sbatch -o /dev/null --mem=100 --wrap 'touch {tmp_path}/began; env -i sleep 600' >/dev/null; "
        f"until [ -e {tmp_path}/began ]; do sleep 0.1; done; echo $SLURM_CONF; {commands[end]}"
    )
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run([sys.executable, SCRIPT, "run", "--", "bash", "-c", inside], stdout=out, check=False)
    assert done.returncode == {"leaves": 0, "fails": 5, "is killed": -signal.SIGKILL}[end]
    folder = Path((tmp_path / "out").read_text().strip()).parent
    assert folder.name.startswith("csn-slurm-")
    if end == "is killed":
        until("the watcher to clean", lambda: not folder.exists())
    assert not folder.exists()
    assert processes(folder, f"{MARK}={folder}", "SLURM_JOB_ID=") == set()
    assert b"sleep\x00600" not in b"".join(_command_lines_outside_slurm())


def _command_lines_outside_slurm() -> Iterator[bytes]:
    """Command lines of the processes whose environment is empty: those a job started with env -i."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if not (process / "environ").read_bytes():
                    yield (process / "cmdline").read_bytes()
            except OSError:
                continue


@pytest.mark.usefixtures("cluster")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_start_it() -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/tmp"]
    calls = [[*nobody, python, SCRIPT] for python in (sys.executable, "/usr/bin/python3")]
    calls = [call for call in calls if subprocess.run([*call, "--help"], capture_output=True, check=False).returncode == 0]
    if not calls:
        pytest.skip("another user cannot read this Python or this repository")
    inside = ["srun", "-N2", "--ntasks-per-node=1", "id", "-u"]
    done = subprocess.run([*calls[0], "run", "--", *inside], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["65534", "65534"], done.stderr


@pytest.mark.usefixtures("cluster")
def test_start_env_stop_from_the_command_line() -> None:
    folder = Path(tempfile.mkdtemp(prefix="csn-slurm-", dir="/tmp"))  # pytest's own folders have too long a path
    call = [sys.executable, SCRIPT]

    def run(action: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*call, action, "--folder", str(folder)], capture_output=True, text=True, check=False)

    assert run("stop").stderr == f"No cluster in {folder}; start one, or give its --folder.\n"
    try:
        assert run("start").returncode == 0
        assert "is not empty" in run("start").stderr
        shell = f'eval "$({" ".join(call)} env --folder {folder})"; srun -N2 --mem=100 hostname | wc -l'
        assert subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout == "2\n"
    finally:
        assert run("stop").returncode == 0
    assert not folder.exists()
    folder.mkdir()
    (folder / "slurm.conf").write_text("StateSaveLocation=/var/spool/slurm\n")  # a cluster's of others
    assert run("stop").stderr.startswith("No cluster in ") and (folder / "slurm.conf").exists()
    (folder / "slurm.conf").unlink()
    folder.rmdir()


def test_a_wrong_size_and_missing_programs_are_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"`nodes` \(=0\) must be 1 to 16"):
        module.start(tmp_path / "c", nodes=0)
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=r"file is no folder: give another --folder"):
        module.start(tmp_path / "file")
    with pytest.raises(ClusterError, match=r"Cannot start a cluster in /proc/none \(.*\); give another --folder"):
        module.start(Path("/proc/none"))
    monkeypatch.setattr(module, "PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"slurmctld.* not found: .*install.*slurm-wlm munge"):
        module.start(tmp_path / "c")


def test_time_limit_signals_and_then_ends_the_job(cluster: Cluster, timed: tuple[str, Path]) -> None:
    job, out = timed
    wait_state(cluster, job, "TIMEOUT")
    assert out.read_text().split()[:2] == ["began", "signalled"]
