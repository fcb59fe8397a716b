"""MovingDigits: handwritten digits under one of 8 motions, over texture, as real H.264 files. 80 classes, or fewer digits.

The handwriting is scikit-learn's bundled digits (1797 samples, 8 x 8 pixels; UCI optical recognition of handwritten
digits). A class is digit x motion, so one frame is not enough, and motion alone is not enough. Train and test share no
handwriting sample.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from csn.data.embedded import SPLITS, EmbeddedSet, fingerprint, intact, read_manifest, read_whole, write_video
from csn.spec import MovingDigits

__all__ = ["SPLITS", "decoded", "draw", "fingerprint", "intact", "load", "make", "read_manifest", "read_whole", "relative", "write_video"]

MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "grow", "shrink")
CLASSES = tuple(f"{digit} {motion}" for digit in range(10) for motion in MOTIONS)
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
    """Video `index` of a split: (frames, size, size, 3). Its class is index modulo spec.classes."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    digit, motion = divmod(index % spec.classes, len(MOTIONS))
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


SETS = {8 * digits: EmbeddedSet(CLASSES[: 8 * digits], draw, scenecut=True) for digits in range(2, 11)}  # by number of classes
SET = SETS[80]
relative, make, decoded, load = SET.relative, SET.make, SET.decoded, SET.load
