"""Checkpoints of a run in progress: written whole or not at all, the one before kept, damage noticed."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from csn.spec import UserError

LAST, BEFORE = "last.ckpt", "before.ckpt"


def write_atomic(path: Path, content: bytes, durable: bool = True) -> None:
    """Write content to path so that a reader sees the old file or the new one, never a part; durable: power cuts included.

    Raises UserError when the disk refuses (full, read-only); what was there stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path} ({error.strerror}); free space there and run the same command again to go on.") from None


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write state as folder/last.ckpt, after renaming the last one to before.ckpt. Raises UserError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    new = folder / "new.ckpt"
    write_atomic(new, hashlib.sha256(content).digest() + content)
    if (folder / LAST).exists():
        (folder / LAST).replace(folder / BEFORE)
    new.replace(folder / LAST)


def load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint of folder, or None; and the names of those found damaged."""
    damaged: list[str] = []
    for name in (LAST, BEFORE):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() == digest:
            return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True), damaged
        damaged.append(name)
    return None, damaged


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for name in (LAST, BEFORE):
        (folder / name).unlink(missing_ok=True)
