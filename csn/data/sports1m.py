"""Sports-1M: partition files of URLs with label sets, 487 classes in the order of labels.txt; one file a video.

Videos carry one or more labels; a hit is any of them. Only "train" and "test" were published.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from csn.data import Sample, Split
from csn.data.media import Media, annotation, fingerprint, lines, one_of, stem
from csn.spec import UserError

PLACES = (".", "original", "annotations", "sports-1m-dataset", "sports-1m-dataset/original")


def load(root: Path, split: str, files: Sequence[str]) -> Split:
    """Split "train" or "test" of the videos `files`, named <id>.<any ending>. Raises UserError."""
    one_of(split, "train", "test")
    names = (f"{split}_partition.txt", f"{split}_partition.txt.gz", f"sports1m_{split}.json")
    path = annotation(root, PLACES, names, f"The {split} partition of Sports-1M")
    classes = tuple(name for _, name in lines(annotation(root, PLACES, ("labels.txt",), "The class list of Sports-1M")))
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
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); perhaps it was not downloaded whole.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            url, labels = line.split()
            yield number, youtube_id(url), [int(label) for label in labels.split(",")]
        except (ValueError, KeyError):
            raise UserError(f"{path}, line {number}: {line.strip()[:80]!r} is no URL with label numbers.") from None


def read_json(path: Path) -> Iterator[tuple[int, str, list[int]]]:
    """(position from 1, id, labels) of the records of the JSON form."""
    try:
        for number, record in enumerate(json.loads(path.read_text(encoding="utf-8")), 1):
            yield number, record["id"], [int(label) for label in record["label487"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of records with `id` and `label487` ({error!r}).") from None


def youtube_id(url: str) -> str:
    """The id in a watch URL, with http or https and further parameters. Raises KeyError where there is none."""
    return parse_qs(urlsplit(url).query)["v"][0]
