"""What the built-in sets share: a drawn video becomes an H.264 file, the files a data set, the data set an array in memory.

A set is its class names and a function that draws video `index` of a split from (seed, split, index) alone, so any file
can be made again by itself. Files have no B-frames and one closed group of pictures, which every decoder seeks in exactly.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from csn.data import Sample, Split
from csn.data.video import VideoError, VideoPlan, read_frames
from csn.data.workers import refuse_while_starting, serve_alone
from csn.files import held, write_atomic
from csn.spec import Embedded, UserError

SPLITS = ("train", "test")
Progress = Callable[[int, int], None]  # called with (done, in all)


@dataclass(frozen=True)
class EmbeddedSet:
    """A built-in set. classes: names; the class of a video is its index modulo their number, so splits are balanced.

    draw: (spec, split, index) -> uint8 (frames, size, size, 3); a function of a module, for it is sent to processes.
    scenecut: whether the encoder may put a key frame where a picture differs much from the one before, as fast cameras make it.
    (On in MovingDigits only, whose digits are too small for it: to forbid it would change the bytes of files that exist.)
    """

    classes: tuple[str, ...]
    draw: Callable[[Any, str, int], NDArray[np.uint8]]
    scenecut: bool = False

    def relative(self, split: str, index: int) -> str:
        """Path of a video below the data set's folder: split/class/number.mp4."""
        return f"{split}/{self.classes[index % len(self.classes)].replace(' ', '-')}/{index:05d}.mp4"

    def make_one(self, spec: Embedded, folder: Path, job: tuple[str, int]) -> tuple[str, int, str]:
        """Draw and write one video; returns its relative path, size in bytes and SHA-256."""
        name = self.relative(*job)
        write_video(folder / name, self.draw(spec, *job), self.scenecut)
        content = (folder / name).read_bytes()
        return name, len(content), hashlib.sha256(content).hexdigest()

    def make_again(self, spec: Embedded, job: tuple[str, int]) -> str:
        """SHA-256 of a video drawn and encoded once more; nothing is written."""
        return hashlib.sha256(encoded(self.draw(spec, *job), self.scenecut)).hexdigest()

    def make(self, spec: Embedded, root: Path, workers: int = 1, progress: Progress | None = None) -> Path:
        """Write what is missing of the data set below root, with `workers` processes; returns its folder.

        progress is called with (films encoded or already there, in all). The manifest is written last, so a half-written set is
        noticed and completed. Raises UserError where root cannot be written.

        The encoder is not always of one mind: about one film in 2000 comes out with other bytes, several in a row in one process,
        and one film is enough to change every number of every run. So all films are encoded a second time, last ones first, and
        where the two differ new processes encode it until two agree.
        """
        digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:10]
        folder = root / f"{spec.kind}-{digest}"
        wanted = [(split, i) for split in SPLITS for i in range(count(spec, split))]
        known = read_manifest(folder)
        if len(known) == len(wanted) and all(intact(folder, self.relative(*job), known) for job in wanted):
            return folder  # which may be read-only
        with writing(folder):  # a second process waits, then finds the set complete
            known = read_manifest(folder)
            jobs = [job for job in wanted if not intact(folder, self.relative(*job), known)]
            if not jobs and len(known) == len(wanted):
                return folder
            (folder / "manifest.json").unlink(missing_ok=True)
            done = len(wanted) - len(jobs)
            work, disputed = partial(self.make_one, spec, folder), dict[tuple[str, int], set[str]]()
            with processes(workers) as pool:
                for name, size, sha in pool.map(work, jobs, chunksize=16):
                    known[name] = (size, sha)
                    done += 1
                    if progress is not None:
                        progress(done, len(wanted) + len(jobs))
                for job, sha in zip(jobs[::-1], pool.map(partial(self.make_again, spec), jobs[::-1], chunksize=16), strict=True):
                    done += 1
                    if progress is not None:
                        progress(done, len(wanted) + len(jobs))
                    if sha != known[self.relative(*job)][1]:
                        disputed[job] = {sha, known[self.relative(*job)][1]}
            for job, seen in disputed.items():
                known[self.relative(*job)] = self.settle(spec, folder, job, seen)
            files = {name: known[name] for name in (self.relative(*job) for job in wanted)}
            text = json.dumps({"spec": asdict(spec), "fingerprint": fingerprint(files), "files": files}, indent=0)
            write_atomic(folder / "manifest.json", text.encode(), remedy="free space or give another --data folder")
        return folder

    def settle(self, spec: Embedded, folder: Path, job: tuple[str, int], seen: set[str]) -> tuple[int, str]:
        """Write a video anew, each time in a new process, until it is one of those seen; returns its size and SHA-256."""
        while True:
            with processes(1) as pool:
                _, size, sha = pool.submit(self.make_one, spec, folder, job).result()
            if sha in seen:
                return size, sha
            seen.add(sha)

    def decoded(self, spec: Embedded, root: Path, split: str, workers: int = 1, progress: Progress | None = None) -> NDArray[np.uint8]:
        """The decoded videos of a split (V, T, H, W, 3), in order, read-only, mapped from a file that all runs share.

        The file is made once from the videos, beside them, and made again when they change; progress is
        called with (videos decoded, videos in all). Raises UserError.
        """
        folder = self.make(spec, root, workers)
        path = folder / f"{split}-{fingerprint(read_manifest(folder))}.npy"
        if path.exists():  # whole, for it was put there whole
            try:
                return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
            except (ValueError, EOFError):  # copied in part
                with writing(folder):
                    path.unlink(missing_ok=True)
        with writing(folder):
            if not path.exists():
                names = [self.relative(split, i) for i in range(count(spec, split))]
                part = path.with_name(f".{path.name}")
                try:
                    shape = (len(names), spec.frames, spec.size, spec.size, 3)
                    array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
                    with part.open("r+b") as file:  # a full disk says so here, not by a signal when a page is written
                        os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
                    with processes(workers) as pool:
                        for i, video in enumerate(pool.map(partial(read_whole, spec, folder), names, chunksize=32)):
                            array[i] = video
                            if progress is not None:
                                progress(i + 1, len(names))
                    array.flush()
                    part.replace(path)
                except (OSError, VideoError) as error:
                    with suppress(OSError):
                        part.unlink(missing_ok=True)
                    if isinstance(error, VideoError):
                        raise UserError(f"{error} Delete that file: the same command writes it again.") from None
                    raise UserError(f"Cannot write {path} ({error.strerror or error}); free space or give another --data folder.") from None
        frames: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        return frames

    def load(self, spec: Embedded, root: Path, split: str) -> Split:
        """The videos of a split, written first where they are missing. Raises UserError."""
        folder = self.make(spec, root, workers=os.cpu_count() or 1)
        names = [self.relative(split, i) for i in range(count(spec, split))]
        samples = tuple(Sample(folder / name, (i % len(self.classes),), name) for i, name in enumerate(names))
        return Split(samples, self.classes, fingerprint=fingerprint(read_manifest(folder)))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold folder, once no other process does. Raises UserError where it cannot be written, and in a process that is still being started, by
    one that holds it."""
    refuse_while_starting(f"{folder} is made")
    with held(folder, wait=True, option="--data"):
        yield


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that end with this one, whose waiting work is dropped where the block ends by an error or an interrupt.

    Raises UserError where one of them ends by itself.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=serve_alone, initargs=(os.getpid(),)) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise UserError(
                "A process that writes or reads videos ended (out of memory, or as its own output says); mend that and run the same command again to go on."
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def count(spec: Embedded, split: str) -> int:
    """Videos of a split."""
    return spec.train if split == "train" else spec.test


def write_video(path: Path, frames: NDArray[np.uint8], scenecut: bool = True) -> None:
    """Write (T, H, W, 3) as H.264 in mp4, whole or not at all; raises UserError when the disk refuses. scenecut: see EmbeddedSet."""
    write_atomic(path, encoded(frames, scenecut), durable=False, remedy="free space or give another --data folder")


def encoded(frames: NDArray[np.uint8], scenecut: bool) -> bytes:
    """One attempt at the film of frames (T, H, W, 3), as H.264 in mp4."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        once = {} if scenecut else {"sc_threshold": "0"}
        stream.options = {"crf": "12", "preset": "veryfast", "bf": "0", "g": "64", "threads": "1", **once}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def fingerprint(files: dict[str, tuple[int, str]]) -> str:
    """First 16 hex digits of the SHA-256 over every file's name and SHA-256."""
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, (_, sha) in sorted(files.items())).encode()).hexdigest()[:16]


def read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """{relative path: (bytes, SHA-256)}; empty when there is no readable manifest."""
    try:
        return {name: (size, sha) for name, (size, sha) in json.loads((folder / "manifest.json").read_text())["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def intact(folder: Path, name: str, known: dict[str, tuple[int, str]]) -> bool:
    """Whether a file is on disk as the manifest says (its size; the content is trusted)."""
    try:
        return name in known and (folder / name).stat().st_size == known[name][0]
    except OSError:
        return False


def read_whole(spec: Embedded, folder: Path, name: str) -> NDArray[np.uint8]:
    """All frames of a video (T, H, W, 3), through the one door. Raises VideoError."""
    plan = VideoPlan(spec.frames, spec.size, spec.size, 25.0, "pyav")
    return read_frames(folder / name, range(spec.frames), plan)
