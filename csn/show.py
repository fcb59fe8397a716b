"""A table as a person reads it: measured against the paper, verdicts below, the figures beside the CSV.

What is shown is a Sheet, made here from results and counts alone; it is printed by rich, and csn.report writes the same
sheets as Markdown and HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from csn.claims import RULE, Judged, Line
from csn.collect import Results, csv_path
from csn.files import write_atomic
from csn.metrics import Interval
from csn.recipes import PAPER
from csn.spec import Recipe, Run, UserError, Variant
from csn.table import Quoted, Row, Table, cost_key, count_costs, planned_costs, unfit_rows

HEADS = {"train_top1": "train", "clip_top1": "clip@1", "video_top1": "video@1", "gap": "gap", "auc": "AUC"}
COSTS = ("GMACs", "M par", "M inter")
COLOURS = {"supported": "green", "refuted": "red", "undecided": "yellow"}


@dataclass(frozen=True)
class Sheet:
    """A grid of text. text: the columns that hold words (left, wrapped); the others hold numbers (right, never wrapped)."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""
    text: tuple[str, ...] = ()


def put(sheet: Sheet, console: Console) -> None:
    """Print a sheet."""
    grid = Grid(title=Text(sheet.title), caption=Text(sheet.caption), title_justify="left", caption_justify="left",
                box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)  # fmt: skip
    for name in sheet.columns:
        words = name in sheet.text
        grid.add_column(name, justify="left" if words or name == sheet.columns[0] else "right", no_wrap=not words, overflow="fold")
    for row in sheet.rows:
        grid.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console.print(grid)


def cell(found: Interval, digits: int = 1) -> str:
    """"83.1 ±1.2" (mean and half the 95 % interval), "83.1 ±121" beyond 100, "83.1" for one seed, "" for none."""
    if not isfinite(found.mean):
        return ""
    return f"{found.mean:.{digits}f}" + (f" ±{found.half:.{digits if found.half < 99.95 else 0}f}" if isfinite(found.half) else "")


def mean(found: Interval) -> str:
    """"83.1", "" for none."""
    return f"{found.mean:.1f}" if isfinite(found.mean) else ""


def accuracies(results: Results, rows: Sequence[Row], narrow: bool = False) -> Sheet:
    """Every row's cost and metrics over its seeds, beside the paper's accuracy. narrow: the interval of the last metric only."""
    table, recipe = results.table, results.recipe
    own_recipes = {row.under(recipe) for row in rows}
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
        out.append((row.label, *costs, *metrics, str(found[-1].n or ""), *paper))
    views = f"{recipe.test_clips} clips x {recipe.test_crops} crop{'s' if recipe.test_crops > 1 else ''} a video"
    caption = (
        f"GMACs: one clip of {recipe.frames}x{recipe.crop}x{recipe.crop}. M par, M inter: million parameters and channel interactions. "
        f"train, clip@1, video@1: top-1 in per cent of training videos, test clips, test videos, {views}; mean over n seeds, ± half its 95 % interval; "
        "empty: not run."
    )  # fmt: skip
    caption += " gap: train minus video@1, points." if "gap" in table.metrics else ""
    caption += " paper: Kinetics-400 video@1, † recalled, source not found." if papers else ""
    columns = ("row", *COSTS, *(HEADS[metric] for metric in table.metrics), "n", *(("paper",) if papers else ()))
    return Sheet(f"{table.title}, scale {recipe.scale}, width {recipe.width}", columns, out, caption)


def reasons(results: Results, rows: Sequence[Row]) -> list[str]:
    """A sentence for every row that the scale cannot hold, for every run that failed, and for lines of other runs."""
    failed = [f"{line['row']}: seed {line['seed']} failed: {line['error']}"
              for row in rows for line in results.lines if line["row"] == row.label and line["error"]]  # fmt: skip
    gone = f"Lines of runs that belong to this table no more, since its rows or recipe changed, are left out: {results.superseded}."
    return unfit_rows(rows, results.recipe) + failed + ([gone] if results.superseded else [])


