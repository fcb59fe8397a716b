"""Check every video below a root in worker processes, once; training then starts from the index this leaves.

    index = scan(root, listing(root), index_file(root), workers=8, seconds=60)
    plan = index.plan(path)    # VideoPlan for read_frames, or a VideoError that says what the scan found

The index is a text file of one JSON object a line, in the order the checks ended, the last line of a path counts: an
interrupted scan goes on where it stopped, a changed file is checked again. A check that hangs or crashes takes its
worker along, never the scan; the file is named as damaged and the worker replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from csn.data import Split
from csn.data.images import pictures
from csn.data.video import VideoError, VideoPlan, probe
from csn.data.workers import Pool, refuse_while_starting
from csn.files import Held, locked
from csn.spec import UserError, require

BEGIN = b'{"path": '  # of every line of an index
SECONDS_PER_MB = 5.0  # a film of 720p is decoded twice in about 3
Check = Callable[[str], VideoPlan]


@dataclass(frozen=True)
class Entry:
    """What a scan found. size, mtime_ns: of the file then, of a folder the sum and the newest of its pictures; digest: SHA-256 of
    its bytes, "" where the check did not come to an end; error: "" where plan is set; quick: whether the check was the quick one."""

    path: str
    size: int
    mtime_ns: int
    digest: str
    plan: VideoPlan | None
    error: str
    quick: bool = False


@dataclass(frozen=True)
class Index:
    """The entries of a scan by path relative to root."""

    root: Path
    entries: dict[str, Entry]

    @property
    def damaged(self) -> dict[str, str]:
        """What is wrong with each file that cannot be read, or not to its end: {path: reason}, sorted."""
        wrong = {path: entry.error or (entry.plan.damage if entry.plan else "") for path, entry in self.entries.items()}
        return {path: wrong[path] for path in sorted(wrong) if wrong[path]}

    def marked(self, split: Split) -> Split:
        """The split with the names of its videos that cannot be read, or not to their end: the file's, or that which a list gives them."""
        unreadable = self._of(split, lambda entry: bool(entry.error))
        cut = self._of(split, lambda entry: bool(entry.plan and entry.plan.damage))
        none, few = [], []
        for sample in split.samples:
            if sample.first or sample.count is not None:  # a list counts the frames, too
                entry = self.entries.get(self._below(sample.path))
                frames = entry.plan.frames if entry is not None and entry.plan is not None else None
                if frames is not None and frames <= sample.first:
                    none.append(sample.video)
                elif frames is not None and frames < sample.first + (sample.count or 0):
                    few.append(sample.video)
        return replace(split, unreadable=tuple(dict.fromkeys((*unreadable, *none))), cut=tuple(dict.fromkeys((*cut, *few))))

    def timeless(self, split: Split) -> tuple[str, ...]:
        """The videos of the split that can be read and have no frame rate: folders of pictures, and films that do not tell it."""
        return self._of(split, lambda entry: entry.plan is not None and entry.plan.fps <= 0)

    def small(self, split: Split, side: int) -> tuple[str, ...]:
        """The videos of the split that can be read and whose frames hold no square of so many pixels."""
        return self._of(split, lambda entry: entry.plan is not None and min(entry.plan.height, entry.plan.width) < side)

    def _of(self, split: Split, such: Callable[[Entry], bool]) -> tuple[str, ...]:
        paths = {str(self.root / path) for path, entry in self.entries.items() if such(entry)}
        return tuple(sample.video for sample in split.samples if str(sample.path) in paths) if paths else ()

    def _below(self, path: str | os.PathLike[str]) -> str:
        """A path as the entries have it."""
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def plan(self, path: str | os.PathLike[str]) -> VideoPlan:
        """How to read a video below root; raises VideoError where it is damaged, was not scanned, or has changed."""
        entry = self.entries.get(self._below(path))
        if entry is None:
            raise VideoError(path, "it is not in the index; run the scan again.")
        if entry.plan is None:
            raise VideoError(path, entry.error)
        try:
            unchanged = entry.plan.reader == "pictures" or self._is_the_same(Path(path), entry)  # read_frames counts the pictures
        except OSError as error:
            raise VideoError(path, f"{error.strerror}.") from None
        if not unchanged:
            raise VideoError(path, "it has changed since the scan; run the scan again.")
        return entry.plan

    @staticmethod
    def _is_the_same(path: Path, entry: Entry) -> bool:
        """Whether a file is the one that was scanned: by size and time; of equal size and another time, by its bytes, once a process.

        Copies that keep the time, to whole seconds at least (cp -a, rsync -a, tar), therefore cost nothing.
        """
        stat = path.stat()
        second = entry.mtime_ns // 10**9 * 10**9
        return stat.st_size == entry.size and (stat.st_mtime_ns in (entry.mtime_ns, second) or _digest_once(path, stat.st_mtime_ns) == entry.digest)


def index_file(root: Path) -> Path:
    """Where a scan of root leaves its index, and training looks for it: in root, or beside it where there is one and none in root.

    Beside is for a read-only set that many people share: a link to it in a data folder of one's own, the index next to the link.
    """
    within, beside = root / "csn_index.jsonl", root.parent / f"{root.name}.csn_index.jsonl"
    return beside if beside.exists() and not within.exists() else within


