"""From a Split to batches: the training stream and the test views of a Recipe.

Every sample's randomness comes from (seed, epoch, position) alone, so workers, world size and interruptions change nothing.
A damaged video, or one smaller than the crop, is replaced in training by the next one of the split, and named; in test it counts as a miss.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from csn.data import MOST_DAMAGED, Sample, Split, sets
from csn.data.scan import Index, index_file, read_index
from csn.data.video import VideoError, VideoPlan, probe, read_frames
from csn.data.views import augment, crops, jittered, uniform
from csn.data.watched import POLL, Sent, Watch, reading, watched
from csn.spec import Embedded, Recipe, UserError, require

MOST_BYTES = 2**28  # of whole frames that a test reads at once: 10 clips of 32 frames of 340 x 256, one of 1920 x 1080
Batch = tuple[Tensor, Tensor, list[str]]  # uint8 (B, T, H, W, 3), labels (B,), names of videos found damaged


def load(recipe: Recipe, root: Path, split: str) -> Split:
    """The videos of "train" or "test" of the Recipe's data set below root. Raises UserError.

    A built-in set is written where it is missing. A public set lies in root/<kind> and was scanned once (python -m csn.data scan);
    when the scan found more than 5 % of the split damaged, without the frame rate that the recipe needs, or smaller than its crop, that is an
    error here, before time is wasted.
    """
    require(split in ("train", "test"), "split", split, "must be train or test")
    if isinstance(recipe.data, Embedded):
        return sets.drawn(recipe.data).load(recipe.data, root, split)
    folder = root / recipe.data.kind
    name = sets.SPLITS[recipe.data.kind][("train", "test").index(split)]
    index = scanned(folder, recipe.data.kind)
    found = index.marked(sets.load(recipe.data, folder, name, list(index.entries)))
    if len(found.unreadable) > MOST_DAMAGED * len(found.samples):
        raise UserError(too_many(len(found.unreadable), len(found.samples)))
    timeless = index.timeless(found) if recipe.fps is not None else ()
    if len(timeless) > MOST_DAMAGED * len(found.samples):
        raise UserError(
            f"`fps` (={recipe.fps:g}) of the recipe needs a frame rate, which {len(timeless)} of {len(found.samples)} videos of {recipe.data.kind} {name}"
            f" lack ({timeless[0]}); give the recipe `fps=None`, which takes the frames as they are, or put the films in place of the pictures."
        )
    side = max(recipe.crop, recipe.test_crop) if split == "train" else recipe.test_crop  # of training videos the fit is tested, too
    small = index.small(found, side) if recipe.resize is None else ()
    if len(small) > MOST_DAMAGED * len(found.samples):
        raise UserError(
            f"`crop` (={side}) of the recipe is larger than the frames of {len(small)} of {len(found.samples)} videos of {recipe.data.kind} {name}"
            f" ({small[0]}); give the recipe `resize`, crop less, or take them out."
        )
    return replace(found, unreadable=tuple(dict.fromkeys(found.unreadable + timeless + small)), small=small)


def scanned(folder: Path, kind: str) -> Index:
    """The index of a scanned folder, read once. Raises UserError with the command that makes it."""
    file = index_file(folder)
    index = _read(folder, file.stat().st_mtime_ns if file.exists() else 0)
    if not index.entries:
        raise UserError(f"{folder} has no index of its videos; run `python -m csn.data scan --dataset {kind} --root {folder}` once.")
    return index


@lru_cache(maxsize=2)
def _read(folder: Path, mtime_ns: int) -> Index:
    return read_index(folder)


class Reader:
    """Frames of a sample through the one door.

    kept: whole videos already decoded, by video id (small sets). plans: how each file is read, from the index of a scan;
    without it every file is probed, once a process. given_up: {video id: why} of those that took loader processes along.
    """

    def __init__(self, kept: Mapping[str, NDArray[np.uint8]] | None = None, plans: Callable[[Path], VideoPlan] = probe) -> None:
        self.kept, self.plans = kept or {}, plans
        self.given_up: dict[str, str] = {}

    def length(self, sample: Sample) -> int:
        """Frames of the video; raises VideoError."""
        if sample.video in self.given_up:
            raise VideoError(sample.path, self.given_up[sample.video])
        if sample.video in self.kept:
            return len(self.kept[sample.video])
        frames = self.plans(sample.path).frames
        if sample.first >= frames:
            raise VideoError(sample.path, f"it has {frames} frames, the list begins after {sample.first}.")
        return min(frames - sample.first, sample.count or frames)

    def bytes(self, sample: Sample, frames: int) -> int:
        """Of so many whole frames of the video; raises VideoError."""
        if sample.video in self.kept:
            return 0  # they are in memory as it is
        plan = self.plans(sample.path)
        return min(frames, plan.frames) * plan.height * plan.width * 3

    def rate(self, sample: Sample, fps: float | None) -> float:
        """Frames per second of the video over fps, 1 where fps is None; raises VideoError where the video has no frame rate."""
        if fps is None:
            return 1.0
        own = self.plans(sample.path).fps
        if own <= 0:
            raise VideoError(sample.path, f"it has no frame rate, and the recipe asks for {fps:g} frames a second.")
        return own / fps

    def frames(self, sample: Sample, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 (n, H, W, 3); raises VideoError."""
        if sample.video in self.kept:
            return self.kept[sample.video][indices]
        return read_frames(sample.path, indices + sample.first, self.plans(sample.path))


