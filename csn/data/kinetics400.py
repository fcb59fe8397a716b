"""Kinetics-400: train.csv, val.csv or validate.csv, test.csv, and clips in any of the layouts people have.

Classes: the sorted names of the csv files, which is the official order (400). Clips are found by name, wherever they lie
below root: <id>_<start>_<end>.mp4 or <id>.mp4, flat or in class folders of any spelling; the csv gives the label.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from csn.data import Sample, Split
from csn.data.media import annotation, fingerprint, one_of, stem
from csn.spec import UserError

PLACES = (".", "annotations", "kinetics400", "kinetics_400_annotations", "k400/annotations")
FILES = {"train": ("train.csv",), "val": ("val.csv", "validate.csv", "validation.csv"), "test": ("test.csv",)}
Clip = tuple[str, int, int]  # id, start, end in seconds


def load(root: Path, split: str, files: Sequence[str]) -> Split:
    """Split "train", "val" or "test" of the clips `files` (relative to root). Raises UserError."""
    one_of(split, *FILES)
    rows = read_rows(annotation(root, PLACES, FILES[split], f"The {split} annotation of Kinetics-400"))
    names = {label for label in rows.values() if label}
    if not names:
        raise UserError(f"{split}.csv of {root} has no label column; this split cannot be scored.")
    for other in FILES:
        try:
            names |= set(read_rows(annotation(root, PLACES, FILES[other], other)).values()) - {""}
        except UserError:  # another split's file may be absent
            continue
    classes = tuple(sorted(names))
    number = {name: i for i, name in enumerate(classes)}
    timed, bare = by_name(files)
    samples, missing = [], []
    for (youtube, start, end), label in rows.items():
        found = timed.get((youtube, start, end)) or bare.get(youtube)
        video = f"{youtube}_{start:06d}_{end:06d}"
        if found and label:
            folder = next((path for path in found if path.split("/")[0].startswith(split)), found[0])
            samples.append(Sample(root / folder, (number[label],), video))
        else:
            missing.append(video)
    return Split(tuple(samples), classes, tuple(missing), fingerprint(samples, classes))


def by_name(files: Sequence[str]) -> tuple[dict[Clip, list[str]], dict[str, list[str]]]:
    """Files by (id, start, end) and, where the name holds no times, by id. Ids may hold and begin with "_" and "-"."""
    timed: dict[Clip, list[str]] = defaultdict(list)
    bare: dict[str, list[str]] = defaultdict(list)
    for path in files:
        parts = stem(path).rsplit("_", 2)
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit() and len(parts[1]) == len(parts[2]) == 6:
            timed[parts[0], int(parts[1]), int(parts[2])].append(path)
        else:
            bare[stem(path)].append(path)
    return timed, bare


def read_rows(path: Path) -> Mapping[Clip, str]:
    """{(id, start, end): label} of an annotation, read by column name; label "" where there is none."""
    return _read(path, path.stat().st_mtime_ns)


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
        rows = {}
        try:
            for row in reader:
                if row:
                    clip = (row[youtube], int(float(row[start])), int(float(row[end])))
                    rows[clip] = row[label].strip() if label is not None else ""
        except (IndexError, ValueError, OverflowError, csv.Error) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}.") from None
    return rows
