"""HMDB51: one list a class and fold, flags 0 (unused), 1 (train), 2 (test); 51 classes in sorted order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csn.data import Split
from csn.data.media import Media, lines, listed, one_of
from csn.data.ucf101 import key
from csn.spec import UserError

PLACES = (".", "testTrainMulti_7030_splits", "test_train_splits", "annotations", "splits")
FLAGS = {"train": "1", "test": "2"}


def load(root: Path, split: str, files: Sequence[str], fold: int = 1) -> Split:
    """Split "train" or "test" of a fold (1 to 3); clips lie in <class>/<clip>.avi. Raises UserError."""
    one_of(split, *FLAGS)
    ending = f"_test_split{fold}.txt"
    lists = next((found for place in PLACES if (found := _lists(root / place, ending))), [])
    if not lists:
        raise UserError(f"The lists of HMDB51 not found: put the folder {PLACES[1]} (<class>{ending}) into {root}.")
    classes = tuple(path.name.removesuffix(ending) for path in lists)
    media = Media(root, files, key, "hmdb51_org", ".avi")
    rows = []
    for label, path in enumerate(lists):
        for line, text in lines(path):
            name, _, flag = text.rpartition(" ")
            if flag not in ("0", "1", "2") or not name:
                raise UserError(f"{path}, line {line}: {text[:80]!r} is not a clip and 0, 1 or 2.")
            if flag != FLAGS[split]:
                continue
            video = f"{classes[label]}/{name.strip()}"
            rows.append((key(video), video, label, media.find(key(video))))
    return listed(rows, classes, lists[0].parent)


def _lists(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith("."))
    return sorted(named, key=lambda p: p.name.removesuffix(ending))
