"""Rows, columns and claims of a table; from records to the CSV, from the CSV to verdicts.

A Claim is a sentence of the paper and an order of rows. Seeds are paired: for neighbours left > right of the order, the
differences left - right of the seeds that both have give Student's 95 % interval of their mean. A claim is
    supported   when every pair's interval lies above 0,
    refuted     when the interval of some pair lies below 0,
    undecided   otherwise, and always with fewer than three seeds in some pair.
The difference shown is that of the pair with the smallest one. Missing is an empty cell, never 0.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from csn.execute import REPOSITORY, read_record
from csn.spec import Recipe, Run, UserError, Variant

if TYPE_CHECKING:
    from csn.metrics import Interval

COLUMNS = (
    "table", "row", "seed", "scale", "block", "depth", "groups", "width", "frames", "crop", "params_m", "gmacs", "interactions_m",
    "train_top1", "clip_top1", "video_top1", "video_top5", "n_videos", "epochs", "seconds", "device", "commit", "run", "error",
)  # fmt: skip
NUMBERS = COLUMNS[2:3] + COLUMNS[5:20]
LEAST_SEEDS = 3
Line = Mapping[str, str]  # one line of a CSV: a cell is "" where the value is missing
Verdict = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Quoted:
    """A number of the paper. recalled: no readable source was found; shown with a dagger and used by nothing."""

    value: float
    recalled: bool = False

    def __str__(self) -> str:
        return f"{self.value:g}" + ("†" if self.recalled else "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of a table. variant: at the paper's width; `at` gives it at the width of a scale."""

    label: str
    variant: Variant
    paper_top1: Quoted | None = None  # Kinetics-400 val video@1
    paper_cost: tuple[str, str, str] | None = None  # GMACs, M parameters, G interactions as printed, at 8 x 224 x 224

    def at(self, recipe: Recipe) -> Variant:
        """The Variant at a scale. Raises UserError when the scale cannot hold it."""
        return replace(self.variant, width=recipe.width, pool1=recipe.pool1)

    def unfit(self, recipe: Recipe) -> str | None:
        """Why the scale cannot hold this row, or None."""
        try:
            self.at(recipe)
        except UserError as error:
            return str(error)
        return None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """text: the paper's sentence. source: where it stands. order: rows, or groups of rows, from high to low.
    metric: a column, or "video_top1_per_gmac"."""

    text: str
    source: str
    order: tuple[str | tuple[str, ...], ...]
    metric: str = "video_top1"

    def pairs(self) -> list[tuple[str, str]]:
        groups = [(g,) if isinstance(g, str) else g for g in self.order]
        return [pair for high, low in pairwise(groups) for pair in product(high, low)]


@dataclass(frozen=True)
class Judged:
    """A claim's verdict on some lines, with the pair of smallest difference and that difference's interval."""

    claim: Claim
    verdict: Verdict
    pair: tuple[str, str]
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Table:
    """name: of the script and the CSV. title: printed above. rows in order. claims fixed before the runs.
    figure: name of a function of csn.plots, (lines, title) -> Figure. scale: the default one. trains: whether there is
    anything to run, or costs only."""

    name: str
    title: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...] = ()
    note: str = ""
    figure: str = ""
    scale: str = "small"
    trains: bool = True

    def chosen(self, labels: Sequence[str] | None) -> list[Row]:
        """The rows of these labels, all of them for None. Raises UserError listing the rows."""
        known = [row.label for row in self.rows]
        for label in labels or ():
            if label not in known:
                raise UserError(f"`--only` names an unknown row (={label}); the rows of {self.name} are {', '.join(known)}.")
        return [row for row in self.rows if not labels or row.label in labels]


def runs_of(rows: Iterable[Row], recipe: Recipe, seeds: Iterable[int]) -> list[tuple[Row, Run]]:
    """The Runs of rows x seeds, seeds outermost so that every row has one result early; rows the scale cannot hold are left out."""
    fit = [row for row in rows if row.unfit(recipe) is None]
    return [(row, Run(variant=row.at(recipe), recipe=recipe, seed=seed)) for seed in seeds for row in fit]


def csv_path(table: Table, recipe: Recipe, home: Path) -> Path:
    return home / "results" / recipe.scale / f"{table.name}.csv"


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a results CSV, [] when there is none. Raises UserError when its header is not ours."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or set(COLUMNS) - {"error"} - set(reader.fieldnames):
                raise UserError(f"{path} is not a results file (its header lacks columns); move it away and run again.")
            return [{name: line.get(name) or "" for name in COLUMNS} for line in reader]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path} ({error}); mend or move it and run again.") from None


