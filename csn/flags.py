"""Flags of the commands: mistakes in them are UserErrors, one sentence each."""

from __future__ import annotations

import argparse
from pathlib import Path

from csn.spec import UserError, require


class Parser(argparse.ArgumentParser):
    """argparse that raises UserError for a wrong flag, in one sentence, in place of its usage and an exit."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message[0].upper()}{message[1:]}; --help lists the flags.")


def results_home(home: Path) -> Path:
    """home, a folder that is to be read from. Raises UserError where there is none."""
    require(home.is_dir(), "--home", home, "must be a folder that is there; give another folder")
    return home
