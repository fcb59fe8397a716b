"""Decoders that crash or hang in loader processes: the run goes on, with the same batches as if the video were damaged."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_videos import write
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

import csn
from csn.data import Sample, Split, loader, watched
from csn.data.loader import Batch, Reader, train_batches
from csn.data.media import listing
from csn.data.video import VideoError, decode
from csn.data.watched import Sent, Watch
from csn.evaluate import evaluate
from csn.recipes import SMOKE
from csn.spec import Run, UserError, Variant, VideoSet
from csn.train import Place, train

RECIPE = replace(SMOKE, data=VideoSet(kind="folder", classes=2), resize=(36, 44), clips_per_epoch=32, batch=8, micro_batch=4, epochs=1, warmup=0)
BAD = "07.mp4"


class Striking(Reader):
    """A Reader to whom something happens at one video."""

    def __init__(self, strike: Callable[[], None], video: str = BAD) -> None:
        super().__init__()
        self.strike, self.video = strike, video

    def frames(self, sample: Sample, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        if sample.video == self.video:
            self.strike()
        return super().frames(sample, indices)


def damaged() -> None:
    raise VideoError(BAD, "it is damaged.")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    while True:
        time.sleep(60)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    for i in range(24):
        write(tmp_path / "videos" / f"{i:02d}.mp4", 12, (40, 40), preset="ultrafast")
    root = tmp_path / "videos"
    return Split(tuple(Sample(root / name, (i % 2,), name) for i, name in enumerate(listing(root))), ("a", "b"))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LATE", 1.0)
    monkeypatch.setattr(watched, "POLL", 0.2)
    monkeypatch.setattr(loader, "POLL", 0.2)
    monkeypatch.setattr(watched, "IDLE", 300)  # a minute still: processes may start slowly


def batches(split: Split, reader: Reader, workers: int) -> list[Batch]:
    return list(train_batches(split, RECIPE, 0, 0, reader, workers=workers))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2] == b[2] for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("strike", [crash, hang])
def test_training_goes_on_as_with_a_damaged_video(split: Split, strike: Callable[[], None], workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The 32 clips of the epoch meet it at least once; it takes two processes along, then it is not touched again."""
    expected = batches(split, Striking(damaged), workers)
    assert sum(names.count(BAD) for *_, names in expected) >= 1
    reader = Striking(strike)
    assert same(batches(split, reader, workers), expected)
    what = "ended the process" if strike is crash else "took longer than 1 seconds"
    assert reader.given_up == {BAD: f"reading it {what}, 2 times."}
    assert f"warning: {BAD} counts as damaged: reading it {what}, 2 times." in capfd.readouterr().err


class Silent(DataLoader[Any]):
    """A loader from which nothing arrives. busy: looks at which its process has a video in hand."""

    def __init__(self, watch: Watch, busy: set[int]) -> None:
        super().__init__(Sent([]))  # type: ignore[arg-type]
        self.watch, self.busy, self.looks = watch, busy, 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        self.looks += 1
        self.watch.table[0, 1:] = torch.tensor([float(self.looks in self.busy), time.monotonic()])
        raise RuntimeError("DataLoader timed out after 5 seconds")


@pytest.mark.parametrize(("busy", "looks"), [(set(), watched.IDLE), ({3}, 3 + watched.IDLE)], ids=["idle", "busy once"])
def test_a_batch_that_got_lost_is_not_waited_for(busy: set[int], looks: int) -> None:
    """As where the thread that pins memory ends, and the processes have read all they may read ahead."""
    made: list[Silent] = []

    def silent(_: int, watch: Watch) -> Silent:
        made.append(Silent(watch, busy))
        return made[-1]

    with pytest.raises(RuntimeError, match=r"a batch got lost .*timed out.* open files may have run out"):
        list(watched.watched(silent, 1, ["a"], {}))
    assert [one.looks for one in made] == [looks]


