"""Videos to clips to batches: decode, sample, augment; one file per data set.

The letters, once for the whole package: B clips of a batch, C channels, T frames of a clip, H and W height and width in
pixels, V videos, N views of a video, K classes.

    video file -> uint8 (T, H, W, 3) -> clip float (3, T, H, W) -> batch (B, 3, T, H, W) -> logits (B, K)
    test: (V videos, N views, K) -> softmax, mean over N -> (V, K)

A data set is a function that gives a Split; nothing is skipped silently: what is missing or damaged is named there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from csn.files import printable

MOST_DAMAGED = 0.05  # of a split: more that cannot be read is an error before time is wasted, more that is cut short a warning of its own


@dataclass(frozen=True)
class Sample:
    """One labelled video. path: of the file, or of a folder of numbered frames. labels: class indices, one or more.
    video: its id, unique in the split. first, count: the frames of the file that are the video: `count` (None: all) after the first
    `first`."""

    path: Path
    labels: tuple[int, ...]
    video: str
    first: int = 0
    count: int | None = None


@dataclass(frozen=True)
class Split:
    """The videos of one split, in a fixed order, with the class names in official order.

    missing: videos that the annotation names and the disk lacks. fingerprint: digest of what was found. unreadable: those of
    the samples that a scan found damaged or of no use. small: of these, those whose frames are smaller than the crop. cut: those that
    end early or conceal damage, and are read as far as they go. repeated: videos that a list names more than once, and that count once.
    outside: videos in none of the class folders, which have no class.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    missing: tuple[str, ...] = field(default=(), repr=False)
    fingerprint: str = ""
    unreadable: tuple[str, ...] = field(default=(), repr=False)
    cut: tuple[str, ...] = field(default=(), repr=False)
    repeated: tuple[str, ...] = field(default=(), repr=False)
    outside: tuple[str, ...] = field(default=(), repr=False)
    small: tuple[str, ...] = field(default=(), repr=False)

    @property
    def empty(self) -> tuple[str, ...]:
        """Classes of which no video is there; they keep their numbers."""
        filled = {label for sample in self.samples for label in sample.labels}
        return tuple(name for i, name in enumerate(self.classes) if i not in filled)

    def told(self, name: str) -> list[str]:
        """What a run says at its start: the counts, and a line for each kind of loss with its first names."""
        lost = f"{len(self.missing)} missing, {len(self.unreadable)} damaged, {len(self.cut)} cut short"
        told = [f"{name}: {len(self.samples)} videos of {len(self.classes)} classes, {lost}"]
        if len(self.cut) > MOST_DAMAGED * len(self.samples):
            told.append(f"warning: {name}: {len(self.cut)} of {len(self.samples)} videos are cut short and read as far as they go; was the copy broken off?")
        kinds = {"missing": self.missing, "damaged": self.unreadable, "of these smaller than the crop": self.small, "cut short": self.cut,
                 "listed twice": self.repeated, "left out, in no class folder": self.outside, "class without a video": self.empty}  # fmt: skip
        for what, names in kinds.items():
            if names:
                told.append(f"warning: {name}: {what}: {', '.join(map(printable, names[:5]))}" + (f" and {len(names) - 5} more" if len(names) > 5 else ""))
        return told
