"""Something-Something V1 (folders of JPEG pictures) and V2 (webm), 174 classes each; left and right matter: no mirror.

Classes of V1: the lines of something-something-v1-labels.csv in their order, as mmaction2 numbers them (TSM and TRN sort
them, and 173 of the 174 numbers differ). Classes of V2: the numbers in labels.json, which is alphabetical order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csn.data import Split
from csn.data.media import Media, annotation, lines, listed, one_of, stem
from csn.spec import UserError

PLACES = (".", "annotations", "labels")


def load_v1(root: Path, split: str, files: Sequence[str]) -> Split:
    """Split "train" or "validation" of V1. Videos are folders <id>/00001.jpg or files <id>.mp4. Raises UserError."""
    one_of(split, "train", "validation")
    what = "Something-Something V1"
    labels = annotation(root, PLACES, ("something-something-v1-labels.csv",), f"The class list of {what}")
    classes = tuple(line for _, line in lines(labels))
    path = annotation(root, PLACES, (f"something-something-v1-{split}.csv",), f"The {split} list of {what}")
    rows = []
    for number, line in lines(path):  # templates hold commas, so this is no csv
        video, found, template = line.partition(";")
        if not found:
            raise UserError(f"{path}, line {number}: {line[:80]!r} is not `id;template`.")
        rows.append((video, template))
    return _split(Media(root, files, stem, "20bn-something-something-v1", ""), rows, classes, path)


def load_v2(root: Path, split: str, files: Sequence[str]) -> Split:
    """Split "train" or "validation" of V2. Videos are <id>.webm, or folders of pictures. Raises UserError."""
    one_of(split, "train", "validation")
    what = "Something-Something V2"
    names = _read(annotation(root, PLACES, ("something-something-v2-labels.json", "labels.json"), f"The class list of {what}"))
    try:
        classes = tuple(sorted(names, key=lambda name: int(names[name])))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"The class list of {what} below {root} is no map of names to numbers.") from None
    if [int(names[name]) for name in classes] != list(range(len(classes))):
        raise UserError(f"The numbers in the class list of {what} below {root} are not 0 to {len(classes) - 1}.")
    path = annotation(root, PLACES, (f"something-something-v2-{split}.json", f"{split}.json"), f"The {split} list of {what}")
    try:  # `label` is free text, the class is the template without its brackets
        rows = [(str(row["id"]), row["template"].replace("[", "").replace("]", "")) for row in _read(path)]
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is no list of records with `id` and `template`.") from None
    return _split(Media(root, files, stem, "20bn-something-something-v2", ".webm"), rows, classes, path)


def _split(media: Media, rows: list[tuple[str, str]], classes: tuple[str, ...], path: Path) -> Split:
    number = {name: i for i, name in enumerate(classes)}
    for video, template in rows:
        if template not in number:
            raise UserError(f"{path}: the template {template!r} of video {video} is not in the class list.")
    return listed(((video, video, number[template], media.find(video)) for video, template in rows), classes, path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}).") from None
