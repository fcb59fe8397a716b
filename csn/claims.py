"""The paper's claims as tests over paired seeds; `python -m csn.claims` prints and writes the ledger of all of them (csn.ledger).

A claim is made of parts. A part gives one number for every seed that is planned for all its rows, above 0 where the claim
holds, and Student's 95 % interval (scipy.stats.t) of the mean of these numbers. A claim is
    supported   when the interval of every part lies above 0,
    refuted     when that of some part lies below 0,
    undecided   otherwise, and always with fewer than three seeds in some part, when a row lacks a seed planned for it, or when the number
                of a part is not defined.
What is counted (GMACs) is the same for every seed: it has no interval and needs no three seeds.
All parts must hold, so their number makes support harder, never easier. Claims are written before the runs that test them,
or say so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import isfinite, nan
from typing import TYPE_CHECKING, Literal

from csn.spec import require

if TYPE_CHECKING:
    from csn.metrics import Interval

LEAST_SEEDS = 3
Line = Mapping[str, str]  # one line of a CSV: a cell is "" where the value is missing
Verdict = Literal["supported", "refuted", "undecided"]
UNITS = {"video_top1_per_gmac": "points a GMAC", "gmacs": "GMACs"}  # of what is no percentage
DIGITS = {"Spearman": 2, "GMACs": 4}  # after the point, of a unit
# What a claim can be about: the numbers of a line, and what `value` makes of them.
METRICS = (
    "train_top1", "clip_top1", "video_top1", "video_top5", "auc", "log_loss", "gap", "video_top1_per_gmac", "gmacs", "params_m", "interactions_m",
    "depth", "groups", "width", "frames", "crop", "epochs", "n_videos", "seconds",
)  # fmt: skip
NAMES = {"train_top1": "training", "video_top1": "test", "gmacs": "FLOPs", "interactions_m": "interactions", "video_top1_per_gmac": "test per GMAC"}
CEILING = "cannot be decided here: both at 100 in every seed"
UNDEFINED = "not defined here: all networks equal, or a number missing"


def value(line: Line, metric: str) -> float:
    """A line's metric as a number; NaN where a cell it needs is empty.

    metric: of METRICS; "gap" is training minus test video@1, points, "video_top1_per_gmac" points a GMAC of one clip.
    """
    if metric == "gap":
        return value(line, "train_top1") - value(line, "video_top1")
    if metric == "video_top1_per_gmac":
        return value(line, "video_top1") / (value(line, "gmacs") or nan)
    return float(line[metric]) if line[metric] else nan


@dataclass(frozen=True)
class Part:
    """name: as shown. rows: the rows it needs of a seed. unit: of its number. number(lines of one seed by row).

    metric: what is compared, where it is one accuracy in per cent, which may reach 100 on both sides. counted: of the network, not of a run.
    """

    name: str
    rows: tuple[str, ...]
    unit: str
    number: Callable[[Mapping[str, Line]], float]
    metric: str = ""
    counted: bool = False


def about(*metrics: str) -> None:
    """Raise UserError where one is none of METRICS."""
    for metric in metrics:
        require(metric in METRICS, "metric", metric, f"of a claim must be one of {', '.join(METRICS)}")


@dataclass(frozen=True)
class Order:
    """rows, or groups of rows, from high metric to low: every neighbour is higher than the next, less margin (points allowed to be lost)."""

    rows: tuple[str | tuple[str, ...], ...]
    metric: str = "video_top1"
    margin: float = 0.0

    def __post_init__(self) -> None:
        about(self.metric)

    def parts(self) -> list[Part]:
        groups = [(row,) if isinstance(row, str) else row for row in self.rows]
        return [self.part(*pair) for high, low in pairwise(groups) for pair in product(high, low)]

    def part(self, high: str, low: str) -> Part:
        what = "" if self.metric == "video_top1" else f"{NAMES.get(self.metric, self.metric)}: "
        name = f"{what}{high} over " + (f"({low} - {self.margin:g})" if self.margin else low)

        def number(line: Mapping[str, Line]) -> float:
            return value(line[high], self.metric) - value(line[low], self.metric) + self.margin

        accuracy = self.metric if self.metric in ("train_top1", "clip_top1", "video_top1") else ""
        return Part(name, (high, low), UNITS.get(self.metric, "points"), number, accuracy, self.metric == "gmacs")


@dataclass(frozen=True)
class Shrinks:
    """The lead of the first row over the second, a negative one included, is larger in the pair `wide` than in the pair `narrow`."""

    wide: tuple[str, str]
    narrow: tuple[str, str]
    metric: str = "video_top1"

    def __post_init__(self) -> None:
        about(self.metric)

    def parts(self) -> list[Part]:
        def lead(line: Mapping[str, Line], pair: tuple[str, str]) -> float:
            return value(line[pair[0]], self.metric) - value(line[pair[1]], self.metric)

        what = "" if self.metric == "video_top1" else f"{NAMES.get(self.metric, self.metric)}: "
        name = f"{what}({' - '.join(self.wide)}) over ({' - '.join(self.narrow)})"
        unit = UNITS.get(self.metric, "points")
        return [Part(name, (*self.wide, *self.narrow), unit, lambda line: lead(line, self.wide) - lead(line, self.narrow))]


@dataclass(frozen=True)
class Predicts:
    """Over rows, metric goes with `better`, and more closely than with `worse`: Spearman's rank correlation, and the difference of both."""

    rows: tuple[str, ...]
    better: str
    worse: str
    metric: str = "video_top1"

    def __post_init__(self) -> None:
        about(self.better, self.worse, self.metric)

    def parts(self) -> list[Part]:
        better, worse = (NAMES.get(cost, cost) for cost in (self.better, self.worse))
        return [
            Part(f"{better} over {worse}", self.rows, "Spearman", lambda line: self.correlation(line, self.better) - self.correlation(line, self.worse)),
            Part(better, self.rows, "Spearman", lambda line: self.correlation(line, self.better)),
        ]

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
class Weighed:
    """A part on some lines: the interval of its numbers (NaN where a planned seed is missing, or its number is not defined for one), and how
    many of the planned seeds are there.

    ceiling: both sides are at 100 in every seed and it asks for more than level, so that the part can never lie above 0.
    """

    part: Part
    difference: Interval
    seeds: int
    planned: int
    ceiling: bool = False

    @property
    def enough(self) -> bool:
        """Whether a verdict may rest on it."""
        return self.seeds == self.planned >= (1 if self.part.counted else LEAST_SEEDS) and self.note != UNDEFINED

    @property
    def note(self) -> str:
        """Why it cannot be decided, though no seed is missing; "" where it can."""
        if self.ceiling:
            return CEILING
        return UNDEFINED if self.seeds == self.planned > 0 and not isfinite(self.difference.mean) else ""

    @property
    def n(self) -> str:
        """The seeds as told: "5", "4 of 5", "counted"."""
        return f"{self.seeds} of {self.planned}" if self.seeds < self.planned else "counted" if self.part.counted else str(self.planned)

    @property
    def name(self) -> str:
        """The part's name, and why it cannot be decided."""
        return "; ".join(filter(None, (self.part.name, self.note)))

    def told(self) -> tuple[str, str]:
        """Difference and interval as text, "" where there is none."""
        d, digits = self.difference, DIGITS.get(self.part.unit, 1)
        bounds = f"[{signed(d.low, digits)}, {signed(d.high, digits)}]" if isfinite(d.low) and not self.part.counted else ""
        return (signed(d.mean, digits) if isfinite(d.mean) else ""), bounds


