"""Sports-1M: partition files of URLs with label sets, 487 classes in the order of labels.txt; one file a video.

Videos carry one or more labels; a hit is any of them. Only "train" and "test" were published. Where the original partition is
not there, the first of the ten of cross-validation that is; in these a video may be in both for different labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from csn.data import Sample, Split
from csn.data.media import Media, annotation, fingerprint, lines, one_of, stem
from csn.spec import UserError

FOLDERS = ("original", "annotations", "cross-validation")
PLACES = (".", *FOLDERS, "sports-1m-dataset", *(f"sports-1m-dataset/{folder}" for folder in FOLDERS))


def load(root: Path, split: str, files: Sequence[str]) -> Split:
    """Split "train" or "test" of the videos `files`, named <id>.<any ending>. Raises UserError."""
    one_of(split, "train", "test")
    folds = [f"sports{fold}_{split}.txt{ending}" for fold in range(10) for ending in ("", ".gz")]
    names = (f"{split}_partition.txt", f"{split}_partition.txt.gz", f"sports1m_{split}.json", *folds)
    path = annotation(root, PLACES, names, f"The {split} partition of Sports-1M")
    classes = tuple(name for _, name in lines(annotation(root, PLACES, ("labels.txt", "labels.txt.gz"), "The class list of Sports-1M")))
    labels: dict[str, set[int]] = {}
    for line, video, numbers in read_json(path) if path.suffix == ".json" else read_partition(path):
        for number in numbers:
            if not 0 <= number < len(classes):
                raise UserError(f"{path}, line {line}: label {number} is not among the {len(classes)} of labels.txt.")
        labels.setdefault(video, set()).update(numbers)
    media = Media(root, files, stem)
    samples, missing = [], []
    for video, own in labels.items():
        if (file := media.find(video)) is not None:
            samples.append(Sample(file, tuple(sorted(own)), video))
        else:
            missing.append(video)
    return Split(tuple(samples), classes, tuple(missing), fingerprint(samples, classes))


def read_partition(path: Path) -> Iterator[tuple[int, str, list[int]]]:
    """(line, id, labels) of "URL 168,169" lines, plain or gzip."""
    for number, line in lines(path):
        try:
            url, labels = line.split()
            yield number, youtube_id(url), [int(label) for label in labels.split(",")]
        except (ValueError, KeyError):
            raise UserError(f"{path}, line {number}: {line[:80]!r} is no URL with label numbers.") from None


def read_json(path: Path) -> Iterator[tuple[int, str, list[int]]]:
    """(position from 1, id, labels) of the records of the JSON form."""
    try:
        for number, record in enumerate(json.loads(path.read_text(encoding="utf-8-sig")), 1):
            if not (labels := [int(label) for label in record["label487"]]):
                raise ValueError(f"record {number} has no label")
            yield number, record["id"], labels
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of records with `id` and `label487` ({error!r}).") from None


def youtube_id(url: str) -> str:
    """The id in a watch URL, with http or https and further parameters. Raises KeyError where there is none."""
    return parse_qs(urlsplit(url).query)["v"][0]
