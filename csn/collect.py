"""From records to the CSVs of a table, and back: only the collector writes them. Missing is an empty cell, never 0."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from csn.claims import Claim, Judged, Line, judge, value
from csn.files import replacing
from csn.provenance import REPOSITORY
from csn.records import read_record
from csn.spec import Recipe, Run, UserError
from csn.table import Row, Table, every_table, runs_of

if TYPE_CHECKING:
    from csn.metrics import Interval

COLUMNS = (
    "table", "row", "seed", "scale", "block", "depth", "groups", "width", "frames", "crop", "params_m", "gmacs", "interactions_m",
    "train_top1", "clip_top1", "video_top1", "video_top5", "n_videos", "epochs", "seconds", "device", "commit", "run", "error", "auc", "log_loss",
    "video_top1_low", "video_top1_high",
)  # fmt: skip
OPTIONAL = {"error", *COLUMNS[-4:]}  # a file without them is read all the same
WORDS = {"table", "row", "scale", "block", "device", "commit", "run", "error"}  # the columns that hold no number
CURVES = ("table", "row", "seed", "epoch", "lr", "loss", "clip_top1")  # of training, an epoch a line


@dataclass(frozen=True)
class Results:
    """What is known of a table at a scale. lines: of its CSV. curves: of its learning curves, where it keeps them.

    superseded: how many more lines the CSV had, of runs that belong to the table no more since its rows or recipe changed.
    seeds: those asked for, where they are not those planned for each row. Lines of other seeds count for nothing here.
    """

    table: Table
    recipe: Recipe
    lines: Sequence[Line]
    curves: Sequence[Line] = ()
    superseded: int = 0
    seeds: tuple[int, ...] | None = None

    @cached_property
    def planned(self) -> dict[str, tuple[int, ...]]:
        """The seeds of every row; none for a row that the scale cannot hold."""
        seeds = {row.label: row.seeds_at(self.recipe.scale) if self.seeds is None else self.seeds for row in self.table.rows}
        return {row.label: () if row.unfit(self.recipe) else seeds[row.label] for row in self.table.rows}

    @cached_property
    def whole(self) -> list[Line]:
        """The lines of planned runs that did not fail."""
        return [line for line in self.lines if not line["error"] and int(line["seed"]) in self.planned[line["row"]]]

    @cached_property
    def complete(self) -> list[Line]:
        """The lines of rows that have all their planned seeds: what means and figures are made of."""
        return [line for row in self.table.rows if not self.missing(row.label) for line in self.of(row.label)]

    def of(self, label: str) -> list[Line]:
        """The whole lines of a row."""
        return [line for line in self.whole if line["row"] == label]

    def missing(self, label: str) -> tuple[int, ...]:
        """The planned seeds of a row that have no whole line."""
        there = {int(line["seed"]) for line in self.of(label)}
        return tuple(seed for seed in self.planned[label] if seed not in there)

    def measured(self, label: str, metric: str) -> Interval:
        """Mean and interval of a row's metric over its planned seeds; of nothing where one is missing."""
        from csn.metrics import interval

        values = [value(line, metric) for line in self.of(label)]
        return interval(values if not self.missing(label) and all(map(isfinite, values)) else [])

    def naming(self, labels: Sequence[str]) -> Results:
        """These results, with those claims only that name any of the rows."""
        claims = tuple(claim for claim in self.table.claims if any(row in labels for part in claim.parts() for row in part.rows))
        return replace(self, table=replace(self.table, claims=claims))

    def judged(self) -> list[Judged]:
        """The verdicts on the table's claims that the scale can hold."""
        return [judge(claim, self.whole, self.planned) for claim in self.table.claims if not self.beyond(claim)]

    def beyond(self, claim: Claim) -> list[Row]:
        """The rows of a claim that the scale cannot hold."""
        named = {row for part in claim.parts() for row in part.rows}
        return [row for row in self.table.rows if row.label in named and row.unfit(self.recipe)]

    def unheld(self) -> list[str]:
        """A sentence for each reason for which the scale cannot hold claims."""
        told: dict[str | None, list[str]] = {}
        for claim in self.table.claims:
            if rows := self.beyond(claim):
                told.setdefault(rows[0].unfit(self.recipe), []).append(f'"{claim.text}"')
        return [f"Not judged: {', '.join(claims)}: {reason}" for reason, claims in told.items()]


def csv_path(table: Table, recipe: Recipe, home: Path) -> Path:
    return home / "results" / recipe.scale / f"{table.name}.csv"


def curves_path(table: Table, recipe: Recipe, home: Path) -> Path:
    return home / "results" / recipe.scale / f"{table.name}_curves.csv"


