"""A table as a person reads it: measured against the paper, verdicts below, the figure beside the CSV."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from csn.files import write_atomic
from csn.metrics import Interval, interval
from csn.spec import Recipe
from csn.table import Judged, Line, Row, Table, csv_path, judge, value


def cell(found: Interval, digits: int = 1) -> str:
    """"83.1 ±1.2" (mean and half the 95 % interval), "83.1" for one seed, "" for none."""
    if not isfinite(found.mean):
        return ""
    return f"{found.mean:.{digits}f}" + (f" ±{found.half:.{digits}f}" if isfinite(found.half) else "")


def mean(found: Interval) -> str:
    """"83.1", "" for none."""
    return f"{found.mean:.1f}" if isfinite(found.mean) else ""


def measured(lines: Sequence[Line], label: str, metric: str) -> Interval:
    """Mean and interval of a row's metric over its seeds."""
    values = [value(line, metric) for line in lines if line["row"] == label]
    return interval([v for v in values if isfinite(v)])


def render(table: Table, rows: Sequence[Row], lines: Sequence[Line], recipe: Recipe, home: Path, console: Console) -> None:
    """Print rows and verdicts from lines; write the figure. Raises UserError when it cannot be written."""
    side = f"{recipe.frames}x{recipe.crop}x{recipe.crop}"
    grid = Grid(title=f"{table.title}\nscale {recipe.scale}, width {recipe.width}", title_justify="left", caption_justify="left",
                box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True,
                caption=f"GMACs: one clip of {side}. train, clip@1, video@1: top-1, %, {recipe.test_clips} clips x "
                        f"{recipe.test_crops} crop a video; mean over n seeds, of video@1 with ± half its 95 % interval. paper: Kinetics-400 video@1, "
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
            row.label, *costs, *(mean(measured(whole, row.label, name)) for name in ("train_top1", "clip_top1")), cell(video), str(video.n), paper
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


def render_costs(table: Table, rows: Sequence[Row], recipe: Recipe, home: Path, console: Console) -> None:
    """Print the layers of the first row's family and every row's cost beside the paper's; write all rows' costs as a CSV."""
    import pandas as pd
    import torch

    from csn.cost import count
    from csn.resnet3d import build

    side = f"{recipe.frames}x{recipe.crop}x{recipe.crop}"
    at_paper = (recipe.frames, recipe.crop, recipe.width, recipe.pool1, recipe.data.classes) == (8, 224, 64, True, 400)
    shapes: dict[int, list[str]] = {}
    lines = []
    for row in table.rows:
        if row.unfit(recipe):
            continue
        with torch.device("meta"):
            net = build(row.at(recipe), recipe.data.classes, recipe.frames)
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
    architecture(rows, recipe, shapes, console)
    grid = Grid(title=f"{table.title}: complexity at {side}, width {recipe.width}, {recipe.data.classes} classes", title_justify="left", caption_justify="left",
                caption="M par: weights only, as papers print them. G inter: pairs of input channels. paper: at 8x224x224, width 64, 400 classes.")  # fmt: skip
    for name in ("row", "GMACs", "paper", "M par", "paper ", "G inter", "paper  "):
        grid.add_column(name, justify="left" if name == "row" else "right", no_wrap=True)
    for row in rows:
        line = next((one for one in lines if one["row"] == row.label), None)
        if line is None:
            console.print(f"{row.label}: {row.unfit(recipe)}", markup=False)
            continue
        cells = []
        for value_, paper in zip((line["gmacs"], line["params_m"], line["interactions_g"]), row.paper_cost or ("", "", ""), strict=True):
            digits = len(paper.split(".")[1]) if at_paper and paper else 4
            cells += [f"{float(str(value_)):.{digits}f}" if at_paper else f"{float(str(value_)):.4g}", paper]
        grid.add_row(row.label, *cells)
    console.print(grid)
    path = csv_path(table, recipe, home)
    write_atomic(path, pd.DataFrame(lines).to_csv(index=False, lineterminator="\n").encode())
    console.print(f"results: {path}", soft_wrap=True, markup=False)


def architecture(rows: Sequence[Row], recipe: Recipe, shapes: dict[int, list[str]], console: Console) -> None:
    """The paper's Table 1: layers, blocks a stage, output sizes (T x H x W) as the networks themselves give them."""
    from csn.spec import STAGES

    depths = list(dict.fromkeys(row.variant.depth for row in rows if row.variant.depth in shapes))
    if not depths:
        return
    side, w = f"{recipe.frames}x{recipe.crop}x{recipe.crop}", recipe.width
    grid = Grid(title=f"Architectures for clips of {side}, width {w}", title_justify="left", caption_justify="left",
                caption="A stage: inner channels, channels of its blocks' outputs (depths 50 and up expand x4), blocks at each depth. conv1: 3x7x7, "
                        "stride 1x2x2. pool1: max 1x3x3, stride 1x2x2. conv3_x to conv5_x stride in the 3x3x3 of their first block.")  # fmt: skip
    for name in ("layer", "output", "inner", "outer", *(f"{d}" for d in depths)):
        grid.add_column(name, justify="left" if name == "layer" else "right", no_wrap=True)
    outputs = shapes[depths[0]]
    grid.add_row("conv1", outputs[0], "", str(w))
    if recipe.pool1:
        grid.add_row("pool1", outputs[1], "", str(w))
    for i in range(4):
        c = w * 2**i
        outer = sorted({c * (4 if depth in (50, 101, 152) else 1) for depth in depths})
        grid.add_row(f"conv{i + 2}_x", outputs[i + 1], str(c), " or ".join(map(str, outer)), *(str(STAGES[depth][i]) for depth in depths))
    grid.add_row("pool, fc", "1x1x1", "", str(recipe.data.classes))
    console.print(grid)


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
