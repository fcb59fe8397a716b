"""MovingDigits: handwritten digits under one of 8 motions, over texture, as real H.264 files. 80 classes.

The handwriting is scikit-learn's bundled digits (1797 samples, 8 x 8 pixels; UCI optical recognition of handwritten
digits). A class is digit x motion, so one frame is not enough, and motion alone is not enough. Train and test share no
handwriting sample. Every video is drawn from (seed, split, index) alone, so any file can be made again by itself.

Files have no B-frames and one closed group of pictures, which every decoder seeks in exactly.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from csn.data import Sample, Split
from csn.data.video import VideoPlan, read_frames
from csn.spec import MovingDigits, UserError

MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "grow", "shrink")
CLASSES = tuple(f"{digit} {motion}" for digit in range(10) for motion in MOTIONS)
SPLITS = ("train", "test")
GLYPH = 24.0  # side of a digit, pixels of a 40-pixel frame, before its random scale
SPEED = 1.0  # pixels a frame, of a 40-pixel frame
TURN = 5.5  # degrees a frame
ZOOM = 1.055  # factor a frame


@cache
def handwriting(split: str) -> tuple[NDArray[np.float64], ...]:
    """Ten arrays (n, 8, 8) in 0..1, one a digit: the samples of this split, 70 % of each digit's for train."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    parts = []
    for digit in range(10):
        images = bundle.images[bundle.target == digit] / 16.0
        cut = int(len(images) * 0.7)
        parts.append(images[:cut] if split == "train" else images[cut:])
    return tuple(parts)


def draw(spec: MovingDigits, split: str, index: int) -> NDArray[np.uint8]:
    """Video `index` of a split: (frames, size, size, 3). Its class is index modulo 80."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    digit, motion = divmod(index % len(CLASSES), len(MOTIONS))
    pool = handwriting(split)[digit]
    glyph = np.pad(pool[rng.integers(len(pool))], 2)  # 12 x 12: room for the spline to fall to 0
    n, size = spec.frames, spec.size
    unit = size / 40.0
    texture = gaussian_filter(rng.normal(size=(size, size)), 2 * unit)
    background = rng.uniform(40, 130) + rng.normal(0, 15, size=3) + texture[:, :, None] * (spec.texture / texture.std())
    offset = rng.uniform(60, 110) + rng.normal(0, 15, size=3)  # the digit is lighter than what is behind it
    time = np.arange(n) - (n - 1) / 2
    path = np.zeros((n, 2))
    angle = np.full(n, rng.uniform(-12, 12))
    scale = np.full(n, rng.uniform(0.9, 1.15))
    rate = rng.uniform(0.8, 1.2)
    match MOTIONS[motion]:
        case "left" | "right" | "up" | "down" as way:
            axis, sign = (1, -1 if way == "left" else 1) if way in ("left", "right") else (0, -1 if way == "up" else 1)
            path[:, axis] = sign * rate * SPEED * unit * time
        case "clockwise" | "anticlockwise" as way:
            angle += (1 if way == "clockwise" else -1) * rate * TURN * time
        case way:
            scale *= ZOOM ** ((1 if way == "grow" else -1) * rate * time)
    path += size / 2 - 0.5 + rng.uniform(-5, 5, size=2) * unit
    frames = np.empty((n, size, size, 3))
    for t in range(n):
        turn, pixel = np.deg2rad(angle[t]), 8.0 / (GLYPH * unit * scale[t])
        matrix = pixel * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        mask = affine_transform(glyph, matrix, np.array([5.5, 5.5]) - matrix @ path[t], (size, size), order=1)
        frames[t] = background + np.clip(mask, 0, 1)[:, :, None] * offset
    frames += rng.normal(0, spec.noise, size=frames.shape)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write (T, H, W, 3) as H.264 in mp4, whole or not at all; raises UserError when the disk refuses."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(part), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
            stream.options = {"crf": "12", "preset": "veryfast", "bf": "0", "g": "64", "threads": "1"}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path} ({error.strerror or error}); free space or give another --data folder.") from None


def relative(split: str, index: int) -> str:
    """Path of a video below the data set's folder: split/class/number.mp4."""
    return f"{split}/{CLASSES[index % len(CLASSES)].replace(' ', '-')}/{index:05d}.mp4"


