"""The flags that every table script shares: `main(table)` is all a script in experiments/ calls.

    (no flag)   run here what is missing, then show
    --plan      runs, cost, state and estimated time; imports no torch
    --show      collect, write the CSV and the figure, print the table and the verdicts
    --submit --status --cancel [--profile NAME --dirty --json]      the same runs on SLURM
    --only LABEL.. --seeds 0 1 2 --scale small --data DIR --device cpu|cuda --home DIR --jobs N

What a person can mend is one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from csn import cluster
from csn.collect import collect, csv_path, read_lines, superseded
from csn.flags import Parser, folder, results_home
from csn.plan import plan, published_in, scale_of, seconds_of, state_of, timed_lines
from csn.provenance import REPOSITORY, device_of
from csn.recipes import SCALES, recipe_of
from csn.records import read_record
from csn.signals import handled, hangup
from csn.spec import Embedded, Recipe, Run, UserError, require
from csn.table import COUNTS_AT, Row, Table, cost_key, count_costs, planned_costs, runs_of


def parser_of(table: Table) -> Parser:
    parser = Parser(description=f"{table.title}. With no flag: run here what is missing, then show.")
    action = parser.add_mutually_exclusive_group()
    parser.add_argument("--plan", action="store_true", help="list the runs, their cost, state and time; with --submit: what would be submitted")
    action.add_argument("--show", action="store_true", help="collect what is there, write CSV and figure, print table and verdicts")
    cluster.add_flags(parser, action)
    parser.add_argument("--only", nargs="+", metavar="LABEL", help="these rows only")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these seeds (by default those planned for each row)")
    parser.add_argument("--scale", default=table.scale, help=f"one of {', '.join(SCALES)} (default: {table.scale})")
    parser.add_argument("--home", type=folder, default=REPOSITORY, help="folder of runs/ and results/ (default: the repository)")
    parser.add_argument("--data", type=folder, help="folder of the data sets (default: HOME/data)")
    parser.add_argument("--device", help="cpu or cuda (default: cpu)")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one a core on cpu, one on cuda)")
    return parser


class Piped(Console):
    """A Console that tells when whoever reads what is printed has left, as head does. (rich would exit with 1, a failed run's code.)"""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def main(table: Table, arguments: Sequence[str] | None = None) -> int:
    """Do what the flags say; returns the exit code: 0, 1 when a run failed, 2 for what a person can mend."""
    console, errors = Piped(highlight=False), Console(stderr=True, highlight=False)
    try:
        # whoever ends the command, or closes its terminal, means what Ctrl-C means
        with handled(signal.default_int_handler, signal.SIGTERM, *hangup()):
            return act(table, arguments, console, errors)
    except UserError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("Interrupted; the same command goes on from there.")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def act(table: Table, arguments: Sequence[str] | None, console: Console, errors: Console) -> int:
    """Do what the flags say; returns 0, 1 or 2 (see main). Raises UserError."""
    args = parser_of(table).parse_args(arguments)
    refuse(args, table)
    recipe = recipe_of(args.scale)
    rows = table.chosen(args.only)
    seeds = tuple(dict.fromkeys(args.seeds)) if args.seeds is not None else None
    home, data = args.home.resolve(), (args.data or args.home / "data").resolve()
    counted = COUNTS_AT.set(home)
    try:
        if not table.trains:
            return show_costs(table, rows, recipe, home, args.plan, console)
        if not (args.plan or args.show or args.status or args.cancel):
            from csn.show import drawers

            drawers(table)  # what is wrong with the figures is told before days of training
        if args.submit or args.status or args.cancel:
            work = runs_of(rows, recipe, seeds)
            count_costs(run for _, run in work if args.submit)
            published = published_in(table, recipe, home)
            runs = [run for _, run in work if state_of(run, home, published) != "published"]
            if len(runs) < len(work) and not args.json:
                told = "published run is" if len(work) - len(runs) == 1 else "published runs are"
                again = "" if args.cancel else "; to run them again, give a fresh --home"
                console.print(f"{len(work) - len(runs)} {told} left out{again}.", soft_wrap=True)
                if not runs:
                    return 0
            return cluster.act(args, runs, home, data, seconds_of(work, table, timed_lines(table, recipe, home, work)))
        if args.plan:
            plan(table, rows, seeds, recipe, home, data, jobs_of(args), console)
            return 0
        code = 0
        if args.show:
            results_home(home)
        else:
            code = run_missing(table, rows, seeds, recipe, home, data, args, console, errors)
        return max(code, show(table, args.only, seeds, recipe, home, console, errors))
    finally:
        COUNTS_AT.reset(counted)


def refuse(args: argparse.Namespace, table: Table) -> None:
    """Raise UserError for flags that are wrong together, or wrong for the table."""
    require(args.scale in SCALES, "--scale", args.scale, f"must be one of {', '.join(SCALES)}")
    for seed in args.seeds or ():
        require(seed >= 0, "--seeds", seed, "must be at least 0")
    for flag in ("device", "jobs"):
        if getattr(args, flag) is not None and (args.submit or args.show or args.status or args.cancel):
            raise UserError(f"Argument --{flag}: goes with runs on this machine (no other action, or --plan); a submission has its --profile.")
    if args.plan and (args.show or args.status or args.cancel):
        raise UserError("Argument --plan: goes alone or with --submit; --help lists the flags.")
    for flag, given, owner in (("profile", args.profile is not None, "submit"), ("dirty", args.dirty, "submit"), ("json", args.json, "status")):
        if given and not getattr(args, owner):
            raise UserError(f"Argument --{flag}: goes with --{owner}; --help lists the flags.")
    if not table.trains and (args.submit or args.status or args.cancel):
        raise UserError(f"{table.title} trains nothing: it has no runs to submit, watch or cancel; run it without these flags.")
    try:
        require(args.home.is_dir() or not args.home.exists(), "--home", args.home, "must be a folder, and is a file")
        require(args.data is None or args.data.is_dir() or not args.data.exists(), "--data", args.data, "must be a folder")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be reached ({error.strerror}); mend that or give another folder.") from None


def jobs_of(args: argparse.Namespace) -> int:
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"`--jobs` (={args.jobs}) must be at least 1.")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", where(args)):
        raise UserError(f"`--device` (={args.device}) must be cpu, cuda or cuda:N.")
    return args.jobs or (len(os.sched_getaffinity(0)) if where(args) == "cpu" else 1)


