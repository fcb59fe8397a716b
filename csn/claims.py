"""The paper's claims as tests over paired seeds, and the ledger of all of them: `python -m csn.claims`.

A claim is made of parts. A part gives one number for every seed that has all its rows, above 0 where the claim holds, and
Student's 95 % interval (scipy.stats.t) of the mean of these numbers. A claim is
    supported   when the interval of every part lies above 0,
    refuted     when that of some part lies below 0,
    undecided   otherwise, and always with fewer than three seeds in some part.
All parts must hold, so their number makes support harder, never easier. The part shown is the one with the smallest mean.
Claims are written before the runs that test them.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from csn.files import write_atomic
from csn.provenance import REPOSITORY
from csn.recipes import SCALES, recipe_of
from csn.spec import UserError

if TYPE_CHECKING:
    from csn.metrics import Interval
    from csn.show import Sheet
    from csn.table import Table

LEAST_SEEDS = 3
Line = Mapping[str, str]  # one line of a CSV: a cell is "" where the value is missing
Verdict = Literal["supported", "refuted", "undecided"]
UNITS = {"video_top1_per_gmac": "points a GMAC"}  # of what is no percentage
NAMES = {"train_top1": "training", "video_top1": "test", "gmacs": "FLOPs", "interactions_m": "interactions", "video_top1_per_gmac": "test per GMAC"}


def value(line: Line, metric: str) -> float:
    """A line's metric as a number; NaN where a cell it needs is empty.

    metric: a column, or "gap" (training minus test video@1, points), or "video_top1_per_gmac" (points a GMAC of one clip).
    """
    if metric == "gap":
        return value(line, "train_top1") - value(line, "video_top1")
    if metric == "video_top1_per_gmac":
        return value(line, "video_top1") / (value(line, "gmacs") or nan)
    return float(line[metric]) if line[metric] else nan


@dataclass(frozen=True)
class Part:
    """name: as shown. rows: the rows it needs of a seed. unit: of its number. number(lines of one seed by row)."""

    name: str
    rows: tuple[str, ...]
    unit: str
    number: Callable[[Mapping[str, Line]], float]


@dataclass(frozen=True)
class Order:
    """rows, or groups of rows, from high metric to low: every neighbour is higher than the next."""

    rows: tuple[str | tuple[str, ...], ...]
    metric: str = "video_top1"

    def parts(self) -> list[Part]:
        groups = [(row,) if isinstance(row, str) else row for row in self.rows]
        return [self.part(*pair) for high, low in pairwise(groups) for pair in product(high, low)]

    def part(self, high: str, low: str) -> Part:
        what = "" if self.metric == "video_top1" else f"{NAMES.get(self.metric, self.metric)}: "
        unit = UNITS.get(self.metric, "points")
        return Part(f"{what}{high} over {low}", (high, low), unit, lambda line: value(line[high], self.metric) - value(line[low], self.metric))


@dataclass(frozen=True)
class Shrinks:
    """The lead of the first row over the second is larger in the pair `wide` than in the pair `narrow`."""

    wide: tuple[str, str]
    narrow: tuple[str, str]
    metric: str = "video_top1"

    def parts(self) -> list[Part]:
        def lead(line: Mapping[str, Line], pair: tuple[str, str]) -> float:
            return value(line[pair[0]], self.metric) - value(line[pair[1]], self.metric)

        name = f"({' - '.join(self.wide)}) over ({' - '.join(self.narrow)})"
        unit = UNITS.get(self.metric, "points")
        return [Part(name, (*self.wide, *self.narrow), unit, lambda line: lead(line, self.wide) - lead(line, self.narrow))]


@dataclass(frozen=True)
class Predicts:
    """Over rows, metric goes with `better` more closely than with `worse`: the difference of Spearman's rank correlations."""

    rows: tuple[str, ...]
    better: str
    worse: str
    metric: str = "video_top1"

    def parts(self) -> list[Part]:
        name = f"{NAMES.get(self.better, self.better)} over {NAMES.get(self.worse, self.worse)}"
        return [Part(name, self.rows, "rank correlation", lambda line: self.correlation(line, self.better) - self.correlation(line, self.worse))]

    def correlation(self, line: Mapping[str, Line], cost: str) -> float:
        """Spearman's of metric with cost over the rows; NaN where a value is missing or all are equal."""
        pairs = [(value(line[row], cost), value(line[row], self.metric)) for row in self.rows]
        if any(len({pair[i] for pair in pairs}) < 2 or not all(isfinite(pair[i]) for pair in pairs) for i in (0, 1)):
            return nan
        from scipy import stats

        return float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """text: what the paper claims. source: where. tests: all of them must hold."""

    text: str
    source: str
    tests: tuple[Order | Shrinks | Predicts, ...]

    def parts(self) -> list[Part]:
        return [part for test in self.tests for part in test.parts()]