def line_of(table: Table, row: Row, run: Run, record: Mapping[str, object]) -> dict[str, str]:
    """The CSV line of a record."""

    def number(name: str, digits: int, scale: float = 1) -> str:
        value = record.get(name)
        return f"{float(value) / scale:.{digits}f}" if isinstance(value, (int, float)) and isfinite(value) else ""

    variant, recipe = run.variant, run.recipe
    dirty = "-dirty" if record.get("dirty") else ""
    return {
        "table": table.name, "row": row.label, "seed": str(run.seed), "scale": recipe.scale, "block": variant.block,
        "depth": str(variant.depth), "groups": str(variant.groups), "width": str(variant.width), "frames": str(recipe.frames),
        "crop": str(recipe.crop), "params_m": number("params", 6, 1e6), "gmacs": number("flops", 6, 1e9),
        "interactions_m": number("interactions", 6, 1e6), "train_top1": number("train_top1", 3), "clip_top1": number("clip_top1", 3),
        "video_top1": number("video_top1", 3), "video_top5": number("video_top5", 3), "n_videos": number("n_videos", 0),
        "epochs": str(recipe.epochs), "seconds": number("seconds", 0), "device": str(record.get("device") or ""),
        "commit": str(record.get("commit") or "") + dirty, "run": run.name, "error": str(record.get("error") or ""),
    }  # fmt: skip


def collect(table: Table, recipe: Recipe, home: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Every line of table at a scale, and what could not be read; writes the CSV when something changed.

    Lines come from the records below home; a line already in the CSV whose run has no record here is kept (results that
    came with the repository, or were brought home from a cluster) as long as the run still belongs to the table.
    """
    path = csv_path(table, recipe, home)
    old = read_lines(path)
    kept = {line["run"]: line for line in old}
    seeds = sorted({int(line["seed"]) for line in old} | seeds_on_disk(home))
    lines, troubles = [], []
    for row in table.rows:
        for _, run in runs_of([row], recipe, seeds):
            try:
                record = read_record(run, home)
            except UserError as error:
                troubles.append(str(error))
                record = None
            if record is not None:
                lines.append(line_of(table, row, run, record))
            elif run.name in kept and kept[run.name]["row"] == row.label:
                lines.append(dict(kept[run.name]))
    if lines != old:
        write_lines(path, lines)
    return lines, troubles


def seeds_on_disk(home: Path) -> set[int]:
    """The seeds that some run folder below home has."""
    try:
        names = [path.name for path in (home / "runs").iterdir()]
    except OSError:
        return set()
    parts = (name.rsplit("-", 2) for name in names)
    return {int(p[1][1:]) for p in parts if len(p) == 3 and p[1][:1] == "s" and p[1][1:].isdigit()}


def write_lines(path: Path, lines: Iterable[Mapping[str, str]]) -> None:
    """Write a results CSV, whole or not at all. Raises UserError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path} ({error.strerror}); free space or give another folder with --home.") from None


def value(line: Line, metric: str) -> float:
    """A line's metric as a number; NaN where a cell it needs is empty."""
    if metric == "video_top1_per_gmac":
        return value(line, "video_top1") / (value(line, "gmacs") or nan)
    return float(line[metric]) if line[metric] else nan


def by_seed(lines: Iterable[Line], label: str, metric: str) -> dict[int, float]:
    """{seed: value} of a row, present values only."""
    found = {int(line["seed"]): value(line, metric) for line in lines if line["row"] == label}
    return {seed: v for seed, v in found.items() if isfinite(v)}


def judge(claim: Claim, lines: Sequence[Line]) -> Judged:
    """The verdict of claim on lines, by the rule of this module's docstring."""
    from csn.metrics import interval

    judged = []
    for high, low in claim.pairs():
        a, b = by_seed(lines, high, claim.metric), by_seed(lines, low, claim.metric)
        judged.append(((high, low), interval([a[s] - b[s] for s in sorted(a.keys() & b.keys())])))
    short = [j for j in judged if j[1].n < LEAST_SEEDS]
    pair, difference = min(short or judged, key=lambda j: j[1].mean if isfinite(j[1].mean) else float("-inf"))
    if short:
        return Judged(claim, "undecided", pair, difference)
    if any(d.high < 0 for _, d in judged):
        return Judged(claim, "refuted", pair, difference)
    return Judged(claim, "supported" if all(d.low > 0 for _, d in judged) else "undecided", pair, difference)


COSTS = REPOSITORY / "results" / "costs.json"


def cost_key(variant: Variant, recipe: Recipe) -> str:
    return f"{variant.slug} {recipe.data.classes} classes {recipe.frames}x{recipe.crop}x{recipe.crop}"


def planned_costs() -> dict[str, dict[str, int]]:
    """{cost_key: params, flops, interactions} as counted before, so that planning needs no torch; {} when there is none."""
    try:
        return dict(json.loads(COSTS.read_text()))
    except (OSError, ValueError):
        return {}


def count_costs(runs: Iterable[Run]) -> None:
    """Count from the real module what planned_costs lacks, and remember it."""
    known = planned_costs()
    new = {cost_key(r.variant, r.recipe): r for r in runs if cost_key(r.variant, r.recipe) not in known}
    if not new:
        return
    import torch

    from csn.cost import count
    from csn.resnet3d import build

    for key, run in new.items():
        recipe = run.recipe
        with torch.device("meta"):
            net = build(run.variant, recipe.data.classes, recipe.frames)
        cost = count(net, (3, recipe.frames, recipe.crop, recipe.crop))
        known[key] = {"params": cost.params, "flops": cost.flops, "interactions": cost.interactions}
    try:
        COSTS.parent.mkdir(exist_ok=True)
        part = COSTS.with_name(f".costs.{os.getpid()}")
        part.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
        part.replace(COSTS)
    except OSError:
        return  # a read-only installation plans without cost columns
