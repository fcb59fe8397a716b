"""Kinetics-400: train.csv, val.csv or validate.csv, test.csv, and clips in any of the layouts people have.

Classes: the sorted names of the csv files, which is the official order (400). Clips are found by name, wherever they lie
below root: <id>_<start>_<end>.mp4 or <id>.mp4, flat or in class folders of any spelling; the csv gives the label. A clip without
times, or of others than the csv's, is taken where its id has one row and one clip only; else nobody knows, and the row is missing.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from csn.data import Sample, Split
from csn.data.media import Media, annotation, fingerprint, one_of, stem
from csn.spec import UserError

PLACES = (".", "annotations", "kinetics400", "kinetics_400_annotations", "k400/annotations")
FILES = {  # as DeepMind, CVDF and mmaction2 call them
    "train": ("train.csv", "kinetics_train.csv"),
    "val": ("val.csv", "validate.csv", "validation.csv", "kinetics_val.csv"),
    "test": ("test.csv", "kinetics_test.csv"),
}
Clip = tuple[str, int, int]  # id, start, end in seconds


def load(root: Path, split: str, files: Sequence[str]) -> Split:
    """Split "train", "val" or "test" of the clips `files` (relative to root). Raises UserError."""
    one_of(split, *FILES)
    rows = read_rows(annotation(root, PLACES, FILES[split], f"The {split} annotation of Kinetics-400"))
    names = {label for label in rows.values() if label}
    if not names:
        raise UserError(f"{split}.csv of {root} has no label column; this split cannot be scored.")
    clips = set(rows)
    for other in FILES:
        try:
            path = annotation(root, PLACES, FILES[other], other)
        except UserError:  # another split's file may be absent
            continue
        theirs = read_rows(path)
        names |= set(theirs.values()) - {""}
        clips |= set(theirs)
    classes = tuple(sorted(names))
    number = {name: i for i, name in enumerate(classes)}
    media, times = Media(root, files, stem, split, ".mp4"), Counter(youtube for youtube, _, _ in clips)
    of: dict[str, list[str]] = defaultdict(list)
    for name in media.at:
        of[youtube_of(name)].append(name)
    samples, missing = [], []
    for (youtube, start, end), label in rows.items():
        video = f"{youtube}_{start:06d}_{end:06d}"
        only = video not in media.at and times[youtube] == 1 and len(of.get(youtube, ())) == 1
        file = media.find(of[youtube][0] if only else video)
        if file and label:
            samples.append(Sample(file, (number[label],), video))
        else:
            missing.append(video)
    return Split(tuple(samples), classes, tuple(missing), fingerprint(samples, classes))


def youtube_of(name: str) -> str:
    """The id in the name of a clip, with times (six digits each) or without. Ids may hold and begin with "_" and "-"."""
    parts = name.rsplit("_", 2)
    return parts[0] if len(parts) == 3 and all(len(part) == 6 and part.isdigit() for part in parts[1:]) else name


def read_rows(path: Path) -> Mapping[Clip, str]:
    """{(id, start, end): label} of an annotation, read by column name; label "" where there is none."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


@lru_cache(maxsize=len(FILES))  # a split needs the classes of all files, and a run two splits
def _read(path: Path, mtime_ns: int) -> Mapping[Clip, str]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, skipinitialspace=True)
        try:
            columns = next(reader, [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as UTF-8 CSV ({error}).") from None
        for column in ("youtube_id", "time_start", "time_end"):
            if column not in columns:
                raise UserError(f"{path} has no column {column!r} in its first line ({', '.join(columns)[:80]}); add the header.")
        youtube, start, end = (columns.index(name) for name in ("youtube_id", "time_start", "time_end"))
        label = columns.index("label") if "label" in columns else None
        rows: dict[Clip, str] = {}
        try:
            for row in reader:
                if row:
                    clip, name = (row[youtube], int(float(row[start])), int(float(row[end]))), row[label].strip() if label is not None else ""
                    if (before := rows.setdefault(clip, name)) != name:
                        raise ValueError(f"{clip[0]} from {clip[1]} to {clip[2]} s has label {name!r}, in an earlier line {before!r}; remove one of the two")
        except (IndexError, ValueError, OverflowError, csv.Error) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}.") from None
    return rows
