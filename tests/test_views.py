"""Clips, crops and resizes: the frames and pixels the protocol names, equal to torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from csn.data.views import augment, crops, jittered, offsets, resize, uniform
from csn.spec import UserError


def video(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


def planes(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("length", "frames", "stride"), [(300, 8, 2), (15, 8, 2), (16, 8, 2), (64, 32, 2)])
def test_temporal_jitter_reaches_every_start_and_no_more(length: int, frames: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    clips = [jittered(length, frames, stride, rng) for _ in range(4000)]
    starts = {int(clip[0]) for clip in clips}
    assert starts == set(range(length - (frames - 1) * stride))
    assert all((np.diff(clip) == stride).all() and clip[-1] < length for clip in clips)


@pytest.mark.parametrize("length", [1, 3, 7, 14])
def test_short_videos_are_looped(length: int) -> None:
    expected = np.arange(0, 16, 2) % length
    assert np.array_equal(jittered(length, 8, 2, np.random.default_rng(0)), expected)
    assert np.array_equal(uniform(length, 8, 2, 10), np.tile(expected, (10, 1)))


def test_jitter_comes_from_the_generator_alone() -> None:
    one, two = (np.random.default_rng(3) for _ in range(2))
    assert all(np.array_equal(jittered(300, 8, 2, one), jittered(300, 8, 2, two)) for _ in range(20))


def test_uniform_clips_cover_the_video() -> None:
    clips = uniform(300, 8, 2, 10)
    assert clips.shape == (10, 8) and clips[0, 0] == 0 and clips[-1, -1] == 299
    assert np.ptp(np.diff(clips[:, 0])) <= 1
    assert np.array_equal(uniform(301, 8, 2, 1)[0], 143 + 2 * np.arange(8))  # the centre


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(30.0, [0, 2, 4, 6]), (29.97, [0, 2, 4, 6]), (60.0, [0, 4, 8, 12]), (15.0, [0, 1, 2, 3]), (25.0, [0, 2, 3, 5]), (10.0, [0, 1, 1, 2])],
)
def test_frame_rate_normalisation(fps: float, expected: list[int]) -> None:
    """The frame nearest to 0, 2/30, 4/30 and 6/30 of a second."""
    assert offsets(4, 2, fps / 30).tolist() == expected
    assert uniform(100, 4, 2, 5, fps / 30)[0].tolist() == expected
    assert uniform(100, 4, 2, 5, fps / 30)[-1, -1] == 99
    clip = jittered(100, 4, 2, np.random.default_rng(0), fps / 30)
    assert (clip - clip[0]).tolist() == expected


@pytest.mark.parametrize(("height", "width", "short"), [(256, 340, 300), (240, 320, 128), (90, 33, 64), (64, 64, 96), (31, 97, 32)])
def test_resize_is_torchvisions(height: int, width: int, short: int) -> None:
    frames = video(2, height, width)
    got = planes(resize(frames, short))
    assert torch.equal(got, tv.resize(planes(frames), [short], antialias=True))
    floats = tv.resize(planes(frames).float(), [short], antialias=True)
    assert (got.float() - floats.round()).abs().max() <= 1
    without = tv.resize(planes(frames).float(), [short], antialias=False)
    assert short > min(height, width) or (got.float() - without).abs().max() > 20  # antialias does matter


def test_one_test_crop_is_torchvisions_centre() -> None:
    for height, width in ((40, 51), (51, 40), (33, 33), (35, 33)):
        frames = video(1, height, width)
        (got,) = crops(frames, 32, None, 1)
        assert torch.equal(planes(got), tv.center_crop(planes(frames), [32, 32]))


def test_three_crops_cover_the_longer_side() -> None:
    wide, tall = video(2, 32, 61), video(2, 61, 32)
    left, centre, right = crops(wide, 32, 32, 3)
    assert np.array_equal(left, wide[:, :, :32]) and np.array_equal(right, wide[:, :, 29:])
    assert torch.equal(planes(centre), tv.center_crop(planes(wide), [32, 32]))
    top, _, bottom = crops(tall, 32, 32, 3)
    assert np.array_equal(top, tall[:, :32]) and np.array_equal(bottom, tall[:, 29:])
    assert [c.shape for c in crops(video(2, 50, 120), 24, 32, 3)] == [(2, 24, 24, 3)] * 3


def test_training_clips_are_scaled_cropped_and_mirrored() -> None:
    """Each clip is one of torchvision's resizes, cropped, and mirrored in half the cases; all frames alike."""
    frames = video(2, 40, 60)
    frames[1] = frames[0]
    sizes, mirrored, places = set(), 0, set()
    for seed in range(200):
        clip = augment(frames, 24, (24, 26), True, np.random.default_rng(seed))
        assert clip.shape == (2, 24, 24, 3) and np.array_equal(clip[0], clip[1])
        short, top, left, flip = locate(frames[:1], clip[0])
        sizes.add(short)
        places.add((top, left))
        mirrored += flip
    assert sizes == {24, 25, 26} and 70 < mirrored < 130 and len(places) > 20


def test_a_mirror_is_a_coin() -> None:
    """1000 of 2000 clips, give or take four and a half standard deviations."""
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    frames[:, :, 0] = 255
    mirrored = sum(int(augment(frames, 4, None, True, np.random.default_rng(seed))[0, 0, -1, 0] == 255) for seed in range(2000))
    assert 900 < mirrored < 1100


def locate(frames: np.ndarray, clip: np.ndarray) -> tuple[int, int, int, bool]:
    """Short side, top, left and mirroring that give the clip; fails where none does."""
    for short in (24, 25, 26):
        whole = tv.resize(planes(frames), [short], antialias=True).permute(0, 2, 3, 1).numpy()[0]
        for flip in (False, True):
            seen = clip[:, ::-1] if flip else clip
            for top in range(whole.shape[0] - 23):
                for left in range(whole.shape[1] - 23):
                    if np.array_equal(whole[top : top + 24, left : left + 24], seen):
                        return short, top, left, flip
    raise AssertionError("not a crop of a resize")


def test_nothing_is_mirrored_or_scaled_unasked() -> None:
    frames = video(1, 32, 32)
    for seed in range(8):
        assert np.array_equal(augment(frames, 32, None, False, np.random.default_rng(seed)), frames)


def test_too_small_frames_are_refused() -> None:
    with pytest.raises(UserError, match=r"`crop` \(=64\) is larger than its frames of 32 x 80"):
        augment(video(1, 32, 80), 64, None, True, np.random.default_rng(0))
    with pytest.raises(UserError, match="is larger than"):
        crops(video(1, 32, 80), 64, 32, 3)