def reader_of(recipe: Recipe, root: Path, splits: Mapping[str, Split]) -> Reader:
    """A Reader for these splits by name: a built-in set is decoded once and mapped into memory, real video is read as it comes."""
    if not isinstance(recipe.data, Embedded):
        return Reader(plans=scanned(root / recipe.data.kind, recipe.data.kind).plan)
    kept: dict[str, NDArray[np.uint8]] = {}
    for name, split in splits.items():
        array = sets.drawn(recipe.data).decoded(recipe.data, root, name, os.cpu_count() or 1)
        kept.update({sample.video: array[i] for i, sample in enumerate(split.samples)})
    return Reader(kept)


class TrainClips(Dataset[tuple[Tensor, int, list[str]]]):
    """Training clips by (epoch, position): uint8 (T, crop, crop, 3), label, damaged videos met on the way."""

    def __init__(self, split: Split, recipe: Recipe, seed: int, reader: Reader) -> None:
        self.split, self.recipe, self.seed, self.reader = split, recipe, seed, reader
        self.orders: dict[int, NDArray[np.int64]] = {}

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Video of every position of an epoch: shuffled passes over the split, one after the other."""
        if epoch not in self.orders:
            rng = np.random.default_rng([self.seed, epoch])
            n, need = len(self.split.samples), self.recipe.clips_per_epoch
            passes = [rng.permutation(n) for _ in range(-(-need // n))]
            self.orders = {epoch: np.concatenate(passes)[:need]}
        return self.orders[epoch]

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, list[str]]:
        epoch, position = key
        recipe, samples = self.recipe, self.split.samples
        index, damaged = int(self.order(epoch)[position]), []
        while True:
            sample = samples[index]
            rng = np.random.default_rng([self.seed, epoch, position])  # anew for a replacement, however far the damaged one came
            try:
                with reading(index):
                    indices = jittered(self.reader.length(sample), recipe.frames, recipe.stride, rng, self.reader.rate(sample, recipe.fps))
                    video = self.reader.frames(sample, indices)
                with fitting(sample):
                    clip = augment(video, recipe.crop, recipe.resize, recipe.mirror, rng)
                break
            except VideoError as error:
                damaged.append(sample.video)
                if len(damaged) > MOST_DAMAGED * len(samples):
                    raise UserError(f"{too_many(len(damaged), len(samples))} The last: {error}") from None
                index = (index + 1) % len(samples)
        label = sample.labels[int(rng.integers(len(sample.labels)))]
        return torch.from_numpy(np.ascontiguousarray(clip)), label, damaged


class TestVideos(Dataset[tuple[Tensor, int, bool]]):
    """All views of a video by index: uint8 (N, T, crop, crop, 3), its index, whether it could be read."""

    def __init__(self, split: Split, recipe: Recipe, reader: Reader) -> None:
        self.split, self.recipe, self.reader = split, recipe, reader

    def __getitem__(self, index: int) -> tuple[Tensor, int, bool]:
        try:
            return self.views(index), index, True
        except VideoError:
            side = self.recipe.test_crop
            return torch.zeros((0, self.recipe.frames, side, side, 3), dtype=torch.uint8), index, False

    def views(self, index: int) -> Tensor:
        """All views of a video, uint8 (N, T, crop, crop, 3). Raises VideoError."""
        recipe, sample = self.recipe, self.split.samples[index]
        with reading(index):
            length, rate = self.reader.length(sample), self.reader.rate(sample, recipe.fps)
        indices = uniform(length, recipe.frames, recipe.stride, recipe.test_clips, rate)
        short = recipe.resize[0] if recipe.resize else None
        # all clips in one reading, unless whole frames of all of them would fill the memory of a worker
        once = [np.unique(indices)] if self.reader.bytes(sample, indices.size) <= MOST_BYTES else [np.unique(clip) for clip in indices]
        found, clips_each = [], len(indices) // len(once)
        for k, used in enumerate(once):
            with reading(index):
                video = self.reader.frames(sample, used)
            for clip in indices[k * clips_each : (k + 1) * clips_each]:
                with fitting(sample):
                    views = crops(video[np.searchsorted(used, clip)], recipe.test_crop, short, recipe.test_crops)
                found += [np.ascontiguousarray(view) for view in views] if len(once) > 1 else views  # a part of a frame keeps all of it
        return torch.from_numpy(np.stack(found))


@contextmanager
def fitting(sample: Sample) -> Iterator[None]:
    """Raise VideoError where the frames of the sample are smaller than the crop: a video of no use counts as damaged."""
    try:
        yield
    except UserError as error:
        raise VideoError(sample.path, str(error)) from None


def too_many(damaged: int, videos: int) -> str:
    return (
        f"{damaged} of {videos} videos are damaged, more than {MOST_DAMAGED:.0%}; run `python -m csn.data scan` on the data folder and replace what it lists."
    )


def collate(items: list[Any]) -> Any:
    """The Batch of items of TrainClips; the first UserError among them in place of it."""
    if errors := [item for item in items if isinstance(item, UserError)]:
        return errors[0]
    clips, labels, damaged = zip(*items, strict=True)
    return torch.stack(clips), torch.tensor(labels), [name for names in damaged for name in names]


def keys(recipe: Recipe, step: int, rank: int, size: int) -> Iterator[list[tuple[int, int]]]:
    """(epoch, position) of the micro-batches of this rank from global step `step` to the end of training.

    A step takes `batch` consecutive positions, cut into micro-batches; each rank takes a contiguous block of them, so
    the samples of a step and of each micro-batch are the same whatever the world size.
    """
    share = recipe.batch // size
    for now in range(step, recipe.epochs * recipe.steps_per_epoch):
        epoch, k = divmod(now, recipe.steps_per_epoch)
        first = k * recipe.batch + rank * share
        for start in range(first, first + share, recipe.micro_batch):
            yield [(epoch, position) for position in range(start, start + recipe.micro_batch)]


def readers(reader: Reader, workers: int) -> int:
    """Loader processes: those asked for, and at least one where files are read, which may take the process that reads them along."""
    return workers if reader.kept else max(1, workers)


def train_batches(
    split: Split, recipe: Recipe, seed: int, step: int, reader: Reader, rank: int = 0, size: int = 1, workers: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """The micro-batches from global step `step` on, read by `workers` processes (see `readers`)."""
    data, workers = TrainClips(split, recipe, seed, reader), readers(reader, workers)
    if not workers:
        return iter(DataLoader(data, batch_sampler=keys(recipe, step, rank, size), collate_fn=collate, pin_memory=pin))

    def loader_from(done: int, watch: Watch) -> DataLoader[Any]:
        wanted = islice(keys(recipe, step, rank, size), done, None)
        return DataLoader(Sent(data), batch_sampler=wanted, num_workers=workers, collate_fn=collate, pin_memory=pin, worker_init_fn=watch.enter, timeout=POLL)

    return watched(loader_from, workers, [sample.video for sample in split.samples], reader.given_up)


def test_videos(split: Split, recipe: Recipe, reader: Reader, rank: int = 0, size: int = 1, workers: int = 0) -> Iterator[tuple[Tensor, int, bool]]:
    """The views of every size-th video from rank on: each video once, no padding."""
    data, workers = TestVideos(split, recipe, reader), readers(reader, workers)
    indices = range(rank, len(split.samples), size)
    if not workers:
        return iter(DataLoader(data, batch_size=None, sampler=indices))

    def loader_from(done: int, watch: Watch) -> DataLoader[Any]:
        return DataLoader(Sent(data), batch_size=None, sampler=indices[done:], num_workers=workers, worker_init_fn=watch.enter, timeout=POLL)

    return watched(loader_from, workers, [sample.video for sample in split.samples], reader.given_up)


def normalise(clips: Tensor, recipe: Recipe) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float (B, 3, T, H, W) on the same device, (x / 255 - mean) / std; channels_last_3d in memory."""
    mean, scale = _mean_and_scale(recipe.mean, recipe.std, clips.device)
    return ((clips.float() - mean) * scale).permute(0, 4, 1, 2, 3)


@lru_cache(maxsize=8)
def _mean_and_scale(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """255 mean and 1 / (255 std), (3,) each, made once a device: making them there waits for all that a GPU still has to do."""
    with torch.inference_mode(False):  # the test may come first, and training uses them too
        return torch.tensor(mean, device=device) * 255, 1 / (torch.tensor(std, device=device) * 255)
