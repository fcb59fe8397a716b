"""From records to the CSVs of a table, and back: only the collector writes them. Missing is an empty cell, never 0."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from csn.claims import Judged, Line, judge, value
from csn.execute import read_record
from csn.files import replacing
from csn.provenance import REPOSITORY
from csn.spec import Recipe, Run, UserError
from csn.table import Row, Table, runs_of

if TYPE_CHECKING:
    from csn.metrics import Interval

COLUMNS = (
    "table", "row", "seed", "scale", "block", "depth", "groups", "width", "frames", "crop", "params_m", "gmacs", "interactions_m",
    "train_top1", "clip_top1", "video_top1", "video_top5", "n_videos", "epochs", "seconds", "device", "commit", "run", "error", "auc", "log_loss",
    "video_top1_low", "video_top1_high",
)  # fmt: skip
OPTIONAL = {"error", *COLUMNS[-4:]}  # a file without them is read all the same
CURVES = ("table", "row", "seed", "epoch", "lr", "loss", "clip_top1")  # of training, an epoch a line


@dataclass(frozen=True)
class Results:
    """What is known of a table at a scale. lines: of its CSV. curves: of its learning curves, where it keeps them.

    superseded: how many more lines the CSV had, of runs that belong to the table no more since its rows or recipe changed.
    """

    table: Table
    recipe: Recipe
    lines: Sequence[Line]
    curves: Sequence[Line] = ()
    superseded: int = 0

    @property
    def whole(self) -> list[Line]:
        """The lines of runs that did not fail."""
        return [line for line in self.lines if not line["error"]]

    def of(self, label: str) -> list[Line]:
        """The whole lines of a row."""
        return [line for line in self.whole if line["row"] == label]

    def measured(self, label: str, metric: str) -> Interval:
        """Mean and interval of a row's metric over its seeds."""
        from csn.metrics import interval

        return interval([v for line in self.of(label) if isfinite(v := value(line, metric))])

    def judged(self) -> list[Judged]:
        """The verdicts on the table's claims."""
        return [judge(claim, self.whole) for claim in self.table.claims]


def csv_path(table: Table, recipe: Recipe, home: Path) -> Path:
    return home / "results" / recipe.scale / f"{table.name}.csv"


def curves_path(table: Table, recipe: Recipe, home: Path) -> Path:
    return home / "results" / recipe.scale / f"{table.name.split('_')[0]}_curves.csv"


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


def read_lines(path: Path, columns: Sequence[str] = COLUMNS) -> list[dict[str, str]]:
    """The lines of a results CSV, [] when there is none. Raises UserError when its header is not ours."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or set(columns) - OPTIONAL - set(reader.fieldnames):
                raise UserError(f"{path} is not a results file (its header lacks columns); move it away and run again.")
            lines = [{name: line.get(name) or "" for name in columns} for line in reader]
            for number, line in enumerate(lines, 2):
                if not line["seed"].isdigit():
                    raise UserError(f"Line {number} of {path} is damaged (its seed is {line['seed']!r}); mend or delete it.")
            return lines
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path} ({error}); mend or move it and run again.") from None


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
    came with the repository, or were brought home from a cluster) as long as the run still belongs to the table. One that does
    not, since a row or the recipe was changed, is moved to a file beside it.
    """
    target = csv_path(table, recipe, home), curves_path(table, recipe, home)
    old, old_curves = read_lines(target[0]), read_lines(target[1], CURVES) if table.curves else []
    kept = {line["run"]: line for line in old}
    seeds = sorted({int(line["seed"]) for line in old} | seeds_on_disk(home))
    lines, curves, troubles = [], [], []
    for row in table.rows:
        for _, run in runs_of([row], recipe, seeds):
            try:
                record = read_record(run, home)
            except UserError as error:
                troubles.append(str(error))
                record = None
            if record is not None:
                lines.append(line_of(table, row, run, record))
                curves += curve_of(table, row, run, record)
            elif run.name in kept and kept[run.name]["row"] == row.label:
                lines.append(dict(kept[run.name]))
                curves += [line for line in old_curves if (line["row"], line["seed"]) == (row.label, str(run.seed))]
    here = {line["run"] for line in lines}
    gone = [line for name, line in kept.items() if name not in here]
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
        write_lines(aside, [*(line for line in read_lines(aside, columns) if line not in gone), *gone], columns)


def write_lines(path: Path, lines: Iterable[Mapping[str, str]], columns: Sequence[str] = COLUMNS) -> None:
    """Write a results CSV, whole or not at all. Raises UserError."""
    with replacing(path, "free space or give another folder with --home") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