def superseded(path: Path) -> Path:
    """Where the lines of a results CSV go whose run belongs to the table no more."""
    return path.with_name(f"{path.stem}_superseded.csv")


def read(table: Table, recipe: Recipe, home: Path = REPOSITORY) -> Results:
    """The results of table at a scale, from its CSVs below home; lines of other runs are counted only. Raises UserError when one is not ours."""
    curves = read_lines(curves_path(table, recipe, home), CURVES) if table.curves else []
    lines = read_lines(csv_path(table, recipe, home))
    own = {(row.label, run.name) for row, run in runs_of(table.rows, recipe, sorted({int(line["seed"]) for line in lines}))}
    kept = [line for line in lines if (line["row"], line["run"]) in own]
    known = {(line["row"], line["seed"]) for line in kept}
    return Results(table, recipe, kept, [line for line in curves if (line["row"], line["seed"]) in known], len(lines) - len(kept))


def known_lines(table: Table, recipe: Recipe, home: Path) -> dict[str, Line]:
    """{run name: line} of the table's CSV and, for runs that it shares and that ended well there, of the other tables' at that scale. Raises UserError."""
    others = (csv_path(other, recipe, home) for other in every_table() if other.trains and other.name != table.name)
    shared = {line["run"]: line for path in others for line in read_lines(path) if not line["error"]}
    return {**shared, **{line["run"]: line for line in read_lines(csv_path(table, recipe, home))}}


def known_curves(table: Table, recipe: Recipe, home: Path) -> dict[str, list[Line]]:
    """{run name: lines of its learning curve} from the tables' CSVs at that scale, of which the table's own counts first. Raises UserError."""
    found: dict[str, dict[str, Line]] = {}
    for one in (table, *(other for other in every_table() if other.curves and other.name != table.name)):
        run_of, own = {(line["row"], line["seed"]): line["run"] for line in read_lines(csv_path(one, recipe, home))}, dict[str, dict[str, Line]]()
        for curve in read_lines(curves_path(one, recipe, home), CURVES):
            own.setdefault(run_of.get((curve["row"], curve["seed"]), ""), {})[curve["epoch"]] = curve  # rows may share a run
        found = {**own, **found}
    return {run: list(epochs.values()) for run, epochs in found.items()}


def read_lines(path: Path, columns: Sequence[str] = COLUMNS, once: bool = True) -> list[dict[str, str]]:
    """The lines of a results CSV, [] when there is none. Raises UserError when its header or a line is not ours or, where each is to be there
    once, a second line is of the same row and run."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or set(columns) - OPTIONAL - set(reader.fieldnames):
                raise UserError(f"{path} is not a results file (its header lacks columns); move it away and run again.")
            lines = [{name: line.get(name) or "" for name in columns} for line in reader]
            for number, line in enumerate(lines, 2):
                wrong = [name for name in columns if name not in WORDS and not numeric(line[name])]
                if wrong or not line["seed"].isdigit():
                    name = wrong[0] if wrong else "seed"
                    raise UserError(f"Line {number} of {path} is damaged (its {name} is {line[name]!r}); mend or delete it.")
            seen: dict[tuple[str, ...], int] = {}
            for number, line in enumerate(lines if once else (), 2):
                first = seen.setdefault(tuple(line[name] for name in ("row", "seed", "run", "epoch") if name in columns), number)
                if first != number:  # as merging two files may leave it; it would count twice
                    raise UserError(f"Line {number} of {path} is of the same run as line {first} ({line['row']}, seed {line['seed']}); delete one of them.")
            return lines
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path} ({error}); mend or move it and run again.") from None


def numeric(cell: str) -> bool:
    """Whether a cell is empty or a number."""
    try:
        return not cell or isfinite(float(cell))
    except ValueError:
        return False


def line_of(table: Table, row: Row, run: Run, record: Mapping[str, object]) -> dict[str, str]:
    """The CSV line of a record."""

    def number(name: str, digits: int, scale: float = 1) -> str:
        value = record.get(name)
        return f"{float(value) / scale:.{digits}f}" if isinstance(value, (int, float)) and isfinite(value) else ""

    def bound(name: str) -> str:  # of the bootstrap interval over the test videos of this one run
        interval = record.get("video_top1_interval")
        return f"{interval[name]:.3f}" if isinstance(interval, dict) else ""

    variant, recipe = run.variant, run.recipe
    dirty = "-dirty" if record.get("dirty") else ""
    return {
        "table": table.name, "row": row.label, "seed": str(run.seed), "scale": recipe.scale, "block": variant.block,
        "depth": str(variant.depth), "groups": str(variant.groups), "width": str(variant.width), "frames": str(recipe.frames),
        "crop": str(recipe.crop), "params_m": number("params", 6, 1e6), "gmacs": number("flops", 6, 1e9),
        "interactions_m": number("interactions", 6, 1e6), "train_top1": number("train_top1", 3), "clip_top1": number("clip_top1", 3),
        "video_top1": number("video_top1", 3), "video_top5": number("video_top5", 3), "n_videos": number("n_videos", 0),
        "epochs": str(recipe.epochs), "seconds": number("seconds", 0), "device": str(record.get("device") or ""),
        "commit": str(record.get("commit") or "") + dirty, "run": run.name, "error": str(record.get("error") or ""), "auc": number("auc", 3),
        "log_loss": number("log_loss", 5), "video_top1_low": bound("low"), "video_top1_high": bound("high"),
    }  # fmt: skip


def curve_of(table: Table, row: Row, run: Run, record: Mapping[str, object]) -> list[dict[str, str]]:
    """The lines of a record's learning curve: training loss and clip@1 (per cent), an epoch each."""
    history = record.get("history")
    return [
        {"table": table.name, "row": row.label, "seed": str(run.seed), "epoch": str(epoch["epoch"]), "lr": f"{epoch['lr']:.6f}",
         "loss": f"{epoch['loss']:.5f}", "clip_top1": f"{epoch['clip_top1']:.3f}"}
        for epoch in (history if isinstance(history, list) else [])
    ]  # fmt: skip


