"""A plain set: root/<class>/<video>, root/<split>/<class>/<video>, or a list root/<split>.txt or .csv (csn.data.lists).

Classes: the lines of root/classes.txt if there is one, else the sorted folder names, or the numbers in the lists of all splits. A
class without videos keeps its number. Videos to test on may be called val or validation too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csn.data import Sample, Split, lists
from csn.data.media import fingerprint, lines
from csn.spec import UserError

NAMES = {"train": ("train",), "test": ("test", "val", "validation"), "val": ("val", "validation"), "validation": ("validation", "val")}


def load(root: Path, split: str, files: Sequence[str]) -> Split:
    """The videos of a list or folder of the split, or below root itself where no split has either: then every split is all of it.

    Videos beside the class folders are named in `outside`.

    Raises UserError where another split has a list or folder and this one has none, where there are no classes, or a folder is not
    in classes.txt.
    """
    names = NAMES.get(split, (split,))
    for listed in (root / f"{name}.{ending}" for name in names for ending in ("txt", "csv")):
        if listed.is_file():
            named = root / "classes.txt"
            every = (root / f"{name}.{ending}" for own in NAMES.values() for name in own for ending in ("txt", "csv"))
            beside = {path for path in every if path.is_file()} - {listed}
            return lists.load(root, listed, files, [line for _, line in lines(named)] if named.is_file() else None, beside)
    base = next((root / name for name in names if (root / name).is_dir()), root)
    if base == root and (other := part_of(root)):
        raise UserError(f"`split` (={split}) is neither a folder nor a list of {root}, which has {other.name}; add {names[0]}/ or {names[0]}.txt.")
    classes = read_classes(root, base)
    number = {name: i for i, name in enumerate(classes)}
    prefix = "" if base == root else f"{base.name}/"
    samples, outside = [], []
    for file in files:
        folder, inside, _ = file.removeprefix(prefix).partition("/")
        if not inside or "/" not in file:
            outside.append(file)
        elif file.startswith(prefix):
            if folder not in number:
                source = "in classes.txt" if (root / "classes.txt").is_file() else f"among the class folders of {root / 'train'}"
                raise UserError(f"The folder {folder!r} of {base} is not {source}; add it there, or move it away.")
            samples.append(Sample(root / file, (number[folder],), file))
    return Split(tuple(samples), classes, fingerprint=fingerprint(samples, classes), outside=tuple(outside))


def part_of(root: Path) -> Path | None:
    """A folder or list of some split, if root has one."""
    names = (root / f"{name}{ending}" for own in NAMES.values() for name in own for ending in ("", ".txt", ".csv"))
    return next((path for path in names if path.exists()), None)


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