def complexity(title: str, rows: Sequence[Row], recipe: Recipe = PAPER) -> Sheet:
    """Every row's cost counted from the real network, beside the paper's printed digits at the paper's clips and width."""
    at_paper = (recipe.frames, recipe.crop, recipe.width, recipe.pool1, recipe.data.classes) == (8, 224, 64, True, 400)
    variants = {row.label: found for row in rows if (found := buildable(row, recipe)) is not None}
    count_costs(Run(variant=variant, recipe=recipe, seed=0) for variant in variants.values())
    costs = planned_costs()
    out = []
    for row in rows:
        cost = costs.get(cost_key(variants[row.label], recipe)) if row.label in variants else None
        cells = []
        for name, unit, paper in zip(("flops", "params", "interactions"), (1e9, 1e6, 1e9), row.paper_cost or ("", "", ""), strict=True):
            digits = len(paper.split(".")[1]) if at_paper and paper else 4
            number = "" if cost is None else f"{cost[name] / unit:.{digits}f}" if at_paper else f"{cost[name] / unit:.4g}"
            cells += [number, *([paper] if at_paper else [])]
        out.append((row.label, *cells))
    side = f"{recipe.frames}x{recipe.crop}x{recipe.crop}"
    columns = ("row", "GMACs", "paper", "M par", "paper ", "G inter", "paper  ") if at_paper else ("row", "GMACs", "M par", "G inter")
    caption = (f"One clip of {side}, width {recipe.width}, {recipe.data.classes} classes, counted from the networks themselves. "
               "M par: weights only, as papers print them. G inter: pairs of input channels.")  # fmt: skip
    return Sheet(title, columns, out, caption)


def buildable(row: Row, recipe: Recipe) -> Variant | None:
    """The row's network at a scale, however deep, for counting; None when it cannot be built."""
    try:
        return row.at(recipe)
    except UserError:
        return None


def benchmarks(results: Results, rows: Sequence[Row], narrow: bool = False) -> Sheet:
    """Published numbers beside ours: data, pre-training, test protocol and its cost. narrow: without sources and cost of a view."""
    fit = [row for row in rows if row.unfit(results.recipe) is None]
    count_costs((Run(variant=row.at(results.recipe), recipe=row.under(results.recipe), seed=0) for row in fit), view=True)
    costs = planned_costs()
    columns = ("row", "data", "pretrained", "views", "GMACs", "in all", "published", "ours")
    out = []
    for row in rows:
        recipe = row.under(results.recipe)
        cost = costs.get(cost_key(row.at(recipe), recipe, view=True))
        macs = (f"{cost['flops'] / 1e9:.1f}", f"{cost['flops'] * recipe.test_clips * recipe.test_crops / 1e9:,.0f}") if cost else ("", "")
        protocol = f"{recipe.test_clips} x {recipe.test_crops} of {recipe.frames}x{recipe.test_crop}x{recipe.test_crop}"
        ours, numbers = cell(results.measured(row.label, measure(recipe))), ", ".join(dict.fromkeys(map(str, row.published)))
        cells = (row.label, recipe.data.kind, row.pretrained or "none", protocol, *macs, numbers if narrow else told(row.published), ours)
        out.append(cells[:4] + cells[5:] if narrow else cells)
    caption = ("views: clips x crops of frames x pixels. GMACs: of one view, counted from the network itself; in all: of every view of a "
               "video. published, ours: video top-1 in per cent (AUC x 100 for dfdc); empty: no number with a source, or not run.")  # fmt: skip
    shown = columns[:4] + columns[5:] if narrow else columns
    return Sheet(f"{results.table.title}, scale {results.recipe.scale}", shown, out, caption, text=("data", "pretrained", "views", "published"))


def measure(recipe: Recipe) -> str:
    """The column that a data set is scored by."""
    return "auc" if recipe.data.kind == "dfdc" else "video_top1"


def told(published: Sequence[Quoted]) -> str:
    """'77.8 (zoo, mmaction2), 79.2 (quoted)': every number once, with its sources."""
    sources: dict[str, list[str]] = {}
    for one in published:
        sources.setdefault(str(one), []).append(one.source)
    return ", ".join(f"{number} ({', '.join(found)})" for number, found in sources.items())


def judged_cells(one: Judged) -> tuple[str, str, str, str]:
    """Difference with interval and unit, deciding part, n, verdict."""
    unit = "" if one.part.unit == "points" else f"({one.part.unit})"
    difference = " ".join(filter(None, one.told()))
    return (f"{difference} {unit}".strip() if difference else "", one.part.name, str(one.difference.n), one.verdict)


def verdicts(judged: Sequence[Judged]) -> Sheet:
    """The claims with difference, interval, n and verdict."""
    columns = ("claim", "difference", "deciding part", "n", "verdict")
    return Sheet("Claims of the paper", columns, [(one.claim.text, *judged_cells(one)) for one in judged], RULE, text=(*columns[:3], columns[-1]))


def sheets(results: Results, rows: Sequence[Row], narrow: bool = False) -> list[Sheet]:
    """Everything there is to read of a table at a scale: its rows, their cost at the paper's size, its claims."""
    if any(row.published for row in rows):
        return [benchmarks(results, rows, narrow)]
    found = [accuracies(results, rows, narrow)] if results.table.trains else []
    if any(row.paper_cost for row in rows):
        found.append(complexity("Cost at the paper's size" if found else results.table.title, rows))
    return [*found, *([verdicts(results.judged())] if results.table.claims else [])]