def signed(number: float, digits: int) -> str:
    """A number with its sign, and with more digits than asked for where it would read as 0 and is none: verdicts turn on that."""
    while number and digits < 6 and not float(f"{number:.{digits}f}"):
        digits += 1
    return f"{number:+.{digits}f}"


@dataclass(frozen=True)
class Judged:
    """A claim's verdict on some lines, its parts, and the one that decides: of a refuted claim the one whose interval ends lowest,
    otherwise one that cannot be decided, otherwise the one whose interval begins lowest."""

    claim: Claim
    verdict: Verdict
    decides: Weighed
    parts: tuple[Weighed, ...]


def weighed(part: Part, lines: Iterable[Line], planned: Mapping[str, Sequence[int]]) -> Weighed:
    """part on lines (those without an error). planned: the seeds of every row."""
    from csn.metrics import interval

    rows = {row: {int(line["seed"]): line for line in lines if line["row"] == row} for row in part.rows}
    every = sorted({seed for row in part.rows for seed in planned[row]})
    there = [seed for seed in every if all(seed in rows[row] for row in part.rows if seed in planned[row])]
    if len(there) < len(every):
        return Weighed(part, interval([]), len(there), len(every))
    paired = [{row: rows[row][seed] for row in part.rows} for seed in every if all(seed in planned[row] for row in part.rows)]
    # rounded, for what is equal but for the last bit of a float is no difference: [-1e-14, -1e-14] would decide
    numbers = [number for line in paired if isfinite(number := round(part.number(line), 9))]
    if len(numbers) < len(paired):
        return Weighed(part, interval([]), len(paired), len(paired))
    ceiling = bool(part.metric and paired) and not any(numbers) and all(value(line[row], part.metric) == 100 for line in paired for row in part.rows)
    return Weighed(part, interval(numbers), len(paired), len(paired), ceiling)


def judge(claim: Claim, lines: Sequence[Line], planned: Mapping[str, Sequence[int]]) -> Judged:
    """The verdict of claim on lines (those without an error), by the rule of this module's docstring. planned: the seeds of every row."""
    parts = tuple(weighed(part, lines, planned) for part in claim.parts())
    if not all(one.enough for one in parts):
        return Judged(claim, "undecided", min(parts, key=lambda one: (one.enough, one.seeds)), parts)
    ends, begins = (min(parts, key=lambda one: bound(one, side)) for side in ("high", "low"))
    if bound(ends, "high") < 0:
        return Judged(claim, "refuted", ends, parts)
    stuck = next((one for one in parts if one.ceiling), begins)
    return Judged(claim, "supported" if bound(begins, "low") > 0 else "undecided", stuck, parts)


def bound(one: Weighed, side: Literal["low", "high"]) -> float:
    """An end of a part's interval, which what is counted does not have: there it is the number itself."""
    found: float = one.difference.mean if one.part.counted else getattr(one.difference, side)
    return found


if __name__ == "__main__":
    from csn.ledger import main

    sys.exit(main())
