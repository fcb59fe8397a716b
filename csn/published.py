"""The published numbers of benchmarks beside ours: data, pre-training, protocol, cost and source of each."""

from __future__ import annotations

from collections.abc import Sequence

from csn.collect import Results
from csn.sheet import Sheet, cell
from csn.spec import Recipe, Run
from csn.table import Quoted, Row, cost_key, count_costs, planned_costs


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
