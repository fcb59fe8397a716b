"""The list formats of other tools: a label list beside any layout of videos or frame folders.

    path label                      SlowFast, VideoMAE, mmaction2; one line may carry several labels
    folder frames label             TSM, mmaction2: a folder of pictures
    folder first frames label       the same with the number of its first picture
    org_video,label[,start_frm]     VMZ: a csv with a header
A path may hold blanks, so lines are split from the right. Labels count from 0.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csn.data import Sample, Split
from csn.data.media import VIDEOS, fingerprint, lines
from csn.spec import UserError


@dataclass(frozen=True)
class Row:
    """One line: path as written, labels, number of the first picture (None: from the beginning)."""

    path: str
    labels: tuple[int, ...]
    first: int | None = None


def load(root: Path, file: Path, files: Sequence[str], classes: Sequence[str] | None = None) -> Split:
    """The videos of a list below root. classes: their names in order; without them the numbers are the names.

    Raises UserError where a line is malformed, a label has no class, or a frame folder is to be read from its middle.
    """
    rows = read_list(file)
    if not rows:
        raise UserError(f"The list {file} is empty.")
    names = tuple(classes or map(str, range(max(max(row.labels) for row in rows) + 1)))
    present, samples, missing = set(files), [], []
    for row in rows:
        if not 0 <= min(row.labels) <= max(row.labels) < len(names):
            raise UserError(f"{file}: label {max(row.labels)} of {row.path!r} is not among the {len(names)} classes.")
        if row.first not in (None, 0, 1):
            raise UserError(f"{file}: {row.path!r} begins at picture {row.first}; cut such clips into folders of their own.")
        path = row.path.removeprefix(f"{root}/").removeprefix("./").rstrip("/")
        if path in present:
            samples.append(Sample(root / path, row.labels, path))
        else:
            missing.append(row.path)
    return Split(tuple(samples), names, tuple(missing), fingerprint(samples, names))


def read_list(file: Path) -> list[Row]:
    """The rows of a list in any of the forms; one form a file. Raises UserError naming the line."""
    content = list(lines(file))
    if content and "," in content[0][1] and "label" in content[0][1].lower().split(","):
        return _read_csv(file)
    split = [(number, *_cut(line)) for number, line in content]
    for number, path, numbers in split:
        if not path or not numbers:
            raise UserError(f"{file}, line {number}: not `path label`, `folder frames label` or `folder first frames label`.")
    if all(path.lower().endswith(VIDEOS) for _, path, _ in split):
        return [Row(path, tuple(numbers)) for _, path, numbers in split]
    width = min(min(len(numbers) for _, _, numbers in split), 3)  # a folder's name may end in numbers, too
    rows = []
    for _, path, numbers in split:
        folder = " ".join((path, *map(str, numbers[:-width])))
        rows.append(Row(folder, (numbers[-1],), numbers[-3] if width == 3 else None))
    return rows


def _cut(line: str) -> tuple[str, list[int]]:
    """Path and the numbers after it, from the right as far as they are numbers and the rest is no video name."""
    rest, numbers = line, list[int]()
    while not rest.lower().endswith(VIDEOS):
        head, _, last = rest.replace(",", " ").rpartition(" ") if "," in rest else rest.rpartition(" ")
        if not head or not last.isdigit():
            break
        numbers.insert(0, int(last))
        rest = rest[: len(head)].rstrip()
    return rest, numbers


def _read_csv(file: Path) -> list[Row]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        column = next((name for name in ("org_video", "video", "path") if name in (reader.fieldnames or ())), None)
        if column is None:
            raise UserError(f"{file} has no column org_video in its first line; add the header.")
        try:
            return [Row(row[column], (int(row["label"]),), int(row.get("start_frm") or 0) or None) for row in reader]
        except (TypeError, ValueError) as error:
            raise UserError(f"{file}, line {reader.line_num}: {error}.") from None
