"""The flags that every table script shares: `main(table)` is all a script in experiments/ calls.

    (no flag)   run here what is missing, then show
    --plan      runs, cost, state and estimated time; imports no torch
    --show      collect, write the CSV and the figure, print the table and the verdicts
    --submit --status --cancel [--profile NAME --dirty --json]      the same runs on SLURM
    --only LABEL.. --seeds 0 1 2 --scale small --data DIR --device cpu|cuda --home DIR --jobs N
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from csn import cluster
from csn.collect import collect, csv_path, read_lines
from csn.execute import folder_of, read_record
from csn.provenance import REPOSITORY
from csn.recipes import SCALES, recipe_of
from csn.spec import Embedded, Recipe, Run, UserError
from csn.table import Row, Table, cost_key, count_costs, planned_costs, runs_of, unfit_rows


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message[0].upper()}{message[1:]}; --help lists the flags.")


def parser_of(table: Table) -> Parser:
    parser = Parser(description=f"{table.title}. With no flag: run here what is missing, then show.")
    action = parser.add_mutually_exclusive_group()
    parser.add_argument("--plan", action="store_true", help="list the runs, their cost, state and time; with --submit: what would be submitted")
    action.add_argument("--show", action="store_true", help="collect what is there, write CSV and figure, print table and verdicts")
    cluster.add_flags(parser, action)
    parser.add_argument("--only", nargs="+", metavar="LABEL", help="these rows only")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these seeds (by default those of the scale)")
    parser.add_argument("--scale", default=table.scale, help=f"one of {', '.join(SCALES)} (default: {table.scale})")
    parser.add_argument("--home", type=Path, default=REPOSITORY, help="folder of runs/ and results/ (default: the repository)")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: HOME/data)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one a core on cpu, one on cuda)")
    return parser


def main(table: Table, arguments: Sequence[str] | None = None) -> int:
    """Do what the flags say; returns the exit code: 0, 1 when a run failed, 2 for what a person can mend."""
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        args = parser_of(table).parse_args(arguments)
        recipe = recipe_of(args.scale)
        rows = table.chosen(args.only)
        seeds = tuple(args.seeds) if args.seeds is not None else table.seeds_at(recipe.scale)
        home, data = args.home.resolve(), (args.data or args.home / "data").resolve()
        if args.plan and (args.show or args.status or args.cancel):
            raise UserError("Argument --plan: goes alone or with --submit; --help lists the flags.")
        if not table.trains:
            return show_costs(table, rows, recipe, home, args.plan, console)
        if args.submit or args.status or args.cancel:
            work = runs_of(rows, recipe, seeds)
            count_costs(run for _, run in work if args.submit)
            published = {line["run"] for line in read_lines(csv_path(table, recipe, home))}
            runs = [run for _, run in work if state_of(run, home, published) != "published"]
            if args.submit and len(runs) < len(work):
                console.print(f"{len(work) - len(runs)} published runs are left out; to run them again, give a fresh --home.", soft_wrap=True)
            return cluster.act(args, runs, home, data, seconds_of(work, recipe, table, home))
        if args.plan:
            plan(table, rows, seeds, recipe, home, data, jobs_of(args), console)
            return 0
        code = 0
        if not args.show:
            code = run_missing(table, rows, seeds, recipe, home, data, args, console, errors)
        return max(code, show(table, args.only, args.seeds, recipe, home, console, errors))
    except UserError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        return 2


def jobs_of(args: argparse.Namespace) -> int:
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"`--jobs` (={args.jobs}) must be at least 1.")
    if args.device != "cpu" and args.device.split(":")[0] != "cuda":
        raise UserError(f"`--device` (={args.device}) must be cpu or cuda.")
    return args.jobs or (len(os.sched_getaffinity(0)) if args.device == "cpu" else 1)


def state_of(run: Run, home: Path, published: set[str]) -> str:
    """Where a run stands.

    done: a record is here. failed: one of an end that would come again. damaged: one that cannot be read. published: a line of the
    CSV, no record here. resumable: stopped, killed or crashed half-way. missing.
    """
    folder = folder_of(run, home)
    try:
        record = read_record(run, home)
    except UserError:  # named where the records are collected
        return "damaged"
    if record is not None and not record.get("retry"):
        return "failed" if "error" in record else "done"
    if record is None and run.name in published:
        return "published"
    return "resumable" if (folder / "last.ckpt").exists() or (folder / "before.ckpt").exists() else "missing"


def seconds_of(work: list[tuple[Row, Run]], recipe: Recipe, table: Table, home: Path) -> dict[str, float]:
    """{run name: expected seconds on one job}, from the lines at hand: the row's own median, else by FLOPs; empty without lines."""
    from statistics import median

    lines = read_lines(csv_path(table, recipe, home)) or read_lines(csv_path(table, recipe, REPOSITORY))
    took: dict[str, list[float]] = {}
    for line in lines:
        if line["seconds"]:
            took.setdefault(line["row"], []).append(float(line["seconds"]))
    rates = [float(line["seconds"]) / float(line["gmacs"]) for line in lines if line["seconds"] and line["gmacs"]]
    costs = planned_costs()
    expected = {}
    for row, run in work:
        flops = costs.get(cost_key(run.variant, run.recipe), {}).get("flops")
        if row.label in took:
            expected[run.name] = median(took[row.label])
        elif rates and flops:
            expected[run.name] = median(rates) * flops / 1e9
    return expected


