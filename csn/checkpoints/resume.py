"""Checkpoints of a run in progress: written whole or not at all, the one before kept, damage noticed."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from csn.files import write_atomic

LAST, BEFORE = "last.ckpt", "before.ckpt"


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
