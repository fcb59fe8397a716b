"""The published numbers of benchmarks beside ours: data, pre-training, protocol, cost and source of each."""

from __future__ import annotations

from collections.abc import Sequence

from csn.collect import Results
from csn.sheet import Sheet, cell
from csn.spec import Recipe, Run
from csn.table import Quoted, Row, cost_key, count_costs, planned_costs


def benchmarks(results: Results, rows: Sequence[Row]) -> list[Sheet]:
    """Published numbers beside ours with their sources, and what they were measured by: two sheets of 80 columns."""
    fit = [row for row in rows if row.unfit(results.recipe) is None]
    count_costs((Run(variant=row.at(results.recipe), recipe=row.under(results.recipe), seed=0) for row in fit), view=True)
    costs = planned_costs()
    numbers, protocols = [], []
    for row in rows:
        recipe = row.under(results.recipe)
        cost = costs.get(cost_key(row.at(recipe), recipe, view=True))
        macs = (f"{cost['flops'] / 1e9:.1f}", f"{cost['flops'] * recipe.test_clips * recipe.test_crops / 1e9:,.0f}") if cost else ("", "")
        views = f"{recipe.test_clips} x {recipe.test_crops} of {recipe.frames}x{recipe.test_crop}x{recipe.test_crop}"
        ours = cell(results.measured(row.label, measure(recipe)))
        numbers.append((row.label, recipe.data.kind, row.pretrained or "none", told(row.published), ours))
        protocols.append((row.label, row.protocol, views, *macs))
    title = f"{results.table.title}, scale {results.recipe.scale}"
    caption = "published, ours: in per cent, of the metric named below; empty: no number with a source, or not run."
    first = Sheet(title, ("row", "data", "pretrained", "published (source)", "ours"), numbers, caption, text=("data", "pretrained", "published (source)"))
    caption = "views: clips x crops of frames x pixels. GMACs: of one view, counted from the network itself; in all: of every view of a video."
    return [first, Sheet("Protocol and cost", ("row", "protocol", "views", "GMACs", "in all"), protocols, caption, text=("protocol", "views"))]


def measure(recipe: Recipe) -> str:
    """The column that a data set is scored by."""
    return "auc" if recipe.data.kind == "dfdc" else "video_top1"


def told(published: Sequence[Quoted]) -> str:
    """'77.8 (zoo, mmaction2), 79.2 (quoted)': every number once, with its sources."""
    sources: dict[str, list[str]] = {}
    for one in published:
        sources.setdefault(str(one), []).append(one.source)
    return ", ".join(f"{number} ({', '.join(found)})" for number, found in sources.items())
