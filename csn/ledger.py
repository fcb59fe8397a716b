"""The ledger: every claim of every table with its verdict at every scale with results, and every part of it. `python -m csn.claims`.

It writes results/<scale>/claims.csv (a line a claim), results/<scale>/claims_parts.csv (a line a part) and results/claims.md. With
--seeds the claims are judged on these seeds alone, every part is printed, and nothing is written.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from rich.console import Console

from csn.claims import Judged, Weighed
from csn.collect import Results, csv_path, read
from csn.files import write_atomic
from csn.flags import Parser, folder, results_home
from csn.provenance import REPOSITORY
from csn.recipes import SCALES, recipe_of
from csn.sheet import Sheet, put
from csn.spec import UserError
from csn.table import every_table

RULE = (
    "difference: of the part that decides; mean over n paired seeds, tested on the same videos, and its 95 % interval (Student), percentage points unless "
    "said. Supported: every part's interval lies above 0; refuted: some part's lies below (each at 95 %, however many parts); undecided: otherwise, with "
    "fewer than 3 seeds, or with a planned seed missing (n: 2 of 3). Counted: of the networks, the same for every seed."
)
CLAIMS = ("scale", "table", "claim", "source", "part", "unit", "n", "planned", "difference", "low", "high", "note", "verdict")
PARTS = ("scale", "table", "claim", "part", "unit", "n", "planned", "difference", "low", "high", "note")


@dataclass(frozen=True)
class Ledger:
    """judged: (results, verdict) claim by claim. left_out: a sentence for every claim that a scale cannot hold."""

    judged: Sequence[tuple[Results, Judged]]
    left_out: Sequence[str]


def ledger(home: Path, scales: Sequence[str], seeds: tuple[int, ...] | None = None) -> Ledger:
    """Every claim of every table at the scales, judged on the CSVs below home; seeds: on the lines of these, which are all that is planned then."""
    judged, left_out = [], []
    for table in every_table():
        found = [replace(read(table, recipe_of(scale), home), seeds=seeds) for scale in scales] if table.claims else []
        verdicts = [{one.claim: one for one in results.judged()} for results in found]
        judged += [(results, own[claim]) for claim in table.claims for results, own in zip(found, verdicts, strict=True) if claim in own]
        left_out += [sentence for results in found for sentence in results.unheld()]
    return Ledger(judged, list(dict.fromkeys(left_out)))


def ledger_sheet(found: Ledger) -> Sheet:
    """The ledger to read: a line a claim, a column a scale, "" where it cannot hold the claim."""
    scales = tuple(dict.fromkeys(results.recipe.scale for results, _ in found.judged))
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for results, one in found.judged:
        told = f"{one.verdict}: {', '.join(filter(None, (difference(one.decides), seeds_told(one.decides))))}"
        lines.setdefault((results.table.name, str(results.table.number), one.claim.text), {})[results.recipe.scale] = told
    rows = [(number, text, *(cells.get(scale, "") for scale in scales)) for (_, number, text), cells in lines.items()]
    return Sheet("Every claim", ("table", "claim", *scales), rows, " ".join([RULE, *found.left_out]), text=("claim", *scales))


def parts_sheet(found: Ledger) -> Sheet:
    """Every part of every claim: a line a part and scale, with the claim's verdict at the one that decides."""
    columns = ("table", "claim", "scale", "part", "difference", "n", "decides")
    rows = [(str(results.table.number), one.claim.text, results.recipe.scale, part.name, difference(part), part.n, one.verdict if part is one.decides else "")
            for results, one in found.judged for part in one.parts]  # fmt: skip
    return Sheet("Every part of the claims", columns, rows, "A claim needs every part above 0.", text=(*columns[1:5], "decides"))


def verdicts(judged: Sequence[Judged], left_out: Sequence[str]) -> Sheet:
    """The claims of one table with difference, interval, n and verdict."""
    columns = ("claim", "difference", "deciding part", "n", "verdict")
    rows = [(one.claim.text, *judged_cells(one)) for one in judged]
    return Sheet("Claims", columns, rows, " ".join([RULE, *left_out]), text=(*columns[:3], columns[-1]))


def judged_cells(one: Judged) -> tuple[str, str, str, str]:
    """Difference with interval and unit, deciding part, n, verdict."""
    return difference(one.decides), one.decides.name, one.decides.n, one.verdict


def seeds_told(one: Weighed) -> str:
    """ "n 20", "n 2 of 3", "counted"."""
    return one.n if one.part.counted and one.seeds else f"n {one.n}"


def difference(one: Weighed) -> str:
    """Difference with interval and unit, "" where there is none."""
    told = " ".join(filter(None, one.told()))
    return f"{told} ({one.part.unit})" if told and one.part.unit != "points" else told


def cells(one: Weighed) -> dict[str, str]:
    """The columns of a part: a cell is "" where there is no number."""
    d = one.difference
    bounds = (None, None) if one.part.counted else (d.low, d.high)
    numbers = [f"{x:.4f}" if x is not None and isfinite(x) else "" for x in (d.mean, *bounds)]
    told = (one.part.name, one.part.unit, str(one.seeds), str(one.planned), *numbers, one.note)
    return dict(zip(("part", "unit", "n", "planned", "difference", "low", "high", "note"), told, strict=True))


def write(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, str]]) -> None:
    """Write a CSV. Raises UserError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomic(path, text.getvalue().encode())


def write_scale(found: Ledger, scale: str, home: Path) -> None:
    """Write the two CSVs of a scale. Raises UserError."""
    own = [(results, one) for results, one in found.judged if results.recipe.scale == scale]
    facts = [({"scale": scale, "table": results.table.name, "claim": one.claim.text}, one) for results, one in own]
    folder = home / "results" / scale
    write(folder / "claims.csv", CLAIMS, ({**told, "source": one.claim.source, **cells(one.decides), "verdict": one.verdict} for told, one in facts))
    write(folder / "claims_parts.csv", PARTS, ({**told, **cells(part)} for told, one in facts for part in one.parts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ledger; write its CSVs and, of all scales, results/claims.md. Returns 0, or 2 for what a person can mend."""
    from csn.report import markdown

    parser = Parser(prog="python -m csn.claims", description="Every claim, the paper's and ours, with its verdicts.")
    parser.add_argument("--home", type=folder, default=REPOSITORY, help="folder of results/ (default: the repository)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="judge on these seeds alone: print every part, write nothing")
    parser.add_argument(
        "--scale",
        nargs="+",
        choices=list(SCALES),
        metavar="SCALE",
        help=f"of {', '.join(SCALES)} (default: those with results but smoke)",
    )
    try:
        args = parser.parse_args(arguments)
        scales = args.scale or scales_with_results(results_home(args.home))
        found = ledger(args.home, scales, tuple(args.seeds) if args.seeds else None)
        sheet = ledger_sheet(found)
        put(sheet, Console(highlight=False))
        if args.seeds:
            put(parts_sheet(found), Console(highlight=False))
            return 0
        for scale in scales:
            write_scale(found, scale, args.home)
        if args.scale is None:
            text = f"# Claims\n\n{markdown(sheet)}\n## Every part\n\n{markdown(parts_sheet(found))}"
            write_atomic(args.home / "results" / "claims.md", text.encode())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def scales_with_results(home: Path) -> list[str]:
    """The scales that have results below home, smoke left out (its accuracies mean nothing); small when there are none."""
    trained = [table for table in every_table() if table.trains]
    found = [name for name in SCALES if name != "smoke" and any(csv_path(table, recipe_of(name), home).exists() for table in trained)]
    return found or ["small"]
