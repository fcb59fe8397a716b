"""A grid of text, and how numbers look in it: printed here by rich, written as Markdown and HTML by csn.report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

if TYPE_CHECKING:
    from csn.metrics import Interval

COLOURS = {"supported": "green", "refuted": "red", "undecided": "yellow"}  # of a cell that is a verdict, or begins with one and a colon


@dataclass(frozen=True)
class Sheet:
    """A grid of text. text: the columns that hold words (left, wrapped); the others hold numbers (right, never wrapped)."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""
    text: tuple[str, ...] = ()


def put(sheet: Sheet, console: Console) -> None:
    """Print a sheet."""
    grid = Grid(title=Text(sheet.title), caption=Text(sheet.caption), title_justify="left", caption_justify="left",
                box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)  # fmt: skip
    for i, name in enumerate(sheet.columns):
        words = name in sheet.text
        whole = None if words else max(map(len, (name, *(row[i] for row in sheet.rows))))  # rich does not count on it, wrapped or not
        grid.add_column(name, justify="left" if words or name == sheet.columns[0] else "right", no_wrap=not words, overflow="fold", min_width=whole)
    for row in sheet.rows:
        grid.add_row(*(Text(cell, style=COLOURS.get(cell.partition(":")[0], "")) for cell in row))
    room = console.width - Measurement.get(console, console.options.update(max_width=10_000), grid).minimum
    if room < 0:  # what is too wide would be cut off
        for column in grid.columns:
            column.no_wrap, column.min_width = False, None
    else:
        for i, width in widths(sheet, room).items():
            grid.columns[i].width = width
    console.print(grid)


def widths(sheet: Sheet, room: int) -> dict[int, int]:
    """The width of each column of words, by its place: of its longest word, and a fair share of the room that is left on the line.

    By itself rich breaks the words of one column to give another more room.
    """
    cells = {i: (name, *(row[i] for row in sheet.rows)) for i, name in enumerate(sheet.columns) if name in sheet.text}
    least = {i: max(len(word) for cell in own for word in cell.split()) for i, own in cells.items()}
    more = {i: max(map(len, own)) - least[i] for i, own in cells.items()}
    given = {}
    for left, i in zip(range(len(more), 0, -1), sorted(more, key=more.__getitem__), strict=True):
        share = min(more[i], room // left)
        given[i], room = least[i] + share, room - share
    return given


def cell(found: Interval) -> str:
    """ "83.1 ±1.2" (mean and half the 95 % interval), "83.1 ±12" from 10 on, "83.1" for one seed, "" for none."""
    if not isfinite(found.mean):
        return ""
    return f"{found.mean:.1f}" + (f" ±{found.half:.{1 if found.half < 9.95 else 0}f}" if isfinite(found.half) else "")


def mean(found: Interval) -> str:
    """ "83.1", "" for none."""
    return f"{found.mean:.1f}" if isfinite(found.mean) else ""
