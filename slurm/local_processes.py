"""Find and end the processes of one local cluster, by the marks in their environment. Linux (/proc) only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

MARK = "CSN_LOCAL_CLUSTER"  # in the environment of every daemon, with the cluster's folder as value


def birth(pid: int) -> str | None:
    """Start time of a process, in clock ticks (an id alone may be used again); None when it is gone or a zombie."""
    with contextlib.suppress(OSError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    return None


def processes(folder: Path, *marks: str) -> set[tuple[int, str]]:
    """(id, birth) of this cluster's processes with one of `marks` in their environment, and of all their descendants.

    marks: "NAME=value", or "NAME=" for any value. The environment must also name this cluster's slurm.conf. A shell
    that only uses the cluster has no mark.
    """
    conf = f"SLURM_CONF={folder}/slurm.conf".encode()
    wanted = [mark.encode() for mark in marks]
    found: set[int] = set()
    children: dict[int, list[int]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                pid = int(process.name)
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(pid)
                env = (process / "environ").read_bytes().split(b"\0")
                if conf in env and any(e.startswith(m) if m.endswith(b"=") else e == m for m in wanted for e in env):
                    found.add(pid)
    queue = list(found)
    while queue:  # descendants: a task may have cleaned its environment
        new = [child for child in children.get(queue.pop(), []) if child not in found]
        found.update(new)
        queue += new
    return {(pid, since) for pid in found if (since := birth(pid)) is not None}


def kill_all(targets: set[tuple[int, str]], number: int) -> None:
    """Send signal `number` to those of the (id, birth) that still live."""
    for pid, since in targets:
        if birth(pid) == since:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def power_cut(folder: Path, *marks: str) -> None:
    """SIGKILL the processes(folder, *marks) as if all at once: none of them runs on to see another one dead.

    They are stopped before the first is killed. Killed one by one, a batch step that outlives its script by a
    millisecond reports it to the controller, and a job that SLURM would rerun has FAILED.
    """
    targets: set[tuple[int, str]] = set()
    while new := processes(folder, *marks) - targets:  # until nobody is left who could start another
        kill_all(new, signal.SIGSTOP)
        targets |= new
    kill_all(targets, signal.SIGKILL)


def sweep(folder: Path) -> None:
    """SIGTERM, two seconds later SIGKILL, to the daemons and to the processes of jobs; then remove the folder."""
    marks = (f"{MARK}={folder}", "SLURM_JOB_ID=")
    begin = time.monotonic()
    targets = processes(folder, *marks)
    kill_all(targets, signal.SIGTERM)
    while alive := {(pid, since) for pid, since in targets if birth(pid) == since} | processes(folder, *marks):
        targets |= alive
        if time.monotonic() > begin + 2:
            kill_all(alive, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)