class Collecting(Reader):
    """A Reader in whose process Python tidies up."""

    def frames(self, sample: Sample, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        gc.collect()
        return super().frames(sample, indices)


@pytest.mark.usefixtures("hasty")
def test_what_a_decoder_left_before_does_not_stop_a_loader_process(split: Split) -> None:
    """A frame in a cycle, with the conversion's threads: freed in a fork it would wait for them for ever."""
    expected, reader = batches(split, Reader(), 1), Collecting()
    gc.disable()  # but for what the reader does, with a video in hand
    frame = next(decode(write(split.samples[0].path.parent.parent / "large.mp4", 1, (720, 1280), preset="ultrafast")))
    cycle: list[Any] = [frame]
    frame.to_ndarray(format="rgb24", threads=4)
    cycle.append(cycle)
    del cycle, frame
    try:
        assert same(batches(split, reader, 1), expected) and not reader.given_up
    finally:
        gc.enable()


@pytest.mark.usefixtures("hasty")
def test_one_lost_process_costs_no_video(split: Split, tmp_path: Path) -> None:
    """As when memory ran out once, or a disk stood still for a while."""
    flag = tmp_path / "struck"

    def once() -> None:
        if not flag.exists():
            flag.touch()
            crash()

    reader = Striking(once)
    assert same(batches(split, reader, 2), batches(split, Reader(), 2)) and flag.exists() and not reader.given_up


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("strike", [crash, hang])
def test_such_a_video_is_a_miss_in_the_test(split: Split, strike: Callable[[], None]) -> None:
    recipe = replace(RECIPE, test_clips=2)
    torch.manual_seed(0)
    net = csn.build(Variant(block="simple", depth=18, width=4, pool1=False), 2, 4)
    expected = evaluate(net, split, recipe, Striking(damaged), torch.device("cpu"), workers=2)
    scores = evaluate(net, split, recipe, Striking(strike), torch.device("cpu"), workers=2)
    assert scores.damaged == expected.damaged == (BAD,)
    np.testing.assert_array_equal(scores.probs, expected.probs)
    assert np.isnan(scores.probs[7]).all() and np.isfinite(np.delete(scores.probs, 7, 0)).all()


@pytest.mark.usefixtures("hasty")
def test_a_whole_run_names_it(split: Split, tmp_path: Path) -> None:
    """The process that trains is disturbed nowhere, also not by torch's own handler of lost processes."""
    run = Run(variant=Variant(block="simple", depth=18, width=8), recipe=RECIPE, seed=0)
    before = signal.getsignal(signal.SIGCHLD)
    nets = [train(run, split, Striking(strike), tmp_path / name, Place(workers=2)) for strike, name in ((damaged, "a"), (crash, "b"))]
    assert [trained.damaged for trained in nets] == [[BAD], [BAD]] and signal.getsignal(signal.SIGCHLD) == before
    states = [trained.net.state_dict() for trained in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.usefixtures("hasty")
def test_more_than_five_per_cent_of_such_videos_end_the_run(split: Split) -> None:
    class All(Striking):
        def frames(self, sample: Sample, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
            self.strike()
            return super().frames(sample, indices)

    with pytest.raises(UserError, match="2 of 24 videos are damaged, more than 5%"):
        batches(split, All(crash), 1)


def test_an_error_of_a_person_in_a_loader_process_stays_one_sentence(split: Split) -> None:
    recipe = replace(RECIPE, data=VideoSet(kind="folder", classes=4), resize=None, crop=96)
    for workers in (0, 2):
        with pytest.raises(UserError) as caught:
            list(train_batches(split, recipe, 0, 0, Reader(), workers=workers))
        first, why = str(caught.value).split(" The last: ")
        assert first.startswith("2 of 24 videos are damaged, more than 5%; ")
        assert why.split(" cannot be read: ")[0] in {f"Video {sample.path}" for sample in split.samples}
        assert why.endswith(": `crop` (=96) is larger than its frames of 40 x 40; take it out, or have the recipe `resize` or crop less.")
        assert not any(readable for *_, readable in loader.test_videos(split, replace(recipe, test_crop=96), Reader(), workers=workers))


class Dying(Dataset[int]):
    """Ends its process with no video in hand."""

    def __getitem__(self, key: int) -> int:
        os._exit(3)


class DyingOnce(Dataset[int]):
    """Ends its process at the first call for every item, with no video in hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, key: int) -> int:
        if not (flag := self.folder / str(key)).exists():
            flag.touch()
            os._exit(3)
        return key


class Faulty(Dataset[int]):
    def __getitem__(self, key: int) -> int:
        raise RuntimeError("a fault of the program")


@pytest.mark.usefixtures("hasty")
def test_what_no_video_explains_is_not_tried_for_ever() -> None:
    made = []

    def loader_from(data: Dataset[int]) -> Callable[[int, Watch], DataLoader[Any]]:
        def make(done: int, watch: Watch) -> DataLoader[Any]:
            made.append(done)
            return DataLoader(Sent(data), batch_size=None, sampler=range(4), num_workers=1, worker_init_fn=watch.enter, timeout=0.2)

        return make

    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(watched.watched(loader_from(Dying()), 1, [], {}))
    assert made == [0] * (watched.FRUITLESS + 1)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        list(watched.watched(loader_from(Faulty()), 1, [], {}))


@pytest.mark.usefixtures("hasty")
def test_processes_lost_with_batches_between_end_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of days more of them die than may die in a row."""
    monkeypatch.setattr(watched, "FRUITLESS", 1)
    made = []

    def make(done: int, watch: Watch) -> DataLoader[Any]:
        made.append(done)
        # one item ahead: the next one is begun when the one before has arrived
        return DataLoader(Sent(DyingOnce(tmp_path)), None, sampler=range(done, 3), num_workers=1, prefetch_factor=1, worker_init_fn=watch.enter, timeout=0.2)

    assert list(watched.watched(make, 1, [], {})) == [0, 1, 2]
    assert made == [0, 0, 1, 2]
