"""Deepfake Detection Challenge: metadata.json or labels.csv beside the videos; classes REAL = 0, FAKE = 1.

Training parts come without a validation split. Split "train" and "val" part them here, a real video and every fake made
from it always on one side, that of the real one: where there are several parts, every tenth part (0, 10, ...; every tenth of those there,
where their numbers do not part them) is "val"; in a single part, the tenth of the real videos whose names hash to 0 modulo 10 are, with
their fakes, so every fake there has to name its original. "test" is a folder of its own with labels (test, validation or
private). The score of a video is the probability of FAKE.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from csn.data import Sample, Split
from csn.data.media import fingerprint, one_of
from csn.spec import UserError

CLASSES = ("REAL", "FAKE")
LISTS = ("metadata.json", "small_metadata.json", "labels.csv")  # where a folder has several, the first: labels.csv names no originals
HELD_OUT = ("test", "validation", "private")  # first letters of the names of folders that are no training part
NUMBER = re.compile(r"(\d+)$")
Row = tuple[str, int, str]  # file name, label, original ("" for a real video)


def load(root: Path, split: str, files: Sequence[str]) -> Split:
    """Split "train", "val" or "test". Raises UserError where a list is absent or damaged."""
    one_of(split, "train", "val", "test")
    lists = {path.parent: path for name in reversed(LISTS) for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}{name}")}  # one a folder
    parts = {folder: path for folder, path in lists.items() if (folder != root and folder.name.startswith(HELD_OUT)) == (split == "test")}
    if not parts:
        where = "a folder test or validation" if split == "test" else "the parts dfdc_train_part_0 ..."
        raise UserError(f"No {' or '.join(LISTS)} found for split {split}: put {where} into {root}.")
    present, samples, missing = set(files), [], []
    order = sorted(parts, key=part_number)
    groups = [part_number(folder)[0] for folder in order]
    if min(groups) < 0 or len({number % 10 == 0 for number in groups}) == 1:
        groups = list(range(len(order)))
    rows = {folder: read_list(parts[folder]) for folder in order}
    part_of = {name: number for folder, number in zip(order, groups, strict=True) for name, _, _ in rows[folder]}
    at: dict[str, Path] = {}
    for folder, number in zip(order, groups, strict=True):
        for name, label, original in rows[folder]:
            if split != "test":
                if label and not original and len(parts) == 1:
                    raise UserError(
                        f"{parts[folder]} does not say of which video the fake {name} was made, so its only part cannot be split into train and"
                        " val without leaks; add a second part, or a metadata.json with `original`."
                    )
                if at.setdefault(name, folder) != folder:
                    raise UserError(f"{name} lies in {at[name]} and in {folder}, which would train and test on one video; move one of the two away.")
                group = part_of.get(original, number) if len(parts) > 1 else crc32((original or name).encode())
                if (group % 10 == 0) != (split == "val"):
                    continue
            path = folder / name
            video = path.relative_to(root).as_posix()
            if video in present:
                samples.append(Sample(path, (label,), video))
            else:
                missing.append(video)
    return Split(tuple(samples), CLASSES, tuple(missing), fingerprint(samples, CLASSES))


def part_number(folder: Path) -> tuple[int, str]:
    """The number at the end of a part's name (-1 without one) and the name: the order of the parts."""
    number = NUMBER.search(folder.name)
    return int(number[1]) if number else -1, folder.name


def read_list(path: Path) -> list[Row]:
    """Rows of metadata.json ({file: {"label" or "is_fake", "original"?}}) or labels.csv (filename,label)."""
    try:
        if path.suffix == ".json":
            content: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8-sig"))
            for name, row in content.items():
                if Path(name).is_absolute() or not isinstance(row.get("original"), str | None):
                    raise ValueError(f"{name!r}: {row} does not go with file names below the folder")
            return [(name, label_of(row["label"] if "label" in row else row["is_fake"]), row.get("original") or "") for name, row in content.items()]
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
        return [(row[0], label_of(row[1]), "") for row in rows if row[0].lower() not in ("filename", "file", "video")]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError, csv.Error) as error:
        raise UserError(f"{path} is no list of DFDC ({type(error).__name__}: {error}).") from None


def label_of(value: object) -> int:
    """0 or 1 of REAL, FAKE in any case, of 0, 1, or of false, true; raises ValueError."""
    text = str(int(value) if isinstance(value, bool) else value).strip().upper()
    if text in CLASSES:
        return CLASSES.index(text)
    number = float(text)
    if number not in (0.0, 1.0):
        raise ValueError(f"{value!r} is neither REAL, FAKE, 0 nor 1")
    return int(number)