def make_one(spec: MovingDigits, folder: Path, job: tuple[str, int]) -> tuple[str, int, str]:
    """Draw and write one video; returns its relative path, size in bytes and SHA-256."""
    name = relative(*job)
    write_video(folder / name, draw(spec, *job))
    content = (folder / name).read_bytes()
    return name, len(content), hashlib.sha256(content).hexdigest()


def make(spec: MovingDigits, root: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write what is missing of the data set below root, with `workers` processes; returns its folder.

    progress is called with (videos present, videos in all). The manifest is written last, so a half-written set is
    noticed and completed. Raises UserError where root cannot be written.
    """
    digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:10]
    folder = root / f"moving-digits-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"Cannot write the data folder {root} ({error.strerror}); give another with --data.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, then finds the set complete
        known = read_manifest(folder)
        wanted = [(split, i) for split in SPLITS for i in range(spec.train if split == "train" else spec.test)]
        jobs = [job for job in wanted if not intact(folder, relative(*job), known)]
        if not jobs and len(known) == len(wanted):
            return folder
        (folder / "manifest.json").unlink(missing_ok=True)
        done = len(wanted) - len(jobs)
        work = partial(make_one, spec, folder)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for name, size, sha in pool.map(work, jobs, chunksize=16):
                known[name] = (size, sha)
                done += 1
                if progress is not None:
                    progress(done, len(wanted))
        files = {name: known[name] for name in (relative(*job) for job in wanted)}
        text = json.dumps({"spec": asdict(spec), "fingerprint": fingerprint(files), "files": files}, indent=0)
        (folder / ".manifest").write_text(text)
        (folder / ".manifest").replace(folder / "manifest.json")
    return folder


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


def read_whole(spec: MovingDigits, folder: Path, name: str) -> NDArray[np.uint8]:
    """All frames of a video (T, H, W, 3), through the one door. Raises VideoError."""
    plan = VideoPlan(spec.frames, spec.size, spec.size, 25.0, "pyav")
    return read_frames(folder / name, range(spec.frames), plan)


def decoded(
    spec: MovingDigits, root: Path, split: str, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.uint8]:
    """The decoded videos of a split (V, T, H, W, 3), in order, read-only, mapped from a file that all runs share.

    The file is made once from the videos, beside them, and made again when they change; progress is
    called with (videos decoded, videos in all). Raises UserError.
    """
    folder = make(spec, root, workers)
    print_of_files = fingerprint(read_manifest(folder))
    path = folder / f"{split}-{print_of_files}.npy"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            names = [relative(split, i) for i in range(spec.train if split == "train" else spec.test)]
            part = path.with_name(f".{path.name}")
            try:
                shape = (len(names), spec.frames, spec.size, spec.size, 3)
                array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
                with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                    for i, video in enumerate(pool.map(partial(read_whole, spec, folder), names, chunksize=32)):
                        array[i] = video
                        if progress is not None:
                            progress(i + 1, len(names))
                array.flush()
                part.replace(path)
            except OSError as error:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                raise UserError(f"Cannot write {path} ({error.strerror or error}); free space or give another --data folder.") from None
    frames: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return frames


def load(spec: MovingDigits, root: Path, split: str) -> Split:
    """The videos of a split, written first where they are missing. Raises UserError."""
    folder = make(spec, root, workers=os.cpu_count() or 1)
    count = spec.train if split == "train" else spec.test
    names = [relative(split, i) for i in range(count)]
    samples = tuple(Sample(folder / name, (i % len(CLASSES),), name) for i, name in enumerate(names))
    return Split(samples, CLASSES, fingerprint=fingerprint(read_manifest(folder)))
