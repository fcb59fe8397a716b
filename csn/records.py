"""What a run leaves on disk, and how it is read: standard library only, for plans and status ask it of thousands.

HOME/runs/<run>/run.json         what is run
                progress.json    where it stands, about once a second
                last.ckpt        the state of training (before.ckpt: the one before)
                record.json      the result, written once, last; or why it failed
                fault            where several processes share the run: why the first that failed did
                scores.npz       per-video probabilities on the test videos
                weights.safetensors   the final network
"""

from __future__ import annotations

import json
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, TypeGuard

from csn.files import Held, held, write_json
from csn.spec import Run, UserError

MOST = {"train_top1": 100, "clip_top1": 100, "video_top1": 100, "video_top5": 100, "seconds": inf}  # that a record can hold


def folder_of(run: Run, home: Path) -> Path:
    """Where a run's files lie."""
    return home / "runs" / run.name


def read_record(run: Run, home: Path) -> dict[str, Any] | None:
    """The record of run, or None when there is none. Raises UserError when the file is damaged or cannot be read."""
    path = folder_of(run, home) / "record.json"
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict) or record.get("run") != run.name:
            raise ValueError("it names another run")
        for name in MOST.keys() & record.keys():
            if isinstance(record[name], bool) or not isinstance(record[name], int | float | None) or not 0 <= (record[name] or 0) <= MOST[name]:
                raise ValueError(f"its {name} is {record[name]!r}")
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"The record {path} cannot be read ({error.strerror}); mend its permissions or the disk.") from None
    except ValueError as error:
        raise UserError(f"The record {path} is damaged ({error}); delete it and run the row again.") from None


def stands(record: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """Whether a record is the end of its run: done, or failed in a way that would come again."""
    return record is not None and not record.get("retry")


def resumable(folder: Path) -> bool:
    """Whether a run's folder holds a state of training to go on from (csn.checkpoints.resume writes it)."""
    return any((folder / name).exists() for name in ("new.ckpt", "last.ckpt", "before.ckpt"))


def record_loss(run: Run, home: Path, why: str, log: list[str]) -> None:
    """Write the record of a run that ended without one: why, the last lines of its log, and that it is to be tried again.

    Nothing is written while a process works on the run, nor over a record that stands: a process may die after writing it.
    """
    with suppress(Held), held(folder_of(run, home)):
        if stands(read_record(run, home)):
            return
        write_json(folder_of(run, home) / "record.json", {"run": run.name, "spec": run.to_dict(), "error": why, "log": log, "retry": True})


def first_fault(folder: Path, why: str) -> str:
    """Why that process failed which failed first of those that share a run; the others fail in its wake, of its leaving their group."""
    path = folder / "fault"
    try:
        with path.open("x") as file:
            file.write(why)
    except FileExistsError:
        return path.read_text() or why
    except OSError:  # a full disk, perhaps the reason itself
        pass
    return why


def read_progress(folder: Path) -> dict[str, Any]:
    """What a run last wrote into its folder about itself; {} when there is nothing, or half of it."""
    try:
        return dict(json.loads((folder / "progress.json").read_text()))
    except (OSError, ValueError):
        return {}
