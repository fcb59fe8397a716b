"""Checkpoints of a run in progress: written whole or not at all, the one before kept, damage noticed."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from csn.files import write_atomic
from csn.spec import UserError

NEW, LAST, BEFORE = "new.ckpt", "last.ckpt", "before.ckpt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write state as folder/last.ckpt, after renaming the last one to before.ckpt. Raises UserError.

    Whenever it is killed, what `load` finds is this state or the one before: a whole new.ckpt stands until another takes its place.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    new = folder / NEW
    clear(folder)
    write_atomic(new, hashlib.sha256(content).digest() + content)
    try:
        if (folder / LAST).exists():
            (folder / LAST).replace(folder / BEFORE)
        new.replace(folder / LAST)
    except OSError as error:
        raise UserError(f"Cannot write {folder / LAST} ({error.strerror}); mend the disk and run the same command again to go on.") from None


def clear(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote: nobody else writes there, for the run is held."""
    for half in folder.glob(f".*.{NEW}"):
        half.unlink(missing_ok=True)


def load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint of folder, or None; and the names of those found damaged. Raises UserError where one cannot be read."""
    damaged: list[str] = []
    for name in (NEW, LAST, BEFORE):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"The checkpoint {folder / name} cannot be read ({error.strerror}); mend its permissions or the disk.") from None
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() == digest:
            return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True), damaged
        damaged.append(name)
    return None, damaged


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    clear(folder)
    for name in (NEW, LAST, BEFORE):
        (folder / name).unlink(missing_ok=True)
