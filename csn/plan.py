"""What a table would run: the state of every run, its cost, and how long the missing ones take. Imports no torch."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from csn import cluster
from csn.claims import Line
from csn.collect import known_lines, line_of
from csn.provenance import REPOSITORY
from csn.records import folder_of, read_record, resumable, stands
from csn.spec import Embedded, Recipe, Run, UserError
from csn.table import Row, Table, cost_key, planned_costs, runs_of, unfit_rows


def state_of(run: Run, home: Path, published: set[str]) -> str:
    """Where a run stands.

    done: a record is here. failed: one of an end that would come again. damaged: one that cannot be read. published: a line of the
    CSV, and nothing of the run here (whoever deletes its record wants it again). resumable: stopped, killed or crashed half-way. missing.
    """
    folder = folder_of(run, home)
    try:
        record = read_record(run, home)
    except UserError:  # named where the records are collected
        return "damaged"
    if stands(record):
        return "failed" if "error" in record else "done"
    if run.name in published and not folder.exists():
        return "published"
    return "resumable" if resumable(folder) else "missing"


def published_in(table: Table, recipe: Recipe, home: Path) -> set[str]:
    """The runs that ended well by the tables' CSVs below home."""
    return {name for name, line in known_lines(table, recipe, home).items() if not line["error"]}


def timed_lines(table: Table, recipe: Recipe, home: Path, work: Sequence[tuple[Row, Run]] = ()) -> list[Line]:
    """The lines below home of runs at this scale that have a time, those of work that are in no CSV yet by their records; or, where there is
    none, the lines that the repository came with."""
    known = known_lines(table, recipe, home)
    for row, run in work:
        if run.name not in known:
            with suppress(UserError):  # a damaged one is named where the records are collected
                record = read_record(run, home)
                if stands(record) and "error" not in record:
                    known[run.name] = line_of(table, row, run, record)
    return [line for line in (known or known_lines(table, recipe, REPOSITORY)).values() if line["seconds"]]


def seconds_of(work: list[tuple[Row, Run]], table: Table, lines: Sequence[Line]) -> dict[str, float]:
    """{run name: expected seconds on one job}, from timed lines: the row's own median, else by FLOPs and epochs; empty without lines."""
    from statistics import median

    took: dict[str, list[float]] = {}
    for line in lines:
        if line["table"] == table.name:
            took.setdefault(line["row"], []).append(float(line["seconds"]))
    rates = [float(line["seconds"]) / float(line["gmacs"]) / float(line["epochs"]) for line in lines if line["gmacs"] and float(line["epochs"] or 0)]
    costs = planned_costs()
    expected = {}
    for row, run in work:
        flops = costs.get(cost_key(run.variant, run.recipe), {}).get("flops")
        if row.label in took:
            expected[run.name] = median(took[row.label])
        elif rates and flops:
            expected[run.name] = median(rates) * flops / 1e9 * run.recipe.epochs
    return expected


