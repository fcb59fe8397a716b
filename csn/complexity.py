"""What the networks of a table cost, counted from the networks themselves and shown beside the paper's digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from csn.collect import csv_path
from csn.files import write_atomic
from csn.recipes import PAPER
from csn.sheet import Sheet, put
from csn.spec import Recipe, Run, UserError, Variant
from csn.table import Row, Table, cost_key, count_costs, planned_costs


def complexity(title: str, rows: Sequence[Row], recipe: Recipe = PAPER) -> Sheet:
    """Every row's cost counted from the real network, beside the paper's at the paper's clips and width."""
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
               "M par: weights only, as papers print them. G inter: pairs of input channels."
               + " paper: computed from its architecture independently of this code; the digits it published agree." * at_paper)  # fmt: skip
    return Sheet(title, columns, out, caption)


def buildable(row: Row, recipe: Recipe) -> Variant | None:
    """The row's network at a scale, however deep, for counting; None when it cannot be built."""
    try:
        return row.at(recipe)
    except UserError:
        return None


def render_costs(table: Table, rows: Sequence[Row], recipe: Recipe, home: Path, console: Console) -> None:
    """Print the layers and every row's cost beside the paper's; write all rows' costs as a CSV."""
    import pandas as pd
    import torch

    from csn.cost import count
    from csn.resnet3d import build

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
    if any(buildable(row, recipe) for row in rows):
        put(architecture(rows, recipe), console)
    put(complexity(f"{table.title}: complexity", rows, recipe), console)
    path = csv_path(table, recipe, home)
    write_atomic(path, pd.DataFrame(lines).to_csv(index=False, lineterminator="\n").encode())
    console.print(f"results: {path}", soft_wrap=True, markup=False)


def architecture(rows: Sequence[Row], recipe: Recipe) -> Sheet:
    """The paper's Table 1: layers, blocks a stage, output sizes (T x H x W) as a network itself gives them; those of all depths are equal."""
    import torch

    from csn.cost import count
    from csn.resnet3d import build
    from csn.spec import STAGES

    found = [(row, variant) for row in rows if (variant := buildable(row, recipe)) is not None]
    with torch.device("meta"):
        net = build(found[0][1], recipe.data.classes, recipe.frames)
    layers = count(net, (3, recipe.frames, recipe.crop, recipe.crop)).layers
    # a stage's output is that of its last block's last convolution
    outputs = [next("x".join(map(str, layer.shape[1:])) for layer in reversed(layers) if layer.name.startswith(part))
               for part in ("stem", "stages.conv2_x", "stages.conv3_x", "stages.conv4_x", "stages.conv5_x")]  # fmt: skip
    depths = list(dict.fromkeys(row.variant.depth for row, _ in found))
    w, blank = recipe.width, ("",) * len(depths)
    out = [("conv1", outputs[0], "", str(w), *blank)]
    if recipe.pool1:
        out.append(("pool1", outputs[1], "", str(w), *blank))
    for i in range(4):
        c = w * 2**i
        outer = sorted({c * row.variant.expansion for row, _ in found})
        out.append((f"conv{i + 2}_x", outputs[i + 1], str(c), " or ".join(map(str, outer)), *(str(STAGES[depth][i]) for depth in depths)))
    out.append(("pool, fc", "1x1x1", "", str(recipe.data.classes), *blank))
    caption = ("A stage: inner channels, channels of its blocks' outputs (depths 50 and up expand x4), blocks at each depth. conv1: 3x7x7, "
               "stride 1x2x2. pool1: max 1x3x3, stride 1x2x2. conv3_x to conv5_x stride in the 3x3x3 of their first block.")  # fmt: skip
    title = f"Architectures for clips of {recipe.frames}x{recipe.crop}x{recipe.crop}, width {w}"
    return Sheet(title, ("layer", "output", "inner", "outer", *map(str, depths)), out, caption)