def render(results: Results, rows: Sequence[Row], home: Path, console: Console, lines: Sequence[Line] | None = None) -> None:
    """Print rows and verdicts of lines (all, unless given); write the figures, always of all. Raises UserError when one cannot be written."""
    table, recipe = results.table, results.recipe
    printed = results if lines is None else replace(results, lines=lines)
    first, *others = sheets(printed, rows, narrow=True)
    put(first, console)
    for sentence in [*reasons(printed, rows), *filter(None, [table.note])]:
        console.print(sentence, markup=False, highlight=False)
    for sheet in others:
        put(sheet, console)
    path = csv_path(table, recipe, home)
    if results.lines or any(row.published for row in table.rows):
        from csn import plots

        for i, name in enumerate(table.figures):
            target = path.with_suffix("") if i == 0 else path.with_name(f"{table.name}_{name}")
            written = plots.save(getattr(plots, name)(results), target)
            console.print(f"figure: {written[0]} (and .svg)", soft_wrap=True, markup=False)
    if path.exists():
        console.print(f"results: {path}", soft_wrap=True, markup=False)


def render_costs(table: Table, rows: Sequence[Row], recipe: Recipe, home: Path, console: Console) -> None:
    """Print the layers and every row's cost beside the paper's; write all rows' costs as a CSV."""
    import pandas as pd
    import torch

    from csn.cost import count
    from csn.resnet3d import build

    shapes: dict[int, list[str]] = {}
    lines = []
    for row in table.rows:
        variant = buildable(row, recipe)
        if variant is None:
            continue
        with torch.device("meta"):
            net = build(variant, recipe.data.classes, recipe.frames)
        cost = count(net, (3, recipe.frames, recipe.crop, recipe.crop))
        lines.append({
            "table": table.name, "row": row.label, "scale": recipe.scale, "block": row.variant.block, "depth": row.variant.depth,
            "width": recipe.width, "frames": recipe.frames, "crop": recipe.crop, "classes": recipe.data.classes,
            "gmacs": f"{cost.flops / 1e9:.6f}", "params_m": f"{cost.params / 1e6:.6f}", "params_all_m": f"{cost.params_all / 1e6:.6f}",
            "interactions_g": f"{cost.interactions / 1e9:.6f}",
        })  # fmt: skip
        if row in rows:
            # each stage's output is that of its last block's last convolution
            shapes[row.variant.depth] = [next("x".join(map(str, layer.shape[1:])) for layer in reversed(cost.layers) if layer.name.startswith(part))
                                         for part in ("stem", "stages.conv2_x", "stages.conv3_x", "stages.conv4_x", "stages.conv5_x")]  # fmt: skip
    if shapes:
        put(architecture(rows, recipe, shapes), console)
    put(complexity(f"{table.title}: complexity", rows, recipe), console)
    path = csv_path(table, recipe, home)
    write_atomic(path, pd.DataFrame(lines).to_csv(index=False, lineterminator="\n").encode())
    console.print(f"results: {path}", soft_wrap=True, markup=False)


def architecture(rows: Sequence[Row], recipe: Recipe, shapes: dict[int, list[str]]) -> Sheet:
    """The paper's Table 1: layers, blocks a stage, output sizes (T x H x W) as the networks themselves give them."""
    from csn.spec import STAGES

    depths = list(dict.fromkeys(row.variant.depth for row in rows if row.variant.depth in shapes))
    w, outputs, blank = recipe.width, shapes[depths[0]], ("",) * len(depths)
    out = [("conv1", outputs[0], "", str(w), *blank)]
    if recipe.pool1:
        out.append(("pool1", outputs[1], "", str(w), *blank))
    for i in range(4):
        c = w * 2**i
        outer = sorted({c * row.variant.expansion for row in rows if row.variant.depth in depths})
        out.append((f"conv{i + 2}_x", outputs[i + 1], str(c), " or ".join(map(str, outer)), *(str(STAGES[depth][i]) for depth in depths)))
    out.append(("pool, fc", "1x1x1", "", str(recipe.data.classes), *blank))
    caption = ("A stage: inner channels, channels of its blocks' outputs (depths 50 and up expand x4), blocks at each depth. conv1: 3x7x7, "
               "stride 1x2x2. pool1: max 1x3x3, stride 1x2x2. conv3_x to conv5_x stride in the 3x3x3 of their first block.")  # fmt: skip
    title = f"Architectures for clips of {recipe.frames}x{recipe.crop}x{recipe.crop}, width {w}"
    return Sheet(title, ("layer", "output", "inner", "outer", *map(str, depths)), out, caption)
