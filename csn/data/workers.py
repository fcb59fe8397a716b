"""Worker processes that may hang or die: each has one file in hand, with a time by which it must be done."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

RENEWED = 500  # files after which a worker is replaced, so that what a decoder forgets to free stays small
Work = Callable[[str], Any]  # what is done with a path; its result is no text


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
        self.process.start()
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
            except EOFError:
                self.process.join()
                return f"reading it ended the process (exit code {self.process.exitcode})."
        self.process.kill()
        return "reading it took longer than the time limit."

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Pool:
    """Workers that may hang or die."""

    def __init__(self, work: Work, count: int, seconds: float) -> None:
        self.work, self.seconds = work, seconds
        self.workers = [Worker(work) for _ in range(count)]

    def run(self, paths: list[str]) -> Iterator[tuple[str, Any]]:
        """Each path with the result of work, or with a text where the worker was late or died; in the order they end."""
        waiting = list(reversed(paths))
        for worker in self.workers:
            worker.give(waiting.pop(), self.seconds)
        busy = list(self.workers)
        while busy:
            left = min(worker.deadline for worker in busy) - time.monotonic()
            ready = wait([worker.pipe for worker in busy], timeout=max(left, 0))
            now = time.monotonic()
            for worker in [w for w in busy if w.pipe in ready or w.deadline <= now]:
                busy.remove(worker)
                path, result = worker.path, worker.take()
                if waiting:
                    if isinstance(result, str) or worker.served >= RENEWED:
                        self.workers.remove(worker)
                        worker.end()
                        worker = Worker(self.work)
                        self.workers.append(worker)
                    worker.give(waiting.pop(), self.seconds)
                    busy.append(worker)
                yield path, result

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
