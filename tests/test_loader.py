"""From files to clips and views: odd videos, damage, frame rates, the memory of the test, the fully convolutional test."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_sets import put
from made_videos import write, write_folder
from numpy.typing import NDArray
from torch import Tensor, nn

import csn
from csn import evaluate as evaluation
from csn.data import Sample, Split, loader
from csn.data.__main__ import main
from csn.data.loader import Reader, TrainClips, load, normalise
from csn.data.media import listing
from csn.data.scan import read_index, scan
from csn.evaluate import evaluate
from csn.recipes import SMOKE
from csn.resnet3d import fully_convolutional
from csn.spec import UserError, Variant, VideoSet

RECIPE = replace(SMOKE, data=VideoSet(kind="folder", classes=2), resize=(36, 44), mirror=True, test_crops=3, clips_per_epoch=32)
ODD_ONES = {
    "one.mp4": {"frames": 1}, "gray.mp4": {"pixels": "gray"}, "odd.mp4": {"size": (65, 97), "pixels": "yuv444p"}, "444.mp4": {"pixels": "yuv444p"},
    "10bit.mp4": {"pixels": "yuv420p10le"}, "tiny.mp4": {"size": (2, 2)}, "wide.mp4": {"size": (16, 400), "frames": 6}, "tall.mp4": {"size": (400, 16)},
    "huge.mp4": {"size": (2160, 4096), "frames": 2}, "vfr.mp4": {"times": [0, 1, 2, 40, 41, 90], "frames": 6}, "b.avi": {"codec": "mpeg4", "bf": "2"},
}  # fmt: skip


def split_of(root: Path, count: int | None = None) -> Split:
    """The videos below root, of classes 0 and 1 in turn."""
    names = listing(root)[:count]
    return Split(tuple(Sample(root / name, (i % 2,), name) for i, name in enumerate(names)), ("a", "b"))


def test_odd_videos_give_clips_and_views_like_any_other(tmp_path: Path) -> None:
    for name, options in ODD_ONES.items():
        write(tmp_path / name, **({"preset": "ultrafast"} if "codec" not in options else {}), **{"frames": 12, **options})
    write_folder(tmp_path / "pictures", frames=3)
    split = split_of(tmp_path)
    assert len(split.samples) == len(ODD_ONES) + 1
    clips, views = TrainClips(split, RECIPE, 0, Reader()), loader.TestVideos(split, RECIPE, Reader())
    for position in range(len(split.samples)):
        clip, _, damaged = clips[0, position]
        assert clip.shape == (4, 32, 32, 3) and clip.dtype == torch.uint8 and not damaged
        stack, _, readable = views[position]
        assert stack.shape == (6, 4, 32, 32, 3) and readable, split.samples[position].video


def test_a_damaged_video_is_replaced_by_the_next_of_the_split(tmp_path: Path) -> None:
    for i in range(24):
        write(tmp_path / f"{i:02d}.mp4", 12, (40, 40), preset="ultrafast")
    (tmp_path / "07.mp4").write_bytes(b"<html>")
    split = split_of(tmp_path)
    clips = TrainClips(split, RECIPE, 0, Reader())
    position = int(np.flatnonzero(clips.order(0) == 7)[0])
    clip, label, damaged = clips[0, position]
    assert damaged == ["07.mp4"] and label == split.samples[8].labels[0]
    again = TrainClips(split, RECIPE, 0, Reader())[0, position]
    assert torch.equal(again[0], clip) and again[2] == damaged
    whole = [clips[0, k] for k in range(24) if k != position]
    assert not any(names for *_, names in whole)
    (tmp_path / "08.mp4").write_bytes(b"")  # two in a row of 24 are more than 5 %
    with pytest.raises(UserError, match=r"2 of 24 videos are damaged, more than 5%; run `python -m csn.data scan`"):
        TrainClips(split, RECIPE, 0, Reader())[0, position]


def test_too_much_damage_is_an_error_before_training(tmp_path: Path) -> None:
    """The scan knows: nothing is decoded for it. What stays below the limit is told with the missing videos and empty classes."""
    root = tmp_path / "folder"
    for split in ("train", "test"):
        for i in range(20):
            write(root / split / "up" / f"{i}.mp4", 2, (40, 40), preset="ultrafast")
    (root / "train/down").mkdir()
    (root / "train/up/3.mp4").write_bytes(b"<html>")
    scan(root, listing(root))
    train = load(RECIPE, tmp_path, "train")
    assert train.unreadable == ("train/up/3.mp4",) and train.empty == ("down",)
    told = train.told("train")
    assert told[0] == "train: 20 videos of 2 classes, 0 missing, 1 damaged, 0 cut short"
    assert told[1:] == ["warning: train: damaged: train/up/3.mp4", "warning: train: class without a video: down"]
    for i in range(2):
        put(root, f"train/up/{i}.mp4")
    scan(root, listing(root))
    with pytest.raises(UserError, match="3 of 20 videos are damaged, more than 5%"):
        load(RECIPE, tmp_path, "train")
    assert len(load(RECIPE, tmp_path, "test").samples) == 20
    with pytest.raises(UserError, match=r"absent/folder has no index of its videos; run `python -m csn.data scan --dataset folder --root"):
        load(RECIPE, tmp_path / "absent", "train")


def test_videos_that_end_early_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "folder"
    for split in ("train", "test"):
        content = write(root / split / "up" / "cut.mkv", 200, g="12").read_bytes()
        (root / split / "up" / "cut.mkv").write_bytes(content[: len(content) // 2])
    scan(root, listing(root))
    train = load(replace(RECIPE, data=VideoSet(kind="folder", classes=1)), tmp_path, "train")
    assert train.unreadable == () and train.cut == ("train/up/cut.mkv",)
    assert train.told("train") == [
        "train: 1 videos of 1 classes, 0 missing, 0 damaged, 1 cut short",
        "warning: train: 1 of 1 videos are cut short and read as far as they go; was the copy broken off?",
        "warning: train: cut short: train/up/cut.mkv",
    ]
    assert main(["scan", "--dataset", "folder", "--root", str(root), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 videos, 0 damaged, 2 cut short (listed in" in out and "\n".join(train.told("train")) in out  # the counts of the run


def test_videos_without_the_frame_rate_of_the_recipe(tmp_path: Path) -> None:
    """They are not damaged: the recipe does not fit them. A few among many count as damaged ones, which is said."""
    root = tmp_path / "folder"
    for split, films in (("train", 1), ("test", 20)):
        for i in range(films):
            write(root / split / "up" / f"{i:02d}.mp4", 2, (40, 40), preset="ultrafast")
        write_folder(root / split / "up" / "pictures", frames=2)
    scan(root, listing(root))
    recipe = replace(RECIPE, data=VideoSet(kind="folder", classes=1), fps=30.0)
    with pytest.raises(UserError, match=r"`fps` \(=30\) .* 1 of 2 videos of folder train lack \(train/up/pictures\); give the recipe `fps=None`"):
        load(recipe, tmp_path, "train")
    assert load(recipe, tmp_path, "test").unreadable == ("test/up/pictures",)
    assert load(replace(recipe, fps=None), tmp_path, "train").unreadable == ()
    (root / "test/up/pictures").rename(root / "pictures")
    (root / "test/up/07.mp4").write_bytes(b"<html>")
    scan(root, listing(root))
    assert load(recipe, tmp_path, "test").unreadable == ("test/up/07.mp4",)  # what cannot be read is told once, not as without a rate, too


def test_clip_by_clip_gives_the_views_of_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, options in {"a.mp4": {}, "b.avi": {"codec": "mpeg4", "bf": "2"}}.items():
        write(tmp_path / name, 30, (40, 56), **options)
    recipe, read = replace(RECIPE, test_clips=3), list[int]()

    class Noting(Reader):
        def frames(self, sample: Sample, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
            read.append(len(indices))
            return super().frames(sample, indices)

    views = loader.TestVideos(split_of(tmp_path), recipe, Noting())
    whole = [views[i][0] for i in range(2)]
    monkeypatch.setattr(loader, "MOST_BYTES", 4 * 40 * 56 * 3)
    for i in range(2):
        assert torch.equal(views[i][0], whole[i])
    assert max(read[:2]) > 4 and read[2:] == [4] * 6
    large = write(tmp_path / "large" / "l.mp4", 60, (320, 480), preset="ultrafast")
    recipe, split = replace(RECIPE, test_clips=10, crop=32, test_crop=32, resize=None), Split((Sample(large, (0,), "l"),), ("a",))
    reader = Reader()
    reader.length(split.samples[0])  # probed: that reads many frames at a time
    tracemalloc.start()
    loader.TestVideos(split, recipe, reader)[0]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * (4 * 320 * 480 * 3), most  # a few clips of whole frames: a crop does not keep its clip until the last one is read


def test_the_share_of_damage_is_that_of_the_whole_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process may meet all the damaged videos: 2 of its 20 are 2 of 40."""
    for i in range(40):
        put(tmp_path, f"{i:02d}.mp4")
    good = write(tmp_path / "good.mp4", 12, (40, 40), preset="ultrafast").read_bytes()
    (tmp_path / "good.mp4").unlink()
    for i in range(40):
        if i not in (0, 2):
            (tmp_path / f"{i:02d}.mp4").write_bytes(good)
    monkeypatch.setattr(evaluation, "gathered", lambda own, size: own)
    net, split = Counting(), split_of(tmp_path)
    scores = evaluate(net, split, RECIPE, Reader(), torch.device("cpu"), rank=0, size=2)
    assert len(scores.videos) == 20 and scores.damaged == ("00.mp4", "02.mp4")
    (tmp_path / "04.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="3 of 40 videos are damaged"):
        evaluate(net, split, RECIPE, Reader(), torch.device("cpu"), rank=0, size=2)


def test_the_index_of_a_shared_set_lies_beside_a_link_to_it(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    for split in ("train", "test"):
        write(shared / split / "up" / "a.mp4", 12, (40, 40), preset="ultrafast")
    own.mkdir()
    (own / "folder").symlink_to(shared)
    scan(own / "folder", listing(own / "folder"), own / "folder.csn_index.jsonl")
    recipe = replace(RECIPE, data=VideoSet(kind="folder", classes=1))
    splits = {name: load(recipe, own, name) for name in ("train", "test")}
    assert [len(split.samples) for split in splits.values()] == [1, 1] and not list(shared.rglob("*.jsonl"))
    assert loader.TestVideos(splits["test"], recipe, loader.reader_of(recipe, own, splits))[0][2]


def test_training_clips_have_every_size_between_the_two_of_the_recipe() -> None:
    """A ramp of 2 levels a pixel in frames of 48 x 96: with the short side s it is 96 / s."""
    film = np.broadcast_to((20 + 2 * np.arange(96))[:, None], (9, 48, 96, 3)).astype(np.uint8)
    clips = TrainClips(Split((Sample(Path("a"), (0,), "a"),), ("a", "b")), replace(RECIPE, mirror=False, clips_per_epoch=128), 0, Reader({"a": film}))
    slopes = [np.polyfit(range(32), clips[0, position][0][0, 0, :, 0], 1)[0] for position in range(128)]
    assert {round(96 / slope) for slope in slopes} == set(range(36, 45))


def test_long_lists_of_losses_are_told_short() -> None:
    split = Split((Sample(Path("a"), (0,), "a"),), ("x",), tuple(map(str, range(9))))
    assert split.told("test") == ["test: 1 videos of 1 classes, 9 missing, 0 damaged, 0 cut short", "warning: test: missing: 0, 1, 2, 3, 4 and 4 more"]


def test_every_video_is_seen_at_the_frame_rate_of_the_recipe(tmp_path: Path) -> None:
    fast, slow = write(tmp_path / "fast.mp4", 60, fps=50), write(tmp_path / "slow.mp4", 30, fps=25)
    recipe = replace(RECIPE, fps=25.0, test_clips=1, test_crops=1, frames=4, stride=2)
    stacks = [loader.TestVideos(Split((Sample(path, (0,), path.name),), ("a", "b")), recipe, Reader())[0][0] for path in (fast, slow)]
    shades = [stack[0, :, :4].float().mean((1, 2, 3)) for stack in stacks]  # brightness at the top tells the frames apart
    centre = [torch.tensor([start + step for step in steps]) * 37 % 256 for start, steps in ((23, (0, 4, 8, 12)), (11, (0, 2, 4, 6)))]
    for shade, expected in zip(shades, centre, strict=True):
        assert (shade - expected).abs().max() < 12
    clips = TrainClips(Split((Sample(fast, (0,), "fast"),), ("a", "b")), replace(recipe, resize=(32, 32), mirror=False), 0, Reader())
    for position in range(4):
        shade = clips[0, position][0][:, :4].float().mean((1, 2, 3))
        off = shade - shade[0] - 37 * torch.tensor([0, 4, 8, 12])  # every fourth frame, from wherever the clip begins
        assert ((off + 128) % 256 - 128).abs().max() < 12
    pictures = write_folder(tmp_path / "pictures", frames=9)
    split = Split((Sample(pictures, (0,), "pictures"),), ("a", "b"))
    assert loader.TestVideos(split, recipe, Reader())[0][2] is False  # no frame rate: like a damaged one, and too many of them stop the run
    with pytest.raises(UserError, match="1 of 1 videos are damaged"):
        TrainClips(split, recipe, 0, Reader())[0, 0]


class Counting(nn.Module):
    """A network that notes how many views it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.mean((2, 3, 4))[:, :2]


@pytest.mark.parametrize("bound", [1, 8, 30, 100])
def test_thirty_views_never_meet_on_the_device(tmp_path: Path, bound: int) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.mp4", 12, (40, 56), preset="ultrafast")
    recipe = replace(RECIPE, test_clips=10, test_crops=3, views_per_batch=bound)
    net = Counting()
    scores = evaluate(net, split_of(tmp_path), recipe, Reader(), torch.device("cpu"))
    assert sum(net.seen) == 90 and max(net.seen) <= bound and len(scores.videos) == 3
    assert len(net.seen) <= -(-90 // bound) + 3


def test_the_fully_convolutional_test_uses_a_twin_of_the_network(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.mp4", 12, (72, 90), preset="ultrafast")
    recipe = replace(RECIPE, pool1=False, resize=(64, 72), test_crop=64, test_crops=1, test_clips=1, test_dense=True)
    assert recipe.final_map == 2 and replace(recipe, pool1=True).final_map == 1
    torch.manual_seed(0)
    net = csn.build(Variant(block="simple", depth=18, width=4, pool1=False), 2, 4)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    scores = evaluate(net, split_of(tmp_path), recipe, Reader(), torch.device("cpu"))
    after = net.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], t) for name, t in before.items())
    views, *_ = loader.TestVideos(split_of(tmp_path), recipe, Reader())[0]
    with torch.inference_mode():
        by_hand = fully_convolutional(net.eval(), 2)(normalise(views, recipe))  # (1, K, 3, 3)
    assert by_hand.shape == (1, 2, 3, 3)
    np.testing.assert_allclose(scores.probs[0], by_hand.softmax(1).mean((0, 2, 3)), atol=1e-5)


def test_an_index_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    for name in ("a/0.mp4", "b/1.mp4"):
        write(root / name, 2, (40, 40))
    scan(root, listing(root))
    assert len(load(RECIPE, tmp_path, "train").samples) == 2
    write(root / "b/2.mp4", 2, (40, 40))
    assert len(load(RECIPE, tmp_path, "train").samples) == 2  # as scanned
    scan(root, listing(root))
    assert len(load(RECIPE, tmp_path, "train").samples) == 3 and len(read_index(root).entries) == 3
