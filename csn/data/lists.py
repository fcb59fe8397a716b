"""The list formats of other tools: a label list beside any layout of videos or frame folders.

    path label                      SlowFast, VideoMAE, mmaction2; one line may carry several labels
    folder frames label             TSM, mmaction2: a folder of pictures, of which the first `frames` are the video
    folder first frames label       mmaction2: the `frames` pictures after the `first` ones
    org_video,label[,start_frm]     VMZ: a csv with a header; start_frm: the frames before the video, which goes to the file's end
A path may hold blanks, so lines are split from the right, at blanks, tabs or commas. Labels count from 0.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from csn.data import Sample, Split
from csn.data.media import VIDEOS, fingerprint, lines
from csn.spec import UserError

MOST_CLASSES = 100_000  # a greater label is a number of something else


@dataclass(frozen=True)
class Row:
    """One line: its number, path as written, labels, frames before the video and in it (None: all)."""

    line: int
    path: str
    labels: tuple[int, ...]
    first: int = 0
    count: int | None = None


def load(root: Path, file: Path, files: Sequence[str], classes: Sequence[str] | None = None, others: Iterable[Path] = ()) -> Split:
    """The videos of a list below root. classes: their names in order; without them the numbers in this list and in `others`, those of
    the other splits, are the names.

    A line that is there twice counts once; a video of no frames is missing.

    Raises UserError where a line is malformed, a label has no class, or a video has two labels.
    """
    present = set(files)
    rows = read_list(root, file, present)
    if not rows:
        raise UserError(f"The list {file} is empty.")
    numbers = [label for row in rows + [row for other in others for row in read_list(root, other, present)] for label in row.labels]
    names = tuple(classes or map(str, range(min(max(numbers) + 1, MOST_CLASSES))))
    labels: dict[tuple[str, int, int | None], tuple[int, ...]] = {}
    samples, missing, repeated = [], [], []
    parts = Counter(path for path, _, _ in {(row.path, row.first, row.count) for row in rows})
    for row in rows:
        if not 0 <= min(row.labels) <= max(row.labels) < len(names):
            raise UserError(f"{file}, line {row.line}: label {max(row.labels)} of {row.path!r} is not among the {len(names)} classes.")
        path, part = below(root, row.path), (row.path, row.first, row.count)
        video = path if parts[row.path] == 1 else f"{path}:{row.first}" + (f"+{row.count}" if row.count else "")
        again = part in labels
        if labels.setdefault(part, row.labels) != row.labels:
            now, before = (" ".join(map(str, one)) for one in (row.labels, labels[part]))
            raise UserError(f"{file}, line {row.line}: {row.path!r} has label {now}, in an earlier line {before}; remove one of the two.")
        if again:
            repeated.append(video)
        elif path in present and row.count != 0:
            samples.append(Sample(root / path, row.labels, video, row.first, row.count))
        else:
            missing.append(video)
    return Split(tuple(samples), names, tuple(missing), fingerprint(samples, names), repeated=tuple(repeated))


def below(root: Path, path: str) -> str:
    """A path of a list as an index has it: relative to root."""
    return path.removeprefix(f"{root}/").removeprefix("./").rstrip("/")


def read_list(root: Path, file: Path, present: Container[str]) -> list[Row]:
    """The rows of a list in any of the forms; one form a file. present: what is there below root. Raises UserError naming the line."""
    content = list(lines(file))
    if content and "label" in [name.strip() for name in content[0][1].lower().split(",")]:
        return _read_csv(file)
    split = [(number, *_cut(line)) for number, line in content]
    for number, path, numbers in split:
        if not path or not numbers:
            raise UserError(f"{file}, line {number}: not `path label`, `folder frames label` or `folder first frames label`.")
    one = next((path for _, path, _ in split if below(root, path) in present), "")
    pictures = one != "" and (root / below(root, one)).is_dir()  # folders may be called like the films that they were made from
    if not pictures and all(path.lower().endswith(VIDEOS) for _, path, _ in split):
        return [Row(number, path, tuple(numbers)) for number, path, numbers in split]
    width = min(min(len(numbers) for _, _, numbers in split), 3)  # a folder's name may end in numbers, too
    rows = []
    for number, path, numbers in split:
        folder = " ".join((path, *map(str, numbers[:-width])))
        rows.append(Row(number, folder, (numbers[-1],), numbers[-3] if width == 3 else 0, numbers[-2] if width > 1 else None))
    return rows


def _cut(line: str) -> tuple[str, list[int]]:
    """Path and the numbers after it, from the right as far as they are numbers and the rest is no video name."""
    rest, numbers = line.replace("\t", " "), list[int]()
    while not rest.lower().endswith(VIDEOS):
        head, _, last = rest.replace(",", " ").rpartition(" ") if "," in rest else rest.rpartition(" ")
        if not head or not last.isdecimal() or len(last) > 9:
            break
        numbers.insert(0, int(last))
        rest = rest[: len(head)].rstrip(" ,")
    return rest, numbers


def _read_csv(file: Path) -> list[Row]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        column = next((name for name in ("org_video", "video", "path") if name in (reader.fieldnames or ())), None)
        if column is None:
            raise UserError(f"{file} has no column org_video in its first line; add the header.")
        try:
            rows = [Row(reader.line_num, row[column], (int(row["label"]),), int(row.get("start_frm") or 0)) for row in reader]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{file}, line {reader.line_num}: {error}.") from None
    for row in rows:
        if not row.path or row.first < 0:
            raise UserError(f"{file}, line {row.line}: it names no video, or a first frame below 0.")
    return rows