def plan(table: Table, rows: list[Row], seeds: Sequence[int], recipe: Recipe, home: Path, data: Path, jobs: int, console: Console) -> None:
    """Print every row with its cost and the state of its runs."""
    from rich.table import Table as Grid

    published = {line["run"] for line in read_lines(csv_path(table, recipe, home))}
    work = runs_of(rows, recipe, seeds)
    costs, expected = planned_costs(), seconds_of(work, recipe, table, home)
    gpu = {} if isinstance(recipe.data, Embedded) else cluster.gpu_seconds([run for _, run in work])
    side = f"{recipe.frames}x{recipe.crop}x{recipe.crop}"
    grid = Grid(title=f"{table.title}: plan at scale {recipe.scale}, width {recipe.width}", title_justify="left", caption_justify="left",
                caption=f"GMACs of one clip of {side}, {recipe.data.classes} classes. s: minutes and seconds are of one job.")  # fmt: skip
    for name in ("row", "GMACs", "M par", "M inter"):
        grid.add_column(name, justify="left" if name == "row" else "right", no_wrap=True)
    grid.add_column("runs by seed")
    grid.add_column("each", justify="right", no_wrap=True)
    counts: dict[str, int] = {}
    remaining, unknown = 0.0, False
    from csn.runner import clock

    for row in rows:
        if row.unfit(recipe):
            grid.add_row(row.label, "", "", "", "cannot be held", "")
            continue
        cost = costs.get(cost_key(row.at(recipe), row.under(recipe)))
        states = {}
        for own, run in work:
            if own is row:
                states[run.seed] = state_of(run, home, published)
                if states[run.seed] in ("missing", "resumable"):
                    unknown |= run.name not in expected
                    remaining += expected.get(run.name, 0.0)
        for state in states.values():
            counts[state] = counts.get(state, 0) + 1
        name = Run(variant=row.at(recipe), recipe=row.under(recipe), seed=seeds[0]).name if seeds else ""
        each = clock(expected[name]) if name in expected else f"{gpu[name] / 3600:,.1f} GPU-h" if name in gpu else ""
        grid.add_row(
            row.label,
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
    console.print(f"{len(work)} runs: " + (", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none"), highlight=False)
    if counts.get("missing", 0) + counts.get("resumable", 0):
        time = "unknown before a first result" if unknown and not remaining else f"about {clock(remaining / jobs)}"
        console.print(f"Estimated time for what is missing, {jobs} at a time: {time}.", highlight=False)
    if gpu:
        left = [run.name for _, run in work if state_of(run, home, published) in ("missing", "resumable")]
        hours, blank = sum(gpu.get(name, 0.0) for name in left) / 3600, sum(name not in gpu for name in left)
        console.print(
            f"About {hours:,.0f} GPU-hours for what is missing" + (f", without {blank} runs of unknown cost" if blank else "") + ": an estimate from"
            f" FLOPs (three forward passes for a training clip, one for a view) at an assumed {cluster.SUSTAINED / 1e12:.0f} TFLOP/s sustained by a GPU.",
            highlight=False,
        )  # fmt: skip
    if any(cost_key(row.at(recipe), row.under(recipe)) not in costs for row in rows if not row.unfit(recipe)):
        console.print("Empty cost cells are filled by --show, which counts them from the real networks.")


def needs(rows: list[Row], recipe: Recipe, data: Path) -> dict[str, list[str]]:
    """{file or folder below the data folder that no run makes, and whether it is there: rows that need it}."""
    found: dict[str, list[str]] = {}
    for row in rows:
        own = row.under(recipe)
        places: list[str] = [] if row.unfit(recipe) or isinstance(own.data, Embedded) else [own.data.kind]
        places += [f"checkpoints/{own.pretrained}"] if places and own.pretrained else []
        for place in places:
            found.setdefault(f"{place} ({'there' if (data / place).exists() else 'missing'})", []).append(row.label)
    return found


def grouped(states: dict[int, str]) -> str:
    """'done 0 1, missing 2' from {seed: state}."""
    seeds: dict[str, list[str]] = {}
    for seed, state in states.items():
        seeds.setdefault(state, []).append(str(seed))
    return ", ".join(f"{state} {' '.join(own)}" for state, own in seeds.items())


def run_missing(
    table: Table, rows: list[Row], seeds: Sequence[int], recipe: Recipe, home: Path, data: Path, args: argparse.Namespace, console: Console, errors: Console
) -> int:
    """Make the data and run what is missing. Returns 0, 1 or 2 (see main)."""
    published = {line["run"] for line in read_lines(csv_path(table, recipe, home))}
    jobs = jobs_of(args)
    work = [(row, run) for row, run in runs_of(rows, recipe, seeds) if state_of(run, home, published) in ("missing", "resumable")]
    if not work:
        console.print("Nothing is missing." + (" To run published rows again, give a fresh --home." if published else ""))
        return 0
    try:
        (home / "runs").mkdir(parents=True, exist_ok=True)
        with open(home / "runs" / f".try.{os.getpid()}", "w"):
            pass
        (home / "runs" / f".try.{os.getpid()}").unlink()
    except OSError as error:
        raise UserError(f"`--home` (={home}) cannot be written ({error.strerror}); give another folder.") from None
    count_costs(run for _, run in work)
    for own in {run.recipe.data: run.recipe for _, run in work}.values():
        make_data(own, data, console)
    from csn.runner import run_all

    costs, expected = planned_costs(), seconds_of(work, recipe, table, home)
    weights = [expected.get(run.name) or costs.get(cost_key(run.variant, run.recipe), {}).get("flops", 1) / 1e9 for _, run in work]
    jobs_list = [(row.label, run, weight) for (row, run), weight in zip(work, weights, strict=True)]
    how = f", {jobs} at a time, one thread each" if args.device == "cpu" else ""
    console.print(f"{len(work)} runs at scale {recipe.scale}{how}.")
    troubles, interrupted = run_all(jobs_list, home, data, args.device, jobs, console)
    if interrupted:
        raise UserError("Interrupted: every run has saved its state; the same command goes on from there")
    for sentence in troubles:
        errors.print(sentence, markup=False, soft_wrap=True)
    records = [read_record(run, home) for _, run in work]
    ended = [record for record in records if record is not None and (not record.get("retry") or "traceback" in record)]  # not stopped, not killed
    return 0 if not troubles else 1 if len(ended) == len(work) else 2


def show_costs(table: Table, rows: list[Row], recipe: Recipe, home: Path, plan_only: bool, console: Console) -> int:
    """A table without training: count, write the CSV, print the costs beside the paper's. Returns 0."""
    if plan_only:
        console.print(f"{table.title}: {len(rows)} networks to count, no training, a few seconds.")
        return 0
    from csn.show import render_costs

    render_costs(table, rows, recipe, home, console)
    return 0


def make_data(recipe: Recipe, data: Path, console: Console) -> None:
    """Write a built-in set where it is missing, with a progress bar; say how much of a public one is there. Raises UserError."""
    if not isinstance(recipe.data, Embedded):
        from csn.data.loader import load

        for split in ("train", "test"):
            console.print("\n".join(load(recipe, data, split).told(f"{recipe.data.kind}, {split}")), markup=False, highlight=False, soft_wrap=True)
        return
    spec = recipe.data
    from rich.progress import Progress

    from csn.data import sets
    from csn.data.embedded import SPLITS

    workers = len(os.sched_getaffinity(0))
    with Progress(console=console, transient=True) as display:

        def bar(what: str) -> Callable[[int, int], None]:
            task = display.add_task(what, total=None, visible=False)
            return lambda done, total: display.update(task, completed=done, total=total, visible=True)

        sets.drawn(spec).make(spec, data, workers, bar(f"Writing {spec.kind}"))
        for split in SPLITS:
            sets.drawn(spec).decoded(spec, data, split, workers, bar(f"Decoding {spec.kind}, {split}"))


def show(table: Table, only: Sequence[str] | None, seeds: Sequence[int] | None, recipe: Recipe, home: Path, console: Console, errors: Console) -> int:
    """Collect, write CSV and figure, print the table and the verdicts of the rows and seeds asked for."""
    from csn.show import render

    results, troubles = collect(table, recipe, home)
    count_costs(run for _, run in runs_of(table.rows, recipe, (0,)))
    chosen = [line for line in results.lines if (only is None or line["row"] in only) and (seeds is None or int(line["seed"]) in seeds)]
    render(replace(results, lines=chosen), table.chosen(only), home, console)
    for sentence in troubles:
        errors.print(f"error: {sentence}", markup=False, soft_wrap=True)
    if troubles:
        return 2
    return 1 if any(line["error"] for line in chosen) else 0