def collect(table: Table, recipe: Recipe, home: Path) -> tuple[Results, list[str]]:
    """Everything known of table at a scale, and what could not be read; writes the CSVs when something changed.

    Lines come from the records below home; a line already in the CSV whose run has no record here is kept (results that
    came with the repository, or were brought home from a cluster) as long as the run still belongs to the table, by whatever label. One that
    does not, since a row or the recipe was changed, is moved to a file beside it. The line and curve of a run that another table's CSV has are
    taken over.
    A run that ended well once keeps its line where it was stopped or killed the next time.
    """
    target = csv_path(table, recipe, home), curves_path(table, recipe, home)
    old, old_curves = read_lines(target[0]), read_lines(target[1], CURVES) if table.curves else []
    kept, known = {line["run"]: line for line in old}, known_lines(table, recipe, home)
    seeds = sorted({int(line["seed"]) for line in known.values()} | seeds_on_disk(home))
    curved = known_curves(table, recipe, home) if table.curves else {}
    lines, curves, troubles = [], [], []
    for row in table.rows:
        for _, run in runs_of([row], recipe, seeds):
            try:
                record = read_record(run, home)
            except UserError as error:
                troubles.append(str(error))
                record = None
            if record is not None and record.get("retry") and not kept.get(run.name, {"error": "no line"})["error"]:
                troubles.append(f"{row.label} seed {run.seed}, run again: {record['error']}; its line of the run before stays.")
                record = None
            if record is not None:
                lines.append(line_of(table, row, run, record))
                curves += curve_of(table, row, run, record)
            elif run.name in known:
                lines.append({**known[run.name], "table": table.name, "row": row.label})
                curves += [{**line, "table": table.name, "row": row.label} for line in curved.get(run.name, ())]
    here = {line["run"] for line in lines}
    gone = [line for line in old if line["run"] not in here]
    if gone:
        rest = {(line["row"], line["seed"]) for line in gone}
        set_aside(target[0], gone, COLUMNS)
        set_aside(target[1], [line for line in old_curves if (line["row"], line["seed"]) in rest], CURVES)
    if lines != old:
        write_lines(target[0], lines)
    if table.curves and curves != old_curves:
        write_lines(target[1], curves, CURVES)
    return Results(table, recipe, lines, curves if table.curves else (), len(gone)), troubles


def seeds_on_disk(home: Path) -> set[int]:
    """The seeds that some run folder below home has."""
    try:
        names = [path.name for path in (home / "runs").iterdir()]
    except OSError:
        return set()
    parts = (name.rsplit("-", 2) for name in names)
    return {int(p[1][1:]) for p in parts if len(p) == 3 and p[1][:1] == "s" and p[1][1:].isdigit()}


def set_aside(path: Path, gone: Sequence[Line], columns: Sequence[str]) -> None:
    """Add lines to the file of superseded ones beside path."""
    if gone:
        aside = superseded(path)
        write_lines(aside, [*(line for line in read_lines(aside, columns, once=False) if line not in gone), *gone], columns)


def write_lines(path: Path, lines: Iterable[Mapping[str, str]], columns: Sequence[str] = COLUMNS) -> None:
    """Write a results CSV, whole or not at all. Raises UserError."""
    with replacing(path, "free space or give another folder with --home") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
