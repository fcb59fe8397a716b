"""A table as a person reads it: measured against the paper, verdicts below, the figures beside the CSV.

What is shown is a Sheet, made here from results and counts alone; it is printed by rich, and csn.report writes the same
sheets as Markdown and HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from csn.claims import Line
from csn.collect import Results, csv_path
from csn.complexity import architecture, complexity
from csn.ledger import verdicts
from csn.metrics import next_value
from csn.published import benchmarks
from csn.sheet import Sheet, cell, mean, put
from csn.spec import require
from csn.table import Row, Table, unfit_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADS = {"train_top1": "train", "clip_top1": "clip@1", "video_top1": "video@1", "gap": "gap", "auc": "AUC"}
TOPS = {"train_top1": "training videos", "clip_top1": "test clips", "video_top1": "test videos"}
COSTS = ("GMACs", "M par", "M inter")


def accuracies(results: Results, rows: Sequence[Row], narrow: bool = False) -> Sheet:
    """Every row's cost and metrics over its seeds, beside the paper's accuracy. narrow: the interval of the last metric only."""
    table, recipe = results.table, results.recipe
    own_recipes = {row.under(recipe) for row in rows if not row.unfit(recipe)}
    recipe = own_recipes.pop() if len(own_recipes) == 1 else recipe
    papers = any(row.paper_top1 for row in rows)
    out = []
    for row in rows:
        own = results.of(row.label)
        costs = [f"{float(own[0][name]):.{digits}f}" if own and own[0][name] else ""
                 for name, digits in (("gmacs", 4), ("params_m", 3), ("interactions_m", 2))]  # fmt: skip
        found = [results.measured(row.label, metric) for metric in table.metrics]
        metrics = [mean(one) if narrow and one is not found[-1] else cell(one) for one in found]
        paper = [str(row.paper_top1 or "")] if papers else []
        out.append((row.label, *costs, *metrics, seeds_told(results, row), *paper))
    views = f"{recipe.test_clips} clips x {recipe.test_crops} crop{'s' if recipe.test_crops > 1 else ''} a video"
    tops = [metric for metric in table.metrics if metric in TOPS]
    caption = (
        f"GMACs: one clip of {recipe.frames}x{recipe.crop}x{recipe.crop}. M par, M inter: million parameters and channel interactions. "
        f"{', '.join(HEADS[metric] for metric in tops)}: top-1 in per cent of {', '.join(TOPS[metric] for metric in tops)}, {views}; mean over n seeds, "
        f"± half its 95 % interval{' where shown' if narrow else ''}; empty: not run, or not with every seed planned."
    )  # fmt: skip
    if len({len(results.of(row.label)) for row in rows} - {0}) > 1:
        caption += " Rows of another n are of other seeds: compare them by the claims, which pair seeds."
    caption += " gap: train minus video@1, points." if "gap" in table.metrics else ""
    caption += " paper: Kinetics-400 video@1, † recalled, source not found." if papers else ""
    columns = ("row", *COSTS, *(HEADS[metric] for metric in table.metrics), "n", *(("paper",) if papers else ()))
    return Sheet(f"{table.title}, scale {recipe.scale}, width {recipe.width}", columns, out, caption)


def seeds_told(results: Results, row: Row) -> str:
    """How many seeds a row's means are of: "3", "2 of 3" where there are no means, "" where nothing was run."""
    there, planned = len(results.of(row.label)), len(results.planned[row.label])
    return "" if not there else str(there) if there == planned else f"{there} of {planned}"


def lacking(results: Results, rows: Sequence[Row]) -> list[str]:
    """A sentence for the rows that lack the same planned seeds, with the remedy; none where nothing was run at all."""
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for row in rows if results.lines else ():
        if missing := results.missing(row.label):
            there = tuple(seed for seed in results.planned[row.label] if seed not in missing)
            found.setdefault((missing, there), []).append(row.label)
    out = []
    for (missing, there), labels in found.items():
        one = len(missing) == 1
        remedy = f"run {'it' if one else 'them'}" + (f", or --seeds {' '.join(map(str, there))} shows the others" if there else "")
        out.append(f"{', '.join(labels)}: seed{'' if one else 's'} {' '.join(map(str, missing))} {'is' if one else 'are'} missing; {remedy}.")
    return out


