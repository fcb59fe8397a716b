"""Loader processes that may hang or die: what each has in hand is known, and a video that takes them along is given up.

torch's DataLoader ends the program where one of its processes dies and waits for ever for one that hangs. Here the loader is made
again and goes on with the batch that is missing; a video in whose hands two processes were lost counts as damaged from then on.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from csn.data.workers import leave_signals
from csn.spec import UserError

LATE = 120.0  # seconds after which a process that reads one video counts as hung
POLL = 5.0  # seconds of waiting for a batch between two looks at the processes
TRIES = 2  # processes that a video may take along; the first may have been killed for another reason, want of memory, say
DYING = 2.0  # seconds that a process may need to die after what it had sent cannot be received any more
IDLE = 12  # looks in a row at which no process has anything in hand and a batch is due: then it got lost on its way
FRUITLESS = 3  # loaders in a row lost with no video in hand and no batch between them: then something else is wrong


class Watch:
    """What every process of a loader has in hand, in memory that all share: its id, the video's index + 1 (0: none), since when."""

    def __init__(self, workers: int) -> None:
        self.table = torch.zeros(workers, 3, dtype=torch.float64).share_memory_()

    def enter(self, worker: int) -> None:
        """What each process runs first."""
        global _own
        leave_signals()
        _own = self.table[worker]
        _own[0] = os.getpid()

    def lost(self) -> list[tuple[int | None, str]]:
        """(index of the video in hand or None, what happened) of every process that is dead or hung; the hung ones are killed."""
        processes = {process.pid: process for process in multiprocessing.active_children()}
        found: list[tuple[int | None, str]] = []
        for pid, video, since in self.table.tolist():
            process = processes.get(int(pid))
            if pid and process is None:
                found.append((int(video) - 1 if video else None, "reading it ended the process"))
            elif process is not None and video and time.monotonic() - since > LATE:
                process.kill()
                found.append((int(video) - 1, f"reading it took longer than {LATE:g} seconds"))
        return found

    def idle(self) -> bool:
        """Whether no process has a video in hand."""
        return not self.table[:, 1].any()

    def end(self) -> None:
        """Kill what is left of the processes: none of them listens to a polite signal."""
        pids = set(self.table[:, 0].tolist())
        for process in multiprocessing.active_children():
            if process.pid in pids:
                process.kill()
                process.join()


_own: torch.Tensor | None = None  # the row of this loader process


@contextmanager
def reading(index: int) -> Iterator[None]:
    """Around the reading of video index of a split; outside of a loader process it does nothing."""
    if _own is None:
        yield
        return
    _own[2] = time.monotonic()  # one clock for all processes of a machine
    _own[1] = index + 1
    try:
        yield
    finally:  # not where the process dies
        _own[1] = 0


class Sent(Dataset[Any]):
    """The items of a data set, an error of a person as an item: raised in a loader process it would arrive as a traceback."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.data[key]
        except UserError as error:
            return error


def watched(loader_from: Callable[[int, Watch], DataLoader[Any]], workers: int, videos: Sequence[str], given_up: MutableMapping[str, str]) -> Iterator[Any]:
    """The batches of a loader, whatever becomes of its processes. loader_from(n, watch): a loader of what follows the first n
    batches, its items Sent, its `workers` processes entering watch, its timeout POLL.

    videos: ids, by the index that `reading` is given. given_up: {id: why}; a video that twice took its process along is added, and
    readers are to treat it as damaged. Raises the UserError that an item is; RuntimeError where processes die with no
    video in hand, again and again, or where a batch does not arrive though they have nothing to do.
    """
    done, fruitless, idle, taken = 0, 0, 0, Counter[int]()
    while True:
        watch = Watch(workers)
        try:
            batches = unsignalled(loader_from(done, watch))
            lost: list[tuple[int | None, str]] = []
            while not lost:
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                except (RuntimeError, OSError, EOFError) as error:
                    lost, late = watch.lost(), "timed out" in str(error)
                    until = time.monotonic() + DYING
                    while not (lost or late) and time.monotonic() < until:  # its pipe may end before it does
                        time.sleep(0.05)
                        lost = watch.lost()
                    if (not lost and not late) or (fruitless == FRUITLESS and lost and all(index is None for index, _ in lost)):
                        raise
                    idle = idle + 1 if watch.idle() and not lost else 0
                    if idle == IDLE:
                        why = f"a batch got lost between the loader processes and this one ({error}); open files may have run out (ulimit -n)"
                        why += ", or shared memory (df /dev/shm)"
                        raise RuntimeError(why) from error
                    continue
                if isinstance(batch, UserError):
                    raise batch
                yield batch
                done, fruitless, idle = done + 1, 0, 0
        finally:
            watch.end()
        fruitless += all(index is None for index, _ in lost)
        for index, what in lost:
            if index is not None:
                taken[index] += 1
                if taken[index] == TRIES:
                    given_up[videos[index]] = f"{what}, {TRIES} times."
                    print(f"warning: {videos[index]} counts as damaged: {given_up[videos[index]]}", file=sys.stderr, flush=True)


def unsignalled(loader: DataLoader[Any]) -> Iterator[Any]:
    """An iterator of loader without torch's handler of SIGCHLD, which raises wherever the program is when a loader process dies.

    Its processes are forks and leave alone what lies in memory here: a decoder's remains, freed there, wait for threads that they lack.
    """
    before = signal.getsignal(signal.SIGCHLD)
    gc.collect()
    gc.freeze()
    try:
        return iter(loader)
    finally:
        gc.unfreeze()
        if threading.current_thread() is threading.main_thread():  # else torch sets none
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
