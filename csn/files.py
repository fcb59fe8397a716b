"""The one door for files that several processes write or read at the same time: written whole or not at all, held by one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from csn.spec import UserError


class Held(UserError):
    """Another process has the lock."""


def printable(name: str | Path) -> str:
    """A file's name as text: names are bytes, and what of them is not UTF-8 is escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")


@contextmanager
def replacing(path: Path, remedy: str = "free space there and run the same command again to go on") -> Iterator[Path]:
    """Give a file beside path to write, with path's ending; it becomes path when the block ends, and is removed when that fails.

    Folders above path are made. Raises UserError when the disk refuses (full, read-only); what was at path stays.
    """
    part = path.with_name(f".{secrets.token_hex(4)}.{path.name}")  # several hosts may share the folder: a process id is not enough
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "mend its permissions or give another folder"
        raise UserError(f"Cannot write {path} ({error.strerror or error}); {remedy}.") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes, durable: bool = True, remedy: str = "free space there and run the same command again to go on") -> None:
    """Write content to path so that a reader sees the old file or the new one, never a part; durable: power cuts included.

    Raises UserError when the disk refuses; what was there stays.
    """
    with replacing(path, remedy) as part, part.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_json(path: Path, content: Mapping[str, Any], durable: bool = True) -> None:
    """write_atomic of content as JSON, keys sorted."""
    write_atomic(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n", durable)


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[IO[str]]:
    """The file path (made where it is missing) open to append and read, with its lock; the system frees it however the process ends.

    wait: until whoever has it is done. Raises Held otherwise, and OSError where path cannot be opened.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Held(f"{path} is held by another process; wait for it or stop it.") from None
        yield file


def worked_on(folder: Path) -> str:
    """The sentence for whoever finds folder held."""
    owner = (folder / "lock").read_text().strip() or "another process"
    return f"{folder.name} is being worked on by {owner}; wait for it or stop it."


@contextmanager
def held(folder: Path, wait: bool = False, option: str = "--home") -> Iterator[None]:
    """Hold folder, made where it is missing, by the lock in it.

    Raises Held when another process has it and wait is not set, UserError (that names option) when folder cannot be written.
    """
    lock = folder / "lock"
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(locked(lock, wait))
            file.truncate(0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())  # nothing is left to be written when it is closed
        except Held:
            raise Held(worked_on(folder)) from None
        except OSError as error:
            raise UserError(f"Cannot write the folder {folder} ({error.strerror}); give another with {option}.") from None
        yield