def where(args: argparse.Namespace) -> str:
    """The device of the runs."""
    return args.device or "cpu"


def run_missing(
    table: Table, rows: list[Row], seeds: tuple[int, ...] | None, recipe: Recipe, home: Path, data: Path, args: argparse.Namespace,
    console: Console, errors: Console,
) -> int:  # fmt: skip
    """Make the data and run what is missing. Returns 0, 1 or 2 (see main)."""
    published = published_in(table, recipe, home)
    jobs = jobs_of(args)
    if where(args) != "cpu":
        device_of(where(args))
    runs: dict[str, tuple[Row, Run]] = {}
    for row, run in runs_of(rows, recipe, seeds):
        runs.setdefault(run.name, (row, run))  # rows of one network share a run
    work = [(row, run) for row, run in runs.values() if state_of(run, home, published) in ("missing", "resumable")]
    if all(row.unfit(recipe) for row in rows):  # what is shown says why
        return 0
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

    costs, expected = planned_costs(), seconds_of(work, table, timed_lines(table, recipe, home, list(runs.values())))
    weights = [expected.get(run.name) or costs.get(cost_key(run.variant, run.recipe), {}).get("flops", 1) / 1e9 for _, run in work]
    jobs_list = [(row.label, run, weight) for (row, run), weight in zip(work, weights, strict=True)]
    how = f", {jobs} at a time, one thread each" if where(args) == "cpu" else ""
    console.print(f"{len(work)} run{'s' if len(work) > 1 else ''} at {scale_of(rows, recipe)}{how}.")
    troubles, interrupted = run_all(jobs_list, home, data, where(args), jobs, console)
    if interrupted:
        raise UserError("Interrupted; every run has saved its state, the same command goes on from there.")
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
    from csn.complexity import render_costs

    render_costs(table, rows, recipe, home, console)
    return 0


def make_data(recipe: Recipe, data: Path, console: Console) -> None:
    """Write a built-in set where it is missing, with a progress bar; say how much of a public one is there. Raises UserError."""
    if not isinstance(recipe.data, Embedded):
        from csn.data.loader import load

        splits = {name: load(recipe, data, name) for name in (("train", "test") if recipe.clips_per_epoch else ("test",))}
        for name, found in splits.items():
            console.print("\n".join(found.told(f"{recipe.data.kind}, {name}")), markup=False, highlight=False, soft_wrap=True)
        if len(splits) == 2 and len({found.fingerprint for found in splits.values()}) == 1:
            console.print("warning: the test videos are the training videos; part them into train/ and test/.", highlight=False)
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


def show(table: Table, only: Sequence[str] | None, seeds: tuple[int, ...] | None, recipe: Recipe, home: Path, console: Console, errors: Console) -> int:
    """Collect, write CSV and figure, print the table and the verdicts of the rows and seeds asked for."""
    from csn.show import compared, render

    results, troubles = collect(table, recipe, home)
    count_costs(run for _, run in runs_of(table.rows, recipe, (0,)))
    asked = replace(results, seeds=seeds)
    found = [line for line in asked.lines if seeds is None or int(line["seed"]) in seeds]
    chosen = [line for line in found if only is None or line["row"] in only]
    # the figure is of the planned seeds, whatever is printed, as soon as some row has them; a claim needs the lines of all its rows
    render(results if results.complete else asked, replace(asked, lines=found), table.chosen(only), home, console)
    if results.superseded:
        aside = superseded(csv_path(table, recipe, home))
        console.print(f"They were moved to {aside}", soft_wrap=True, markup=False)
    committed = read_lines(csv_path(table, recipe, REPOSITORY)) if home != REPOSITORY else []
    for line in chosen:
        row = [one for one in committed if one["row"] == line["row"]]
        if line["run"] in {one["run"] for one in row} and (home / "runs" / line["run"] / "record.json").exists():
            console.print(compared(line, row), soft_wrap=True, markup=False)
    for sentence in troubles:
        errors.print(f"error: {sentence}", markup=False, soft_wrap=True)
    if troubles:
        return 2
    return 1 if any(line["error"] for line in chosen) else 0
