"""Which frames, which pixels: clips drawn at random in training, uniform views in test. Pure functions.

    frames = jittered(300, 8, 2, rng)          # (T,) frame indices of one random clip
    starts = uniform(300, 8, 2, clips=10)      # (N, T) frame indices of the test clips
    clip = augment(video, 224, (256, 320), True, rng)     # uint8 (T, H, W, 3) -> (T, 224, 224, 3)
    views = crops(video, 256, 256, number=3)   # uint8 (T, H, W, 3) -> three (T, 256, 256, 3), along the longer side

A video shorter than a clip is looped: index i reads frame i modulo its length.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def jittered(length: int, frames: int, stride: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices (T,) of a clip that starts at a random frame: temporal jitter."""
    span = (frames - 1) * stride + 1
    start = int(rng.integers(max(length - span, 0) + 1))
    return (start + stride * np.arange(frames)) % length


def uniform(length: int, frames: int, stride: int, clips: int) -> NDArray[np.int64]:
    """Indices (N, T) of `clips` clips, the first at the start of the video and the last at its end; one clip: the centre."""
    room = max(length - ((frames - 1) * stride + 1), 0)
    starts = np.array([room // 2]) if clips == 1 else np.rint(np.linspace(0, room, clips)).astype(np.int64)
    return (starts[:, None] + stride * np.arange(frames)) % length


def resize(video: Frames, short: int) -> Frames:
    """(T, H, W, 3) with the short side `short`, aspect kept, bilinear with antialiasing, rounded to uint8."""
    height, width = video.shape[1:3]
    if min(height, width) == short:
        return video
    # the longer side is truncated, as torchvision's Resize does
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    planes = torch.from_numpy(video).permute(0, 3, 1, 2)
    out = F.interpolate(planes.float(), size, mode="bilinear", antialias=True).round_().clamp_(0, 255).to(torch.uint8)
    return out.permute(0, 2, 3, 1).numpy()


def augment(video: Frames, crop: int, short: tuple[int, int] | None, mirror: bool, rng: np.random.Generator) -> Frames:
    """One training clip (T, crop, crop, 3): the short side drawn from [low, high], a random crop, a mirror in half the cases."""
    if short is not None:
        video = resize(video, int(rng.integers(short[0], short[1] + 1)))
    top = int(rng.integers(video.shape[1] - crop + 1))
    left = int(rng.integers(video.shape[2] - crop + 1))
    clip = video[:, top : top + crop, left : left + crop]
    return clip[:, :, ::-1] if mirror and rng.random() < 0.5 else clip


def crops(video: Frames, crop: int, short: int | None, number: int) -> list[Frames]:
    """Test crops (T, crop, crop, 3) after resizing the short side: 1, the centre; 3, spread along the longer side."""
    if short is not None:
        video = resize(video, short)
    top, left = video.shape[1] - crop, video.shape[2] - crop
    if number == 1:
        places = [(round(top / 2), round(left / 2))]
    elif top > left:
        places = [(round(top * k / 2), round(left / 2)) for k in range(3)]
    else:
        places = [(round(top / 2), round(left * k / 2)) for k in range(3)]
    return [video[:, t : t + crop, s : s + crop] for t, s in places]
