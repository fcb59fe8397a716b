"""A private SLURM of several nodes on this one machine: try `--submit` on a laptop, test it in CI.

    python slurm/local_cluster.py install            the Debian or Ubuntu packages (as root)
    python slurm/local_cluster.py run -- COMMAND     start, run COMMAND inside, stop; exits with COMMAND's code
    python slurm/local_cluster.py start              start and stay; then: eval "$(python slurm/local_cluster.py env)"
    python slurm/local_cluster.py stop

or `with local_cluster(nodes=2) as cluster: subprocess.run([...], env=cluster.env)`.

Real munged, mariadbd, slurmdbd, slurmctld and one slurmd a node, without systemd, all under one private folder with
its own key, sockets and ports: a SLURM of the machine is not touched, several clusters run side by side, root or an
ordinary user may start one. `run` and `local_cluster` leave nothing behind, even if their process is SIGKILLed.
GPUs are fake: SLURM hands out CUDA_VISIBLE_DEVICES, there is no device. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from local_config import write_configuration
from local_processes import MARK, birth, power_cut, sweep

PACKAGES = "slurm-wlm munge slurmdbd mariadb-server-core"  # not mariadb-server: its dependencies are 200 MB
PROGRAMS = (
    "munged",
    "mariadbd",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sacctmgr",
    "scontrol",
    "sbatch",
    "squeue",
    "sacct",
)
FOREIGN = ("SLURM", "SBATCH", "SRUN", "SALLOC", "SQUEUE", "SACCT", "SINFO")  # settings of another cluster or job
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
START_SECONDS = 120


class ClusterError(Exception):
    """The cluster cannot be installed, started or found: one sentence with the remedy."""


@dataclass
class Cluster:
    """A running cluster: its folder, its nodes ("127.0.0.1", "127.0.0.2", ...) and the daemons this process started."""

    folder: Path
    nodes: tuple[str, ...]
    children: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list, repr=False)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which sbatch, squeue and submitit talk to this cluster, free of any other cluster's."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return env | {"PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run one client command (sinfo, scontrol, ...) against this cluster, 60 seconds at most."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def start_node(self, node: str) -> None:
        """Start the slurmd of one node, for the first time or after kill_node."""
        self.start_daemon("slurmd", "-D", "-N", node, "-f", f"{self.folder}/slurm.conf", node=node)

    def kill_node(self, node: str) -> None:
        """What a power cut does: SIGKILL the node's slurmd, its job steps and their tasks, all at once."""
        power_cut(self.folder, f"{MARK}_NODE={node}", f"SLURMD_NODENAME={node}")

    def stop(self) -> None:
        """End every daemon and job process of this cluster and remove its folder."""
        sweep(self.folder)
        for _, child in self.children:
            child.wait()

    def start_daemon(self, program: str, *arguments: str, node: str = "") -> None:
        """Start one daemon in a session of its own (Ctrl-C is not for it); its output goes to log/PROGRAM[NODE].out."""
        env = {"PATH": PATH, "HOME": os.environ.get("HOME", "/"), "SLURM_CONF": f"{self.folder}/slurm.conf"}
        env |= {"MYSQL_UNIX_PORT": f"{self.folder}/db.sock", MARK: str(self.folder), f"{MARK}_NODE": node}
        with (self.folder / "log" / f"{program}{node}.out").open("ab") as log:
            command = [program, *arguments]
            child = subprocess.Popen(command, env=env, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        self.children.append((program, child))

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        """Poll until ready(); raise ClusterError with the last log lines if a daemon ends or the time is up."""
        end = time.monotonic() + START_SECONDS
        while not ready():
            dead = [program for program, child in self.children if child.poll() is not None]
            if dead or time.monotonic() > end:
                why = f"{dead[0]} ended" if dead else f"{START_SECONDS} s passed"
                logs = [(p.name, p.read_text().splitlines()[-4:]) for p in sorted((self.folder / "log").iterdir())]
                tail = "".join(f"\n{name}: {line}" for name, lines in logs for line in lines)
                raise ClusterError(f"The local cluster did not start: {why} while waiting for {what}.{tail}")
            time.sleep(0.1)


def missing_programs() -> list[str]:
    """The programs of the cluster that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def install() -> None:
    """apt-get install what the cluster needs; nothing to do where it is there. ClusterError without root or apt-get.

    Where systemd runs, the packages would start a system SLURM and munge: while they are installed a policy-rc.d
    that answers 101 (do not start) prevents it, unless the machine has its own.
    """
    if not missing_programs():
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"apt-get is missing: install {PACKAGES} another way (Debian 12, 13, Ubuntu 24.04 are known).")
    if os.geteuid() != 0:
        raise ClusterError(f"Installing needs root: sudo apt-get install -y --no-install-recommends {PACKAGES}")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES.split()]
    try:
        subprocess.run(["apt-get", "update", "-q"], env=env, check=False)
        failed = subprocess.run(apt, env=env, check=False).returncode != 0
    finally:
        if ours:
            policy.unlink()
    if failed or missing_programs():
        raise ClusterError(f"apt-get could not install {PACKAGES}; its messages are above.")


def start(folder: Path, nodes: int = 2, cpus: int = 4, memory: int = 4000, gpus: int = 2) -> Cluster:
    """Start a cluster in `folder` (new or empty) and return when every node is idle, seconds later.

    nodes: 1 to 16. cpus, memory (MB), gpus: what each node claims to have, whatever this machine has.
    Raises ClusterError: programs missing, folder in use or its path too long, a daemon that does not come up.
    """
    if lacking := missing_programs():
        raise ClusterError(f"{', '.join(lacking)} not found: run `python {__file__} install` as root (it installs {PACKAGES}).")
    limits = {"nodes": (nodes, 1, 16), "cpus": (cpus, 1, 64), "memory": (memory, 500, 10**6), "gpus": (gpus, 0, 16)}
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise ClusterError(f"`{name}` (={value}) must be {low} to {high}.")
    if len(str(folder)) > 80:
        raise ClusterError(f"The folder {folder} is too long for Unix sockets: at most 80 characters.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty: `stop` the cluster that runs there, or" if folder.is_dir() else "is no folder:"
        raise ClusterError(f"{folder} {what} give another --folder.")
    cluster = Cluster(folder, tuple(f"127.0.0.{i + 1}" for i in range(nodes)))  # names that need no /etc/hosts
    try:
        write_configuration(folder, cluster.nodes, cpus, memory, gpus)
        _bring_up(cluster)
    except OSError as error:
        cluster.stop()
        raise ClusterError(f"Cannot start a cluster in {folder} ({error.strerror or error}); give another --folder.") from None
    except BaseException:
        cluster.stop()
        raise
    return cluster


def is_ours(folder: Path) -> bool:
    """Whether folder holds a cluster that `start` made, and no other's configuration, which `stop` would remove."""
    try:
        return f"StateSaveLocation={folder}/state\n" in (folder / "slurm.conf").read_text()
    except OSError:
        return False


def _bring_up(cluster: Cluster) -> None:
    """Start the daemons, each when the one it needs answers."""
    d = cluster.folder
    munge = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "run/munged.pid", "seed-file": "munge.seed"}
    munge_options = [f"--{name}={d}/{file}" for name, file in munge.items()]
    cluster.start_daemon("munged", "--foreground", "--force", "--num-threads=10", *munge_options)
    db = {"datadir": "db", "socket": "db.sock", "tmpdir": "db", "pid-file": "run/db.pid"}
    db_options = [f"--{name}={d}/{file}" for name, file in db.items()] + ["--user=root"] * (os.geteuid() == 0)
    quiet = ("--skip-networking", "--skip-grant-tables", "--innodb-buffer-pool-size=16M")
    cluster.start_daemon("mariadbd", "--no-defaults", *db_options, *quiet)
    cluster.wait("munged and mariadbd", lambda: (d / "munge.sock").exists() and (d / "db.sock").exists())
    cluster.start_daemon("slurmdbd", "-D")
    cluster.wait("slurmdbd", lambda: cluster.call("sacctmgr", "-i", "add", "cluster", "mini").returncode == 0)
    cluster.start_daemon("slurmctld", "-D", "-c")
    for node in cluster.nodes:
        cluster.start_node(node)
    sinfo = ("sinfo", "-h", "-p", "main", "-N", "-o", "%t")
    cluster.wait("the nodes", lambda: cluster.call(*sinfo).stdout.split() == ["idle"] * len(cluster.nodes))


