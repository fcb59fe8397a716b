"""Which frames, which pixels: clips drawn at random in training, uniform views in test. Pure functions.

    indices = jittered(300, 8, 2, rng)         # (T,) frame indices of one random clip
    indices = uniform(300, 8, 2, clips=10)     # (N, T) frame indices of the test clips
    indices = uniform(300, 8, 2, 10, rate=50 / 30)        # the same of a video of 50 frames a second seen at 30
    clip = augment(video, 224, (256, 320), True, rng)     # uint8 (T, H, W, 3) -> (T, 224, 224, 3)
    views = crops(video, 256, 256, number=3)   # uint8 (T, H, W, 3) -> three (T, 256, 256, 3), along the longer side

A video shorter than a clip is looped: index i reads frame i modulo its length.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from csn.spec import UserError

Frames = NDArray[np.uint8]


def jittered(length: int, frames: int, stride: int, rng: np.random.Generator, rate: float = 1.0) -> NDArray[np.int64]:
    """Indices (T,) of a clip that starts at a random frame: temporal jitter. rate: see `offsets`."""
    steps = offsets(frames, stride, rate)
    start = int(rng.integers(max(length - int(steps[-1]) - 1, 0) + 1))
    return (start + steps) % length


def uniform(length: int, frames: int, stride: int, clips: int, rate: float = 1.0) -> NDArray[np.int64]:
    """Indices (N, T) of `clips` clips, the first at the video's start, the last at its end; one clip: the centre."""
    steps = offsets(frames, stride, rate)
    room = max(length - int(steps[-1]) - 1, 0)
    starts = np.array([room // 2]) if clips == 1 else np.rint(np.linspace(0, room, clips)).astype(np.int64)
    return (starts[:, None] + steps) % length


def offsets(frames: int, stride: int, rate: float = 1.0) -> NDArray[np.int64]:
    """Frame numbers (T,) of a clip from its first frame on: every stride-th frame.

    rate: frames per second of the video over those wanted, to see every video at one speed: frame k is the one nearest to
    k x stride / wanted seconds after the first, the later of two (as FFmpeg's fps filter). 1 takes the frames as they are.
    """
    return np.floor(np.arange(frames) * stride * rate + 0.5 + 1e-6).astype(np.int64)


def resize(video: Frames, short: int) -> Frames:
    """(T, H, W, 3) with the short side `short`, the other truncated: torchvision's Resize of uint8, antialiased bilinear.

    In 8-bit arithmetic, ten times as fast as in floats and at most one level from their rounding.
    """
    height, width = video.shape[1:3]
    if min(height, width) == short:
        return video
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    planes = torch.from_numpy(video).permute(0, 3, 1, 2)
    return F.interpolate(planes, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()


def augment(video: Frames, crop: int, short: tuple[int, int] | None, mirror: bool, rng: np.random.Generator) -> Frames:
    """One training clip (T, crop, crop, 3): the short side drawn from [low, high], a random crop, a mirror in half the cases.

    Raises UserError where the frames are smaller than the crop.
    """
    if short is not None:
        video = resize(video, int(rng.integers(short[0], short[1] + 1)))
    fits(video, crop)
    top = int(rng.integers(video.shape[1] - crop + 1))
    left = int(rng.integers(video.shape[2] - crop + 1))
    clip = video[:, top : top + crop, left : left + crop]
    return clip[:, :, ::-1] if mirror and rng.random() < 0.5 else clip


def crops(video: Frames, crop: int, short: int | None, number: int) -> list[Frames]:
    """Test crops (T, crop, crop, 3) after resizing the short side: 1, the centre; 3, spread along the longer side.

    Raises UserError where the frames are smaller than the crop.
    """
    if short is not None:
        video = resize(video, short)
    fits(video, crop)
    top, left = video.shape[1] - crop, video.shape[2] - crop
    if number == 1:
        places = [(round(top / 2), round(left / 2))]
    elif top > left:
        places = [(round(top * k / 2), round(left / 2)) for k in range(3)]
    else:
        places = [(round(top / 2), round(left * k / 2)) for k in range(3)]
    return [video[:, t : t + crop, s : s + crop] for t, s in places]


def fits(video: Frames, crop: int) -> None:
    """Raise UserError where a crop is larger than the frames."""
    height, width = video.shape[1:3]
    if min(height, width) < crop:
        raise UserError(f"`crop` (={crop}) is larger than its frames of {height} x {width}; take it out, or have the recipe `resize` or crop less.")
