"""Data sets as values: the two that this package draws, and the public ones. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from csn.rules import require, whole


@dataclass(frozen=True, kw_only=True)
class MovingDigits:
    """The built-in set: handwritten digits moving over texture, digits x 8 motions.

    train, test: videos of each split. digits: how many of the ten, from 0 on. size: frame side, pixels. frames: frames per video. noise: standard
    deviation of the per-frame noise, of 255. texture: contrast of the static background, of 255. seed: of the drawing.
    """

    train: int
    test: int
    size: int = 40
    frames: int = 16
    noise: int = 4
    texture: int = 8
    seed: int = 0
    digits: int = 10
    kind: Literal["moving-digits"] = "moving-digits"

    def __post_init__(self) -> None:
        whole(self, "train", "test", "size", "frames", "noise", "texture", "seed", "digits")
        require(2 <= self.digits <= 10, "digits", self.digits, "must be 2 to 10")
        for name in ("train", "test"):
            value = getattr(self, name)
            require(value > 0 and value % self.classes == 0, name, value, f"must be a multiple of {self.classes} ({self.digits} digits x 8 motions)")
        require(self.size % 8 == 0 and self.size >= 32, "size", self.size, "must be a multiple of 8, at least 32")
        require(self.frames >= 2, "frames", self.frames, "must be at least 2")

    @property
    def classes(self) -> int:
        return 8 * self.digits


@dataclass(frozen=True, kw_only=True)
class Photos:
    """The second built-in set: 8 camera motions over 10 free photographs.

    train, test: videos of each split. classes: 80, photograph x motion, or 8, motion alone. size: frame side, pixels. frames: frames per video. noise: standard
    deviation of the per-frame noise, of 255. seed: of the drawing.
    """

    train: int
    test: int
    classes: int = 80
    size: int = 40
    frames: int = 20
    noise: int = 4
    seed: int = 0
    kind: Literal["photos"] = "photos"

    def __post_init__(self) -> None:
        whole(self, "train", "test", "classes", "size", "frames", "noise", "seed")
        for name in ("train", "test"):
            value = getattr(self, name)
            require(value >= 80 and value % 80 == 0, name, value, "must be a multiple of 80 (10 photographs x 8 motions)")
        require(self.classes in (8, 80), "classes", self.classes, "must be 8 (motions) or 80 (photographs x motions)")
        require(self.size % 8 == 0 and self.size >= 32, "size", self.size, "must be a multiple of 8, at least 32")
        # A longer film would leave the part of the photograph that its split may show.
        require(2 <= self.frames <= 20, "frames", self.frames, "must be 2 to 20")


Embedded = MovingDigits | Photos  # sets that this package draws itself; the others lie on disk as a person put them there
VideoKind = Literal["kinetics400", "sports1m", "something-v1", "something-v2", "ucf101", "hmdb51", "dfdc", "folder"]
CLASSES: dict[str, int] = {
    "kinetics400": 400, "sports1m": 487, "something-v1": 174, "something-v2": 174, "ucf101": 101, "hmdb51": 51, "dfdc": 2,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """A public data set as it lies on disk, below the data folder in a folder of its kind's name.

    kind: which. fold: of ucf101 and hmdb51, 1 to 3. classes: of a plain "folder" set; the others know theirs.
    """

    kind: VideoKind
    fold: int = 1
    classes: int = 0

    def __post_init__(self) -> None:
        require(self.kind in get_args(VideoKind), "kind", self.kind, f"must be one of {', '.join(get_args(VideoKind))}")
        whole(self, "fold", "classes")
        folds = (1, 2, 3) if self.kind in ("ucf101", "hmdb51") else (1,)
        require(self.fold in folds, "fold", self.fold, f"must be 1, 2 or 3 for ucf101 and hmdb51, 1 for {self.kind}" if folds == (1,) else "must be 1, 2 or 3")
        known = CLASSES.get(self.kind)
        if known is None:
            require(self.classes >= 1, "classes", self.classes, "must be at least 1 for a folder of classes")
        else:
            require(self.classes in (0, known), "classes", self.classes, f"must be {known} for {self.kind}")
            object.__setattr__(self, "classes", known)