@contextlib.contextmanager
def local_cluster(nodes: int = 2, cpus: int = 4, memory: int = 4000, gpus: int = 2) -> Iterator[Cluster]:
    """A private cluster for the length of a `with` block (arguments and errors: see start).

    A watcher in a session of its own removes everything within seconds if this process dies without leaving the block.
    """
    folder = Path(tempfile.mkdtemp(prefix="csn-slurm-", dir="/tmp"))  # short: Unix socket paths end at 107 characters
    me = os.getpid()
    watch = [sys.executable, str(Path(__file__).resolve()), "watch", str(me), str(birth(me)), "--folder", str(folder)]
    watcher = subprocess.Popen(watch, start_new_session=True, stdin=subprocess.DEVNULL, cwd="/")
    try:
        cluster = start(folder, nodes, cpus, memory, gpus)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        watcher.kill()
        watcher.wait()


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    words, command = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    parser = argparse.ArgumentParser(prog="local_cluster.py", description="A private SLURM of several nodes here.")
    parser.add_argument("action", choices=("install", "start", "stop", "env", "run", "watch"), help="run -- COMMAND")
    parser.add_argument("watched", nargs="*", help=argparse.SUPPRESS)  # watch, used by local_cluster: id and birth
    parser.add_argument("--nodes", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--cpus", type=int, default=4, help="CPUs each node claims to have (%(default)s)")
    parser.add_argument("--memory", type=int, default=4000, help="MB each node claims to have (%(default)s)")
    parser.add_argument("--gpus", type=int, default=2, help="fake GPUs of each node (%(default)s)")
    default = Path(f"/tmp/csn-slurm-{os.geteuid()}")
    parser.add_argument("--folder", type=Path, default=default, help="of start, stop and env (%(default)s)")
    options = parser.parse_args(words)
    folder: Path = options.folder.absolute()
    if options.action == "install":
        install()
    elif options.action == "start":
        start(folder, options.nodes, options.cpus, options.memory, options.gpus)
        print(f"{options.nodes} nodes in {folder}. To use them in this shell:")
        print(f'  eval "$(python {__file__} env --folder {folder})"')
    elif options.action == "run":
        if not command:
            parser.error("run needs `-- COMMAND`")
        with local_cluster(options.nodes, options.cpus, options.memory, options.gpus) as cluster:
            return subprocess.run(command, env=cluster.env | {MARK: str(cluster.folder)}, check=False).returncode
    elif options.action == "watch":
        pid, since = options.watched
        while folder.exists() and birth(int(pid)) == since:
            time.sleep(0.5)
        sweep(folder)
    elif not is_ours(folder):
        raise ClusterError(f"No cluster in {folder}; start one, or give its --folder.")
    elif options.action == "env":
        print(f'export SLURM_CONF="{folder}/slurm.conf"\nexport PATH="$PATH:/usr/sbin:/sbin"')
    else:
        Cluster(folder, ()).stop()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ClusterError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
