"""What lies below a data root: video files of any kind and folders of numbered pictures, as relative paths."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from csn.data import Sample, Split
from csn.data.images import FLOW, NUMBER, PICTURES
from csn.spec import UserError

VIDEOS = (".mp4", ".avi", ".webm", ".mkv", ".flv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".3gp", ".gif")


def listing(root: Path) -> list[str]:
    """Sorted relative paths, with "/", of all videos below root; a folder with numbered pictures is one video, unless they are
    optical flow or lie beside video files, as thumbnails do.

    Links are followed, every folder once. Raises UserError where root is no folder, or a folder below it cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"The data root {root} is not a folder; give the folder that holds the videos with --root.")
    found, seen = [], set()
    for folder, below, files in os.walk(root, onerror=_unreadable, followlinks=True):
        inode = Path(folder).stat()
        if (inode.st_dev, inode.st_ino) in seen:
            below.clear()
            continue
        seen.add((inode.st_dev, inode.st_ino))
        below[:] = [name for name in below if not name.startswith(".")]  # what a system or an editor keeps beside our files
        files = [name for name in files if not name.startswith(".")]
        relative = os.path.relpath(folder, root)
        prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
        films = [prefix + name for name in files if name.lower().endswith(VIDEOS)]
        found += films
        if prefix and not films and any(NUMBER.search(name) and name.lower().endswith(PICTURES) and not name.lower().startswith(FLOW) for name in files):
            found.append(prefix[:-1])
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise UserError(f"The folder {error.filename} cannot be read ({error.strerror}); let it be read, or move it out of the data root.")


def stem(path: str) -> str:
    """Name of a video without its folder and its ending; folders of pictures keep their name whole."""
    name = path.rsplit("/", 1)[-1]
    head, dot, ending = name.rpartition(".")
    return head if dot and f".{ending.lower()}" in VIDEOS else name


class Media:
    """The file or folder of pictures of each video by its name, whatever else people keep below the root.

    name: of a path. folder, ending: where the set was published and as what ("" for folders of pictures). Of several media for
    one video those in the published folder are taken, of these those with the published ending; never what lies below a
    folder named flow...
    """

    def __init__(self, root: Path, files: Iterable[str], name: Callable[[str], str], folder: str = "", ending: str | None = None) -> None:
        self.root, self.folder, self.ending = root, folder, ending
        self.at: dict[str, list[str]] = defaultdict(list)
        for file in files:
            self.at[name(file)].append(file)

    def find(self, name: str) -> Path | None:
        """None where there is none; raises UserError where it is not clear which."""
        found = self._best(self.at.get(name, []))
        if len(found) > 1:
            more = sum(len(self._best(files)) > 1 for files in self.at.values()) - 1
            others = f", and so for {more} more" if more else ""
            raise UserError(f"Two videos below {self.root} may be {name}: {found[0]} and {found[1]}{others}; move one of the two away and scan again.")
        return self.root / found[0] if found else None

    def _best(self, files: list[str]) -> list[str]:
        if len(files) == 1 and "flow" not in files[0].lower():  # most of them, quickly
            return files
        kept = [file for file in files if not any(part.lower().startswith("flow") for part in file.split("/")[:-1])]
        kept = [file for file in kept if self.folder in file.split("/")[:-1]] or kept
        return [file for file in kept if self.ending is not None and file.lower().endswith(self.ending or stem(file).lower())] or kept


def annotation(root: Path, places: Iterable[str], names: Iterable[str], what: str) -> Path:
    """The first of root/place/name that exists; raises UserError that says what was looked for."""
    tried = [root / place / name for place in places for name in names]
    for path in tried:
        if path.is_file():
            return path
    few = list(dict.fromkeys(path.name for path in tried))[:3]
    raise UserError(f"{what} not found: put {' or '.join(few)} into {root}.")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, content) of the lines that are not blank, UTF-8, without CR, of a file or of one in gzip; raises UserError."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; check its name.") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}); perhaps it was not downloaded whole.") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def listed(rows: Iterable[tuple[str, str, int, Path | None]], classes: Sequence[str], source: Path) -> Split:
    """The Split of a list's rows: (id of the video, its name in the list, label, its file or None where it is missing).

    A video that is listed again counts once. Raises UserError where it has another label there.
    """
    labels: dict[str, int] = {}
    samples, missing, repeated = list[Sample](), list[str](), list[str]()
    for video, name, label, file in rows:
        if (before := labels.setdefault(video, label)) != label:
            raise UserError(f"{source}: {name} is of class {classes[label]!r}, in an earlier line of {classes[before]!r}; remove one of the two.")
        if len(labels) == len(samples) + len(missing):
            repeated.append(video)
        elif file is None:
            missing.append(name)
        else:
            samples.append(Sample(file, (label,), video))
    return Split(tuple(samples), tuple(classes), tuple(missing), fingerprint(samples, classes), repeated=tuple(repeated))


def one_of(split: str, *known: str) -> None:
    """Raise UserError unless split is one of the known names."""
    if split not in known:
        raise UserError(f"`split` (={split}) must be one of {', '.join(known)}.")


def fingerprint(samples: Iterable[Sample], classes: Iterable[str]) -> str:
    """First 16 hex digits of the SHA-256 over class names, video ids and labels, and the frames where a list gives them."""
    digest = hashlib.sha256("\n".join(classes).encode())
    for sample in samples:
        frames = f" {sample.first}+{sample.count}" if sample.first or sample.count is not None else ""
        digest.update(f"\n{sample.video} {sample.labels}{frames}".encode(errors="surrogateescape"))  # file names are bytes
    return digest.hexdigest()[:16]
