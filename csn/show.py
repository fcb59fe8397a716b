"""A table as a person reads it: measured against the paper, verdicts below, the figure beside the CSV."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from csn.metrics import Interval, interval
from csn.spec import Recipe
from csn.table import Judged, Line, Row, Table, csv_path, judge, value


def cell(found: Interval, digits: int = 1) -> str:
    """"83.1 ±1.2" (mean and half the 95 % interval), "83.1" for one seed, "" for none."""
    if not isfinite(found.mean):
        return ""
    return f"{found.mean:.{digits}f}" + (f" ±{found.half:.{digits}f}" if isfinite(found.half) else "")


def measured(lines: Sequence[Line], label: str, metric: str) -> Interval:
    """Mean and interval of a row's metric over its seeds."""
    values = [value(line, metric) for line in lines if line["row"] == label]
    return interval([v for v in values if isfinite(v)])


def render(table: Table, rows: Sequence[Row], lines: Sequence[Line], recipe: Recipe, home: Path, console: Console) -> None:
    """Print rows and verdicts from lines; write the figure. Raises UserError when it cannot be written."""
    side = f"{recipe.frames}x{recipe.crop}x{recipe.crop}"
    grid = Grid(title=f"{table.title}\nscale {recipe.scale}, width {recipe.width}", title_justify="left", caption_justify="left",
                caption=f"GMACs: one clip of {side}. train, clip@1, video@1: top-1, %, {recipe.test_clips} clips x "
                        f"{recipe.test_crops} crop a video; mean ± half the 95 % interval over n seeds. paper: Kinetics-400 video@1, "
                        "† recalled, source not found.")  # fmt: skip
    for name in ("row", "GMACs", "M par", "M inter", "train", "clip@1", "video@1", "n", "paper"):
        grid.add_column(name, justify="left" if name == "row" else "right", no_wrap=True)
    for row in rows:
        own = [line for line in lines if line["row"] == row.label]
        whole = [line for line in own if not line["error"]]
        paper = str(row.paper_top1) if row.paper_top1 else ""
        reason = row.unfit(recipe) or next((line["error"] for line in own if line["error"]), None)
        if reason and not whole:
            grid.add_row(row.label, *[""] * 5, "see below", "0", paper)
            continue
        first = whole[0] if whole else {"gmacs": "", "params_m": "", "interactions_m": ""}
        costs = [f"{float(first[name]):.{digits}f}" if first[name] else "" for name, digits in (("gmacs", 4), ("params_m", 3), ("interactions_m", 2))]
        video = measured(whole, row.label, "video_top1")
        grid.add_row(
            row.label, *costs, cell(measured(whole, row.label, "train_top1")), cell(measured(whole, row.label, "clip_top1")), cell(video), str(video.n), paper
        )
    console.print(grid)
    for row in rows:
        reasons = [row.unfit(recipe)] + [f"seed {line['seed']} failed: {line['error']}" for line in lines if line["row"] == row.label and line["error"]]
        for reason in filter(None, reasons):
            console.print(f"{row.label}: {reason}", markup=False, highlight=False)
    if table.note:
        console.print(table.note, markup=False)
    verdicts([judge(claim, [line for line in lines if not line["error"]]) for claim in table.claims], console)
    path = csv_path(table, recipe, home)
    if lines and table.figure:
        from csn import plots

        figure = getattr(plots, table.figure)(lines, f"{table.title}, scale {recipe.scale}")
        written = plots.save(figure, path.with_suffix(""))
        console.print(f"figure: {written[0]} (and .svg)", soft_wrap=True, markup=False)
    if path.exists():
        console.print(f"results: {path}", soft_wrap=True, markup=False)


def verdicts(judged: Sequence[Judged], console: Console) -> None:
    """Print the claims with difference, interval, n and verdict."""
    if not judged:
        return
    grid = Grid(title="Claims of the paper", title_justify="left", caption_justify="left",
                caption="difference: mean over paired seeds, [95 % interval], of the pair named; fewer than 3 seeds is undecided.")  # fmt: skip
    grid.add_column("claim", ratio=1)
    grid.add_column("difference", justify="right")
    grid.add_column("n", justify="right")
    grid.add_column("verdict")
    colours = {"supported": "green", "refuted": "red", "undecided": "yellow"}
    for one in judged:
        d = one.difference
        bounds = f"\n[{d.low:+.1f}, {d.high:+.1f}]" if isfinite(d.low) else ""
        text = f"{d.mean:+.1f}{bounds}" if isfinite(d.mean) else ""
        pair = " over ".join(one.pair)
        grid.add_row(f"{one.claim.text} ({pair})", text.replace("[", r"\["), str(d.n), f"[{colours[one.verdict]}]{one.verdict}[/]")
    console.print(grid)
