"""Worker processes that may hang or die: each has one file in hand, with a time by which it must be done. And processes that end with another."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from csn.spec import UserError

RENEWED = 500  # files after which a worker is replaced, so that what a decoder forgets to free stays small
DIED = "reading it ended the process"
Work = Callable[[str], Any]  # what is done with a path; its result is no text


def end_with(parent: int, by: signal.Signals = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when its parent ends, kill -9 included: else its work goes on, which nobody looks after."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, by)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before
            os.kill(os.getpid(), by)


def leave_signals() -> None:
    """Leave signals to the process that this one serves: a cluster and a terminal send them to both, and a process that dies looks like a crash."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def serve_alone(parent: int) -> None:
    """What a process of a pool does first: it ends with its parent, and by nothing else that is asked of both."""
    leave_signals()
    end_with(parent, signal.SIGKILL)


def refuse_while_starting(what: str) -> None:
    """Raise UserError in a process that is still being started by multiprocessing.

    Each of a pool reads a script anew, so the calls of a script without a main block come again in it, while the one that starts it waits.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(f"{what} by several processes, which read your script anew; put its calls below `if __name__ == '__main__':`.")


def serve(work: Work, pipe: Connection) -> None:
    """What a worker process does: "ready", then a result for every path until None comes."""
    pipe.send("ready")
    while (path := pipe.recv()) is not None:
        try:
            pipe.send(work(path))
        except Exception as error:
            pipe.send(f"the check failed: {type(error).__name__}: {error}")


class Worker:
    """A process with a pipe and at most one file in hand, with the time by which it must be done."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(work, theirs), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))  # Ctrl-C at a terminal is for the process that it serves, which ends it
        self.process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the end of the process is seen as the end of the pipe
        self.path, self.deadline, self.served = "", 0.0, 0

    def give(self, path: str, seconds: float) -> None:
        if not self.served:
            self.pipe.recv()  # the imports of a new process are not the file's time
        self.pipe.send(path)
        self.path, self.deadline, self.served = path, time.monotonic() + seconds, self.served + 1

    def take(self) -> Any:
        """What came of the file; a text where the process is late or dead, and then the process is dead."""
        if self.pipe.poll():
            try:
                return self.pipe.recv()
            except (EOFError, OSError):
                self.process.join()
                return f"{DIED} (exit code {self.process.exitcode})."
        self.process.kill()
        return "reading it took longer than the time limit."

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Pool:
    """Workers that may hang or die."""

    def __init__(self, work: Work, count: int, limit: Callable[[str], float]) -> None:
        """limit: seconds for a path."""
        self.work, self.limit = work, limit
        self.workers = [Worker(work) for _ in range(count)]

    def run(self, paths: list[str]) -> Iterator[tuple[str, Any]]:
        """Each path with the result of work, or with a text where the worker was late or died; in the order they end.

        A worker may die of what an earlier file left in it: only a death with the first file in hand tells of the file, which else
        goes to a new worker.
        """
        waiting = list(reversed(paths))
        busy = [self.hand(worker, waiting.pop()) for worker in list(self.workers)]
        while busy:
            left = min(worker.deadline for worker in busy) - time.monotonic()
            ready = wait([worker.pipe for worker in busy], timeout=max(left, 0))
            now = time.monotonic()
            for worker in [w for w in busy if w.pipe in ready or w.deadline <= now]:
                busy.remove(worker)
                path, result, again = worker.path, worker.take(), False
                if isinstance(result, str) and result.startswith(DIED) and worker.served > 1:
                    waiting.append(path)
                    again = True
                if waiting:
                    worn = isinstance(result, str) or worker.served >= RENEWED
                    busy.append(self.hand(self.renewed(worker) if worn else worker, waiting.pop()))
                if not again:
                    yield path, result

    def hand(self, worker: Worker, path: str) -> Worker:
        """The worker that has the file now: a new one where this one has died since its last answer."""
        try:
            worker.give(path, self.limit(path))
        except (EOFError, OSError):
            worker = self.renewed(worker)
            try:
                worker.give(path, self.limit(path))
            except (EOFError, OSError):
                raise UserError("A process that reads videos ended before it began (out of memory, or as its own output says); mend that first.") from None
        return worker

    def renewed(self, worker: Worker) -> Worker:
        """A new worker in the place of this one."""
        self.workers.remove(worker)
        worker.end()
        self.workers.append(Worker(self.work))
        return self.workers[-1]

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
