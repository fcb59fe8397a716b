"""A plain set: root/<class>/<video>, root/<split>/<class>/<video>, or a list root/<split>.txt or .csv (csn.data.lists).

Classes: the lines of root/classes.txt if there is one, else the sorted folder names. A class without videos keeps its
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csn.data import Sample, Split, lists
from csn.data.media import fingerprint, lines
from csn.spec import UserError


def load(root: Path, split: str, files: Sequence[str]) -> Split:
    """The videos below root/<split>, or below root itself where there is no such folder: then every split is all of it.

    Raises UserError where there are no classes, or a folder is not in classes.txt.
    """
    for listed in (root / f"{split}.txt", root / f"{split}.csv"):
        if listed.is_file():
            named = root / "classes.txt"
            return lists.load(root, listed, files, [line for _, line in lines(named)] if named.is_file() else None)
    base = root / split if (root / split).is_dir() else root
    if base == root and any((root / name).is_dir() for name in ("train", "val", "validation", "test")):
        raise UserError(f"`split` (={split}) is no folder of {root}, which has splits of its own.")
    classes = read_classes(root, base)
    number = {name: i for i, name in enumerate(classes)}
    prefix = "" if base == root else f"{split}/"
    samples = []
    for file in files:
        folder, inside, _ = file.removeprefix(prefix).partition("/")
        if file.startswith(prefix) and inside:
            if folder not in number:
                raise UserError(f"The folder {folder!r} of {base} is not in classes.txt.")
            samples.append(Sample(root / file, (number[folder],), file))
    return Split(tuple(samples), classes, fingerprint=fingerprint(samples, classes))


def read_classes(root: Path, base: Path) -> tuple[str, ...]:
    """Class names in order: classes.txt, else the class folders of base (of train, where base is a split)."""
    if (root / "classes.txt").is_file():
        return tuple(line for _, line in lines(root / "classes.txt"))
    train = root / "train"
    source = train if base != root and train.is_dir() else base
    classes = tuple(sorted(path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not classes:
        raise UserError(f"{source} has no class folders; put videos into {source}/<class>/.")
    return classes
