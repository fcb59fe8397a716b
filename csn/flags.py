"""Flags of the commands: mistakes in them are UserErrors, one sentence each."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from csn.spec import UserError, require


class Parser(argparse.ArgumentParser):
    """argparse that raises UserError for a wrong flag, in one sentence, in place of its usage and an exit.

    What the command then prints and a terminal's encoding lacks is shown as "?".
    """

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):  # the second where the locale is C
            sys.stdout.reconfigure(errors="replace")
        return super().parse_known_args(*args, **kwargs)

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message[0].upper()}{message[1:]}; --help lists the flags.")


def positive(text: str) -> int:
    """The value of a flag: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text}")
    return int(text)


def folder(text: str) -> Path:
    """The value of a flag: a folder, there or not; not the empty name that an unset variable leaves, which would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, and is empty")
    return Path(text)


def file_name(text: str) -> str:
    """The value of a flag: a file's name without a folder."""
    if Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a file's name without a folder, not {text}")
    return text


def results_home(home: Path) -> Path:
    """home, a folder that is to be read from. Raises UserError where there is none."""
    require(home.is_dir(), "--home", home, "must be a folder that is there; give another folder")
    return home