@dataclass(frozen=True)
class Judged:
    """A claim's verdict on some lines, with the part that decides it and its interval: of a refuted claim the one whose interval
    ends lowest, otherwise the one whose interval begins lowest."""

    claim: Claim
    verdict: Verdict
    part: Part
    difference: Interval

    def told(self) -> tuple[str, str]:
        """Difference and interval as text, "" where there is none."""
        d, digits = self.difference, 2 if self.part.unit == "rank correlation" else 1
        bounds = f"[{d.low:+.{digits}f}, {d.high:+.{digits}f}]" if isfinite(d.low) else ""
        return (f"{d.mean:+.{digits}f}" if isfinite(d.mean) else ""), bounds


def numbers(part: Part, lines: Iterable[Line]) -> dict[int, float]:
    """{seed: the part's number} of the seeds that have it."""
    by_seed: dict[int, dict[str, Line]] = {}
    for line in lines:
        by_seed.setdefault(int(line["seed"]), {})[line["row"]] = line
    whole = {seed: own for seed, own in sorted(by_seed.items()) if all(row in own for row in part.rows)}
    return {seed: number for seed, own in whole.items() if isfinite(number := part.number(own))}


def judge(claim: Claim, lines: Sequence[Line]) -> Judged:
    """The verdict of claim on lines (those without an error), by the rule of this module's docstring."""
    from csn.metrics import interval

    judged = [(part, interval(list(numbers(part, lines).values()))) for part in claim.parts()]
    short = [one for one in judged if one[1].n < LEAST_SEEDS]
    if short:
        return Judged(claim, "undecided", *min(short, key=lambda one: one[1].mean if isfinite(one[1].mean) else float("-inf")))
    ends, begins = min(judged, key=lambda one: one[1].high), min(judged, key=lambda one: one[1].low)
    if ends[1].high < 0:
        return Judged(claim, "refuted", *ends)
    return Judged(claim, "supported" if begins[1].low > 0 else "undecided", *begins)


RULE = (
    "difference: mean over n paired seeds and its 95 % interval (Student), of the part that decides; percentage points unless said otherwise. Supported: "
    "the interval of every part lies above 0; refuted: that of some part lies below 0 (each at 95 %, however many parts); undecided: otherwise, and with "
    "fewer than 3 seeds."
)
COLUMNS = ("scale", "table", "claim", "source", "part", "unit", "n", "difference", "low", "high", "verdict")


def ledger(home: Path, scales: Sequence[str]) -> list[tuple[str, Table, Judged]]:
    """(scale, table, verdict) of every claim of every table at the scales, claim by claim, judged on the CSVs below home."""
    from csn.collect import read
    from csn.table import every_table

    found = []
    for table in every_table():
        results = [read(table, recipe_of(scale), home) for scale in scales] if table.claims else []
        found += [(one.recipe.scale, table, judge(claim, one.whole)) for claim in table.claims for one in results]
    return found


def ledger_sheet(entries: Sequence[tuple[str, Table, Judged]]) -> Sheet:
    """The ledger to read: a line a claim and scale."""
    from csn.show import Sheet, judged_cells

    columns = ("table", "claim", "scale", "difference", "deciding part", "n", "verdict")
    rows = [(table.name[5:6], one.claim.text, scale, *judged_cells(one)) for scale, table, one in entries]
    return Sheet("Claims of the paper", columns, rows, RULE, text=(*columns[1:5], "verdict"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ledger; write results/<scale>/claims.csv and, of all scales, results/claims.md. Returns 0, or 2 for what a person can mend."""
    from rich.console import Console

    from csn.report import markdown
    from csn.show import put

    parser = argparse.ArgumentParser(prog="python -m csn.claims", description="Every claim of the paper, with its verdict at every scale with results.")
    parser.add_argument("--home", type=Path, default=REPOSITORY, help="folder of results/ (default: the repository)")
    parser.add_argument("--scale", nargs="+", choices=list(SCALES), help="these scales only (default: all with results, smoke left out)")
    args = parser.parse_args(arguments)
    try:
        scales = args.scale or scales_with_results(args.home)
        entries = ledger(args.home, scales)
        sheet = ledger_sheet(entries)
        put(sheet, Console(highlight=False))
        for scale in scales:
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(csv_line(*entry) for entry in entries if entry[0] == scale)
            write_atomic(args.home / "results" / scale / "claims.csv", text.getvalue().encode())
        if args.scale is None:
            write_atomic(args.home / "results" / "claims.md", f"# Claims of the paper\n\n{markdown(sheet)}".encode())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def csv_line(scale: str, table: Table, one: Judged) -> dict[str, str]:
    """The line of claims.csv: a cell is "" where there is no number."""
    d = one.difference
    numbers = [f"{x:.3f}" if isfinite(x) else "" for x in (d.mean, d.low, d.high)]
    return dict(zip(COLUMNS, (scale, table.name, one.claim.text, one.claim.source, one.part.name, one.part.unit, str(d.n), *numbers, one.verdict), strict=True))


def scales_with_results(home: Path) -> list[str]:
    """The scales that have results below home, smoke left out (its accuracies mean nothing); small when there are none."""
    from csn.collect import csv_path
    from csn.table import every_table

    trained = [table for table in every_table() if table.trains]
    found = [name for name in SCALES if name != "smoke" and any(csv_path(table, recipe_of(name), home).exists() for table in trained)]
    return found or ["small"]


if __name__ == "__main__":
    from csn.claims import main as shared  # this module once, not a second time as __main__

    sys.exit(shared())
