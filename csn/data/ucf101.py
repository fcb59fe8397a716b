"""UCF101: three folds of train and test lists, 101 classes numbered from 1 in classInd.txt (kept from 0 here).

The official order is alphabetical without regard to case, so sorted folder names swap four classes. Test lists have no
label: the folder part of the path is the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csn.data import Split
from csn.data.media import Media, annotation, lines, listed, one_of, stem
from csn.spec import UserError

PLACES = (".", "ucfTrainTestlist", "annotations", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist")


def load(root: Path, split: str, files: Sequence[str], fold: int = 1) -> Split:
    """Split "train" or "test" of a fold (1 to 3); files lie in class folders, .avi or any other ending. Raises UserError."""
    one_of(split, "train", "test")
    path = annotation(root, PLACES, ("classInd.txt",), "The class list of UCF101")
    classes = read_classes(path)
    number = {name: i for i, name in enumerate(classes)}
    media = Media(root, files, key, "UCF-101", ".avi")
    folded = Media(root, files, lambda file: key(file).lower(), "UCF-101", ".avi")  # copies from disks without case
    rows = []
    path = annotation(root, PLACES, (f"{split}list{fold:02d}.txt",), f"The {split} list {fold} of UCF101")
    for line, text in lines(path):
        name, _, label = text.partition(" ")
        folder = name.rpartition("/")[0]
        if folder not in number:
            raise UserError(f"{path}, line {line}: the class {folder!r} of {name!r} is not in classInd.txt.")
        if label and label.strip() != str(number[folder] + 1):
            raise UserError(f"{path}, line {line}: label {label.strip()} is not that of {folder}, {number[folder] + 1}.")
        rows.append((stem(name), name, number[folder], media.find(key(name)) or folded.find(key(name).lower())))
    return listed(rows, classes, path)


def key(path: str) -> str:
    """Class folder and name without ending: UCF-101/Archery/v_Archery_g01_c01.avi is Archery/v_Archery_g01_c01."""
    return "/".join((*path.split("/")[-2:-1], stem(path)))


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of "1 ApplyEyeMakeup" lines; raises UserError unless they are numbered from 1."""
    names: list[str] = []
    for line, text in lines(path):
        label, _, name = text.partition(" ")
        if label != str(len(names) + 1):
            raise UserError(f"{path}, line {line}: {label!r} where class {len(names) + 1} should be.")
        names.append(name.strip())
    return tuple(names)
