"""Every set by one call: those drawn here, and the seven public ones and the plain folder, as the index of a scan found them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from csn.data import Split, dfdc, folder, hmdb51, kinetics400, moving_digits, photos, something, sports1m, ucf101
from csn.data.embedded import EmbeddedSet
from csn.data.media import listing
from csn.spec import Embedded, MovingDigits, UserError, VideoKind, VideoSet

SPLITS: dict[str, tuple[str, str]] = {  # what to train on, what to test on
    "kinetics400": ("train", "val"),
    "sports1m": ("train", "test"),
    "something-v1": ("train", "validation"),
    "something-v2": ("train", "validation"),
    "ucf101": ("train", "test"),
    "hmdb51": ("train", "test"),
    "dfdc": ("train", "val"),
    "folder": ("train", "test"),
}


def drawn(spec: Embedded) -> EmbeddedSet:
    """How a built-in set is drawn, written and read."""
    return (moving_digits.SETS if isinstance(spec, MovingDigits) else photos.SETS)[spec.classes]


def load(spec: VideoSet, root: Path, split: str, files: Sequence[str] | None = None) -> Split:
    """A split of a set below root. files: paths relative to root, as of an index; without them root is walked.

    Raises UserError where root, annotation or split is wrong, the classes are not those of the set, or no video is left.
    """
    found = find(spec.kind, root, split, listing(root) if files is None else files, spec.fold)
    if len(found.classes) != spec.classes:
        raise UserError(f"{spec.kind} has {spec.classes} classes, its annotation below {root} names {len(found.classes)}.")
    if not found.samples and not found.missing:
        raise UserError(f"{spec.kind} {split} has no video below {root}; put them there, and scan again (python -m csn.data scan).")
    if not found.samples:
        raise UserError(f"None of the {len(found.missing)} videos of {spec.kind} {split} is below {root}; put them there, and scan again.")
    return found


def find(kind: VideoKind, root: Path, split: str, files: Sequence[str], fold: int = 1) -> Split:
    """What the annotation of a set names and `files` holds, however many classes and videos; raises UserError."""
    match kind:
        case "kinetics400":
            return kinetics400.load(root, split, files)
        case "sports1m":
            return sports1m.load(root, split, files)
        case "something-v1":
            return something.load_v1(root, split, files)
        case "something-v2":
            return something.load_v2(root, split, files)
        case "ucf101":
            return ucf101.load(root, split, files, fold)
        case "hmdb51":
            return hmdb51.load(root, split, files, fold)
        case "dfdc":
            return dfdc.load(root, split, files)
        case "folder":
            return folder.load(root, split, files)
        case _:
            assert_never(kind)