def read_index(root: Path, file: Path | None = None) -> Index:
    """The index of a scanned root; empty where there is none. A half-written last line is left out."""
    entries: dict[str, Entry] = {}
    try:
        with (file or index_file(root)).open(encoding="utf-8") as stream:
            for line in stream:
                if not line.endswith("\n"):
                    break
                content = json.loads(line)
                if content.get("gone"):
                    entries.pop(content["path"], None)
                    continue
                if content["plan"] is not None:
                    content["plan"] = VideoPlan(**content["plan"])
                entries[content["path"]] = Entry(**content)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        file = file or index_file(root)
        raise UserError(f"The index {file} is damaged ({error}); delete it and scan again.") from None
    return Index(root, entries)


def scan(
    root: Path,
    paths: Iterable[str],
    file: Path | None = None,
    *,
    workers: int = 1,
    seconds: float = 60.0,
    check: Check = probe,
    quick: bool = False,
    progress: Callable[[int, int, int], None] = lambda done, total, damaged: None,
) -> Index:
    """Check the paths (relative to root) that the index lacks or that changed; append to it; return it.

    Those whose check came to no end (too long, a crash) are checked again, and in a full scan those that were checked quickly. Files
    that are gone leave the index. workers: processes. seconds: limit for one file, besides SECONDS_PER_MB. check: what a worker does with a file, `probe` or
    its quick form; quick: that it is this.
    progress is called with (checked, in all, damaged). Raises UserError where the index cannot be written or another
    scan is writing it.
    """
    require(seconds > 0, "seconds", seconds, "must be above 0")
    refuse_while_starting(f"{root} is scanned")
    file = file or index_file(root)
    with ExitStack() as stack:
        try:
            out = stack.enter_context(locked(file))
        except Held:
            raise UserError(f"Another scan is writing {file}; wait for it or give another --index.") from None
        except OSError as error:
            where = "give another place with --index: training reads ROOT.csn_index.jsonl beside the root, or beside a link to it"
            raise UserError(f"Cannot write the index {file} ({error.strerror}); {where}.") from None
        _mend(file)  # of an index only: whatever else the flag names is left as it is
        entries, wanted = read_index(root, file).entries, list(paths)
        todo = [path for path in wanted if not _settled(root, path, entries.get(path), quick)]
        done = len(wanted) - len(todo)
        damaged = sum(bool(entries[path].error) for path in set(wanted) - set(todo))
        progress(done, len(wanted), damaged)
        pool = Pool(partial(_examine, check, root), min(workers, len(todo)), lambda path: seconds + SECONDS_PER_MB * _stat(root / path)[0] / 1e6)
        try:
            for path, result in pool.run(todo):
                entry = result if isinstance(result, Entry) else Entry(path, *_stat(root / path), "", None, result)
                entries[path] = entry = replace(entry, quick=quick)
                out.write(json.dumps(asdict(entry)) + "\n")
                out.flush()
                done, damaged = done + 1, damaged + bool(entry.error)
                progress(done, len(wanted), damaged)
        finally:
            pool.close()
        kept = set(wanted)
        for path in entries:
            if path not in kept and not (root / path).exists():
                out.write(json.dumps({"path": path, "gone": True}) + "\n")
    return Index(root, {path: entry for path, entry in entries.items() if path in kept})


def _mend(file: Path) -> None:
    """Cut off the half line an interrupted scan may have left. Raises UserError where the file is something else than an index."""
    content = file.read_bytes()
    if content[: len(BEGIN)] != BEGIN[: len(content)]:
        raise UserError(f"`--index` (={file}) is no index of a scan; give another file.")
    if content and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def _stat(path: Path) -> tuple[int, int]:
    """Bytes and time of the last change; of a folder the sum and the newest of its pictures, as an overwritten one leaves the folder as it is."""
    try:
        stats = [Path(part).stat() for part in pictures(path)] if path.is_dir() else []
        stats = stats or [path.stat()]
    except (OSError, ValueError):
        return 0, 0
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def _settled(root: Path, path: str, entry: Entry | None, quick: bool) -> bool:
    """Whether the index knows enough of a file: unchanged since, checked to the end, and in full where that is asked for."""
    return entry is not None and bool(entry.digest) and (quick or not entry.quick) and (entry.size, entry.mtime_ns) == _stat(root / path)


def _examine(check: Check, root: Path, path: str) -> Entry:
    """What a worker does with one file: the check, then the digest of its bytes (of all its pictures for a folder)."""
    where = root / path
    size, mtime_ns = _stat(where)
    try:
        plan, error = check(str(where)), ""
    except VideoError as fault:
        plan, error = None, fault.reason
    digest = ""
    try:
        digest = _digest(where)
    except OSError as fault:  # of the disk or the network: it may be gone at the next scan
        return Entry(path, size, mtime_ns, "", None, f"{fault.strerror}.")
    except ValueError as fault:  # of pictures; the check has said it too
        plan, error = None, f"{fault}."
    return Entry(path, size, mtime_ns, digest, plan, error)


def _digest(where: Path) -> str:
    """SHA-256 of the bytes of a file, or of all pictures of a folder; raises OSError, and ValueError as `pictures`."""
    digest = hashlib.sha256()
    for part in pictures(where) if where.is_dir() else [str(where)]:
        with open(part, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=1 << 18)
def _digest_once(path: Path, mtime_ns: int) -> str:
    return _digest(path)