def plan(table: Table, rows: list[Row], seeds: Sequence[int] | None, recipe: Recipe, home: Path, data: Path, jobs: int, console: Console) -> None:
    """Print every row with its cost and the state of its runs."""
    from rich.markup import escape
    from rich.table import Table as Grid

    published = published_in(table, recipe, home)
    work = runs_of(rows, recipe, seeds)
    lines = timed_lines(table, recipe, home, work)
    costs, expected = planned_costs(), seconds_of(work, table, lines)
    gpu = cluster.gpu_seconds([run for _, run in work])
    grid = Grid(title=f"{escape(table.title)}: plan at {scale_of(rows, recipe)}", title_justify="left", caption_justify="left",
                caption=f"GMACs of one clip of {clip_of(rows, recipe)}. each: one job, h:min:s or min:s." if work else "")  # fmt: skip
    for name in ("row", "GMACs", "M par", "M inter"):
        grid.add_column(name, justify="left" if name == "row" else "right", no_wrap=True)
    grid.add_column("runs by seed")
    grid.add_column("each", justify="right", no_wrap=True)
    counts: dict[str, int] = {}
    left: list[float | None] = []  # expected seconds of what is missing
    from csn.runner import clock

    for row in rows:
        if row.unfit(recipe):
            grid.add_row(escape(row.label), "", "", "", "cannot be held", "")
            continue
        cost = costs.get(cost_of(row, recipe))
        states, name = {}, ""
        for own, run in work:
            if own is row:
                name = name or run.name
                states[run.seed] = state_of(run, home, published)
                if states[run.seed] in ("missing", "resumable"):
                    left.append(expected.get(run.name))
        for state in states.values():
            counts[state] = counts.get(state, 0) + 1
        each = clock(expected[name]) if name in expected else f"{gpu[name] / 3600:,.1f} GPU-h" if name in gpu else ""
        grid.add_row(
            escape(row.label),
            f"{cost['flops'] / 1e9:.4f}" if cost else "", f"{cost['params'] / 1e6:.3f}" if cost else "", f"{cost['interactions'] / 1e6:.3f}" if cost else "",
            grouped(states), each,
        )  # fmt: skip
    console.print(grid)
    for sentence in unfit_rows(rows, recipe):
        console.print(f"Cannot be held: {sentence}", markup=False, highlight=False)
    if needed := needs(rows, recipe, data):
        console.print(f"Needed below {data}:", soft_wrap=True, markup=False, highlight=False)
        for need, labels in needed.items():
            console.print(f"  {need}: {', '.join(labels)}", markup=False, highlight=False)
    told = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    hint = "; --status names the damaged records" if "damaged" in counts else ""
    console.print(f"{len(work)} run{'' if len(work) == 1 else 's'}{told and ': '}{told}{hint}", highlight=False)
    if left:
        known = [seconds for seconds in left if seconds is not None]
        unknown = f", without {len(left) - len(known)} of unknown time" if len(known) < len(left) else ""
        devices = ", ".join(sorted({line["device"] for line in lines}))
        time = f"about {spoken(makespan(known, jobs))}{unknown}, by runs on {devices}" if known else "unknown before a first result"
        console.print(f"Estimated time for what is missing, {jobs} at a time: {time}.", highlight=False)
    if gpu:
        names = [run.name for _, run in work if state_of(run, home, published) in ("missing", "resumable")]
        hours, blank = sum(gpu.get(name, 0.0) for name in names) / 3600, sum(name not in gpu for name in names)
        told = f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"
        console.print(
            f"About {told} GPU-hours for what is missing" + (f", without {blank} runs of unknown cost" if blank else "") + ": an estimate from"
            f" FLOPs (three forward passes for a training clip, one for a view) at an assumed {cluster.SUSTAINED / 1e12:.0f} TFLOP/s sustained by a GPU.",
            highlight=False,
        )  # fmt: skip
    if any(cost_of(row, recipe) not in costs for row in rows if not row.unfit(recipe)):
        console.print("Empty cost cells are filled by --show, which counts them from the real networks.")


def scale_of(rows: Sequence[Row], recipe: Recipe) -> str:
    """'scale small, width 16': what all rows run at, or else the table."""
    found = {(own.scale, own.width) for own in (row.under(recipe) for row in rows if not row.unfit(recipe))}
    scale, width = found.pop() if len(found) == 1 else (recipe.scale, recipe.width)
    return f"scale {scale}, width {width}"


def makespan(seconds: Sequence[float], jobs: int) -> float:
    """How long runs take that begin in this order, jobs at a time."""
    ends = [0.0] * jobs
    for own in seconds:
        heapq.heapreplace(ends, ends[0] + own)
    return max(ends)


def spoken(seconds: float) -> str:
    """45 s, 12 min, 2 h 3 min."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def cost_of(row: Row, recipe: Recipe) -> str:
    """What the count of a row's training clip is remembered by, or of its view where it is only tested."""
    return cost_key(row.at(recipe), row.under(recipe), view=not row.under(recipe).clips_per_epoch)


def clip_of(rows: Sequence[Row], recipe: Recipe) -> str:
    """'8x224x224, 400 classes', the clip and classes that all rows share, or that each has its own."""
    found = {f"{own.frames}x{own.crop}x{own.crop}, {own.data.classes} classes" for own in (row.under(recipe) for row in rows if not row.unfit(recipe))}
    return found.pop() if len(found) == 1 else "each row's own size (of a view, where it is only tested) and classes"


def needs(rows: list[Row], recipe: Recipe, data: Path) -> dict[str, list[str]]:
    """{file or folder below the data folder that no run makes, and whether it is there: rows that need it}."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.unfit(recipe) or isinstance((own := row.under(recipe)).data, Embedded):
            continue
        for place in (own.data.kind, *([f"checkpoints/{own.pretrained}"] if own.pretrained else [])):
            found.setdefault(f"{place} ({'there' if (data / place).exists() else 'missing'})", []).append(row.label)
    return found


def grouped(states: dict[int, str]) -> str:
    """'done 0 1, missing 2' from {seed: state}."""
    seeds: dict[str, list[str]] = {}
    for seed, state in states.items():
        seeds.setdefault(state, []).append(str(seed))
    return ", ".join(f"{state} {' '.join(own)}" for state, own in seeds.items())