def reasons(results: Results, rows: Sequence[Row]) -> list[str]:
    """A sentence for rows that the scale cannot hold, for every run that failed, for planned seeds that are missing, and for lines of other runs."""
    failed = [f"{line['row']}: seed {line['seed']} failed: {line['error']}"
              for row in rows for line in results.lines if line["row"] == row.label and line["error"]]  # fmt: skip
    gone = f"Lines of runs that belong to this table no more, since its rows or recipe changed, are left out: {results.superseded}."
    return unfit_rows(rows, results.recipe) + failed + lacking(results, rows) + ([gone] if results.superseded else [])


def sheets(results: Results, rows: Sequence[Row], narrow: bool = False) -> list[Sheet]:
    """Everything there is to read of some rows of a table at a scale: they, their cost at the paper's size, the claims that name any of them."""
    if any(row.published for row in rows):
        return benchmarks(results, rows)
    trains = results.table.trains
    found = [accuracies(results, rows, narrow) if trains else architecture(rows, results.recipe)]
    if any(row.paper_cost for row in rows):
        found.append(complexity("Cost at the paper's size" if trains else results.table.title, rows))
    claims = results.naming([row.label for row in rows])
    judged = claims.judged()
    return [*found, *([verdicts(judged, claims.unheld())] if judged else [])]


def compared(line: Line, committed: Sequence[Line]) -> str:
    """How a rerun line stands to the committed line of the same run, one of the committed lines of its row.

    Equal in every accuracy; or, as on another type of machine, where a run is to its committed line as another seed is, within
    or outside the interval of one more run of the row (csn.metrics.next_value), of fewer than three that of the committed
    line over its test videos; or by how much it differs where there is none.
    """
    own = next(one for one in committed if one["run"] == line["run"])
    ours, theirs, low, high, of = line["video_top1"], own["video_top1"], own["video_top1_low"], own["video_top1_high"], "over test videos"
    tops = [float(one["video_top1"]) for one in committed if one["video_top1"]]
    if len(tops) >= 3:
        bounds = next_value(tops)
        low, high, of = f"{max(0, bounds.low):.1f}", f"{min(100, bounds.high):.1f}", f"of one more run, {bounds.n} seeds"
    start = f"{line['row']} seed {line['seed']}: video@1 {ours or 'missing'}, committed {theirs or 'missing'} on {own['device']}: "
    if all(line[name] == own[name] for name in ("train_top1", "clip_top1", "video_top1")):
        return f"{start}equal."
    if not ours or not theirs:
        return f"{start}cannot be compared."
    if not low or not high:
        return f"{start}differs by {float(ours) - float(theirs):+.3f} points."
    return f"{start}{'within' if float(low) <= float(ours) <= float(high) else 'outside'} [{low}, {high}], 95 % {of}."


def drawers(table: Table) -> dict[str, Callable[[Results], Figure]]:
    """The functions of csn.plots that draw the table's figures, by name. Raises UserError where there is none of a name."""
    from csn import plots

    for name in table.figures:
        require(callable(getattr(plots, name, None)), "figures", name, f"of {table.name} must be a function of csn.plots")
    return {name: getattr(plots, name) for name in table.figures}


def render(drawn: Results, printed: Results, rows: Sequence[Row], home: Path, console: Console) -> None:
    """Print rows and verdicts of printed; write the figures of drawn. Raises UserError when one cannot be written."""
    table, recipe = drawn.table, drawn.recipe
    first, *others = sheets(printed, rows, narrow=True)
    put(first, console)
    for sentence in [*reasons(printed, rows), *filter(None, [table.note])]:
        console.print(sentence, markup=False, highlight=False)
    for sheet in others:
        put(sheet, console)
    path = csv_path(table, recipe, home)
    every = ", of all planned seeds" if printed.seeds is not None and drawn.seeds is None else ""
    if drawn.lines or any(row.published for row in table.rows):
        from csn import plots

        for i, (name, draw) in enumerate(drawers(table).items()):
            target = path.with_suffix("") if i == 0 else path.with_name(f"{table.name}_{name}")
            written = plots.save(draw(drawn), target)
            console.print(f"figure: {written[0]} (and .svg){every}", soft_wrap=True, markup=False)
    if path.exists():
        console.print(f"results: {path}{every}", soft_wrap=True, markup=False)
