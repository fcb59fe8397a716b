"""Photos: what is read is what was drawn, motions are what they say, train and test share no pixel, a half-made set is completed."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from csn.data import photos
from csn.data.embedded import SPLITS, read_manifest
from csn.data.loader import load
from csn.data.photos import MOTIONS, PHOTOS, SETS, draw, picture, shoot, tiles
from csn.data.video import probe, read_frames
from csn.execute import execute
from csn.recipes import PHOTO, SMALL, SMOKE
from csn.spec import Photos, Run, UserError, Variant

SPEC = Photos(train=80, test=80, frames=10)
SET = SETS[SPEC.classes]
QUIET = Photos(train=80, test=80, frames=7, noise=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SET.make(SPEC, tmp_path_factory.mktemp("photos"), workers=2)


@pytest.mark.parametrize("index", [1, 10, 21, 37, 46, 55, 70, 79])
def test_what_is_read_is_what_was_drawn(folder: Path, index: int) -> None:
    """Each frame read differs from the frame drawn by coding noise only, less than from its neighbours."""
    path, drawn = folder / SET.relative("train", index), draw(SPEC, "train", index).astype(float)
    assert probe(path).reader == "decord"
    read = read_frames(path, range(SPEC.frames)).astype(float)
    assert read.shape == drawn.shape == (10, 40, 40, 3)
    # in grey: the files store colour, and the noise in it, at half the resolution
    distance = np.abs(read.mean(3)[:, None] - drawn.mean(3)[None]).mean((2, 3))
    assert distance.diagonal().max() < 4
    assert (distance.argmin(1) == np.arange(SPEC.frames)).all()


def test_classes_are_balanced_and_named(folder: Path) -> None:
    split = load(replace(SMOKE, data=SPEC), folder.parent, "test")
    assert [sample.labels[0] for sample in split.samples] == list(range(80))
    assert len(split.classes) == SPEC.classes == 80
    assert split.classes[:2] == ("astronaut left", "astronaut right") and split.classes[-1] == "pagoda back"
    assert split.samples[12].path.parent.name == "brick-clockwise"


def test_a_class_may_be_a_motion_alone(folder: Path) -> None:
    """The same films under eight labels."""
    spec = replace(SPEC, classes=8)
    split = load(replace(SMOKE, data=spec), folder.parent, "test")
    assert split.classes == MOTIONS and [sample.labels[0] for sample in split.samples] == 10 * list(range(8))
    assert split.samples[12].path.parent.name == "clockwise"
    assert split.samples[12].path.read_bytes() == (folder / SET.relative("test", 12)).read_bytes()


def test_every_photograph_is_there_and_named_with_its_licence() -> None:
    for name, (_, path, _) in PHOTOS.items():
        assert min(picture(name).shape) >= 300
        (line,) = [line for line in (photos.__doc__ or "").splitlines() if path in line]
        assert line.split()[0] == name
        assert any(licence in line for licence in ("public domain", "CC0", "CC BY 2.0"))


def test_a_missing_or_another_photograph_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (("skimage", "data/none.png", "0"), ("no_such_package", "a.png", "0"), ("skimage", "data/camera.png", "88431cd9653ccd53")):
        monkeypatch.setitem(PHOTOS, "wrong", wrong)
        with pytest.raises(UserError, match=f"The photograph {wrong[1]} of the package {wrong[0]} is missing or another one"):
            picture("wrong")


@pytest.mark.parametrize("name", PHOTOS)
def test_train_and_test_share_no_pixel_and_keep_apart(name: str) -> None:
    """A guard band of 16 pixels lies between any tile of train and any of test."""
    owner = np.zeros(picture(name).shape, np.uint8)
    for mark, split in ((1, "train"), (2, "test")):
        for tile in tiles(owner, split):
            assert not tile.any()
            tile[:] = mark
    assert (owner == 1).mean() > 0.45 and (owner == 2).mean() > 0.22
    for (i, j), axis in product([(1, 2), (2, 1)], (0, 1)):
        for step in range(1, 16):
            near, far = np.delete(owner, range(step), axis), np.delete(owner, range(owner.shape[axis] - step, owner.shape[axis]), axis)
            assert not ((near == i) & (far == j)).any()


def test_no_motion_leaves_its_tile() -> None:
    """The corners of every frame of the longest film lie in the tile, so nothing is made up at an edge."""
    for split, index in product(SPLITS, range(160)):
        shot = shoot(PHOTO.data, split, index, np.random.default_rng([7, index]))
        corners = (shot.centre + shot.path)[:, None] + (shot.axes[:, None] @ photos.CORNERS[:, :, None])[..., 0]
        assert corners.min() >= 0 and (corners <= np.array(shot.tile.shape) - 1).all()


def test_a_video_depends_on_the_pixels_of_its_split_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {job: draw(SPEC, *job) for job in product(SPLITS, range(0, 80, 9))}
    for split in SPLITS:

        def scrambled(name: str, kept: str = split) -> NDArray[np.uint8]:
            noise = np.random.default_rng(0).integers(0, 256, picture(name).shape, dtype=np.uint8)
            for new, old in zip(tiles(noise, kept), tiles(picture(name), kept), strict=True):
                new[:] = old
            return noise

        with monkeypatch.context() as patch:
            patch.setattr(photos, "picture", scrambled)
            for (own, index), video in before.items():
                assert (draw(SPEC, own, index) == video).all() == (own == split)


def predicted(frame: NDArray[np.float64], motion: str, frames: int) -> NDArray[np.float64]:
    """What the camera sees `frames` later, at the mean speed: 1 pixel, 4 degrees, 3.5 % a frame."""
    way = {"left": (0, -frames), "right": (0, frames), "up": (-frames, 0), "down": (frames, 0)}.get(motion, (0, 0))
    angle = np.deg2rad(4 * frames) * {"clockwise": 1, "anticlockwise": -1}.get(motion, 0)
    zoom = 1.035 ** (frames * {"forward": -1, "back": 1}.get(motion, 0))
    matrix = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = np.full(2, 19.5)
    return affine_transform(frame, matrix, middle + way - matrix @ middle, order=1, mode="nearest")


def test_every_video_moves_as_its_class_says() -> None:
    """Of the eight motions its own explains every video best: what the classes ask is in the pixels."""
    for split, index in product(SPLITS, range(80)):
        video = draw(QUIET, split, index).astype(float).mean(3)
        error = [np.abs(predicted(video[0], motion, 4) - video[4])[8:-8, 8:-8].mean() for motion in MOTIONS]
        assert np.argmin(error) == index % 8, (split, index, error)


@pytest.mark.parametrize(("motion", "y", "x"), [("left", 0, 1), ("right", 0, -1), ("up", 1, 0), ("down", -1, 0)])
def test_the_picture_moves_against_the_camera(motion: str, y: int, x: int) -> None:
    """Phase correlation of two frames, 6 apart: the picture moves 6 pixels times the rate, 0.8 to 1.2."""
    for name in ("grass", "gravel", "brick"):
        video = draw(QUIET, "train", 8 * list(PHOTOS).index(name) + MOTIONS.index(motion)).astype(float).mean(3)
        window = np.outer(np.hanning(40), np.hanning(40))
        old, new = (np.fft.fft2((video[t] - video[t].mean()) * window) for t in (0, 6))
        cross = new * old.conj()
        peak = np.unravel_index(np.fft.ifft2(cross / np.abs(cross)).real.argmax(), (40, 40))
        found = np.array([(p + 20) % 40 - 20 for p in peak])
        assert np.abs(found - 6 * np.array([y, x])).max() <= 2


def test_brightness_and_colour_tell_little_of_the_class() -> None:
    """The mean colour of videos varies within photographs and hardly between them."""
    spec = Photos(train=80, test=80, frames=2)
    seen = np.array([draw(spec, "train", i).mean((0, 1, 2)) for i in range(320)]).reshape(4, 10, 8, 3)
    means = seen.transpose(1, 0, 2, 3).reshape(10, 32, 3)
    assert means.std(1).min() > 8
    assert (means.mean(1).var(0) < 0.15 * means.reshape(-1, 3).var(0)).all()


def test_few_videos_show_nothing() -> None:
    """A sky or a wall tells no motion: of videos from the first place that comes 15 in 100 would vary by less than 8 levels."""
    spec = Photos(train=80, test=80, frames=2, noise=0)
    spread = np.array([draw(spec, split, index).astype(float).mean(3)[0].std() for split in SPLITS for index in range(160)])
    assert (spread < 8).mean() < 0.05


def test_contrast_and_tint_tell_nothing_of_the_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripes 50 levels apart in place of every photograph: videos have 0.7 to 1.3 times that contrast, their colours a tenth more or less."""

    def stripes(name: str) -> NDArray[np.uint8]:
        return np.broadcast_to(100 + 50 * (np.arange(1000) // 12 % 2), (600, 1000)).astype(np.uint8)

    monkeypatch.setattr(photos, "picture", stripes)
    spec = Photos(train=80, test=80, frames=2, noise=0)
    gain = np.array([np.ptp(draw(spec, "train", index).astype(float), (0, 1, 2)) for index in range(160)]) / 50  # (videos, colours)
    low, middle, high = np.quantile(gain.mean(1), [0.1, 0.5, 0.9])
    assert 0.68 < low < 0.8 and 0.95 < middle < 1.05 and 1.2 < high < 1.32
    assert 0.05 < (gain.std(1) / gain.mean(1)).mean() < 0.1


def test_noise_is_as_loud_as_the_recipe_says_and_new_in_every_frame() -> None:
    spec = Photos(train=80, test=80, frames=2, noise=20)
    noise = np.array([draw(spec, "train", index).astype(float) - draw(replace(spec, noise=0), "train", index) for index in range(40)])
    assert 19.5 < np.median(noise.std((1, 2, 3, 4))) < 20.5  # less where frames are black or white
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.01


def test_every_video_is_drawn_from_its_own_seed() -> None:
    assert (draw(SPEC, "train", 3) == draw(SPEC, "train", 3)).all()
    for other in (draw(SPEC, "train", 83), draw(SPEC, "test", 3), draw(replace(SPEC, seed=1), "train", 3)):
        assert (draw(SPEC, "train", 3) != other).any()


def test_a_half_made_set_is_completed_with_the_same_files(folder: Path) -> None:
    before = read_manifest(folder)
    gone, cut = folder / SET.relative("train", 7), folder / SET.relative("test", 11)
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    seen: list[tuple[int, int]] = []
    SET.make(SPEC, folder.parent, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(159, 162), (160, 162), (161, 162), (162, 162)]  # written, then encoded once more
    assert read_manifest(folder) == before


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"train": 100}, r"`train` \(=100\) must be a multiple of 80"),
        ({"classes": 10}, r"`classes` \(=10\) must be 8 \(motions\) or 80"),
        ({"size": 44}, r"`size` \(=44\) must be a multiple of 8"),
        ({"frames": 21}, r"`frames` \(=21\) must be 2 to 20"),
    ],
)
def test_a_wrong_value_is_refused(fields: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(SPEC, **fields)


def test_the_scale_has_the_clips_and_the_test_of_small() -> None:
    schedule = {name: getattr(SMALL, name) for name in ("epochs", "warmup", "clips_per_epoch", "lr", "batch", "micro_batch")}
    assert replace(PHOTO, scale="small", data=SMALL.data, **schedule) == SMALL
    assert isinstance(PHOTO.data, Photos)
    assert (PHOTO.data.train, PHOTO.data.test, PHOTO.data.classes, PHOTO.data.size, PHOTO.data.frames) == (160, 800, 8, 40, 20)
    with pytest.raises(UserError, match="more than the 20 of a video of photos"):
        replace(PHOTO, frames=8)


def test_a_run_from_file_to_record(folder: Path, tmp_path: Path) -> None:
    recipe = replace(SMOKE, data=SPEC, epochs=1, warmup=0)
    run = Run(variant=Variant(block="ip", depth=26, width=8), recipe=recipe, seed=0)
    assert Run.from_dict(run.to_dict()) == run
    record = execute(run, tmp_path, folder.parent)
    assert "error" not in record, record["error"]
    assert record["n_videos"] == record["n_train_videos"] == 80 and 0 <= record["video_top1"] <= 100
    array = SET.decoded(SPEC, folder.parent, "test")
    assert array.shape == (80, 10, 40, 40, 3) and not array.flags.writeable
