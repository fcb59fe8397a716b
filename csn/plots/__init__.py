"""Figures from results alone: a function a figure, Results -> Figure; `save` writes it, `picture` gives its bytes.

What they are made of is in csn.plots.axes and csn.plots.sizes: functions that draw into axes given to them.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from csn.collect import Results
from csn.files import replacing
from csn.plots.axes import (
    FAMILIES,
    MARKERS,
    PALETTE,
    against_paper,
    channel_separated,
    empty,
    gap_sizes,
    gaps,
    group_curves,
    grouped,
    learning,
    marker_of,
    published_numbers,
    summary,
    tradeoff,
)
from csn.plots.planes import filters
from csn.plots.sizes import STYLES, Sized, accuracy_by_size, leads_by_size, sized, training_videos

__all__ = [
    "accuracy_by_size", "against_paper", "curves", "data_sizes", "families", "filters", "gap_sizes", "gaps", "group_curves",
    "group_sizes", "leads_by_size", "learned_filters", "learning", "measured_against_paper", "picture", "published", "published_numbers",
    "regularization", "save", "schedules", "summary", "tradeoff", "tradeoffs",
]  # fmt: skip


LEAST = 10  # points that an axis of training accuracy spans, near 100 %, so that one video more or less is no cliff


def titled(figure: Figure, results: Results, what: str) -> Figure:
    """figure under its title: table, scale, what is drawn, seeds a row."""
    for ax in figure.axes:
        if ax.get_ylabel().endswith("%"):
            low, high = ax.get_ylim()
            if ax.get_ylabel().startswith("training"):
                low = min(low, min(high, 100) - LEAST)
            pad = 0.02 * (100 - low)  # half a marker
            top = min(max(high, ax.dataLim.y1 + pad), 100 + pad)
            if ax.dataLim.y1 > top and "cut" not in what:
                what += ", cut at 100 %"  # no accuracy lies outside of 0 to 100, whatever an interval says
            ax.set_ylim(max(0.0, low), top)
    if max(Counter(line["row"] for line in results.complete).values(), default=0) == 1:
        what = what.replace("Mean and 95 % interval", "Single runs, without an interval")
    figure.suptitle(f"{results.table.title}, scale {results.recipe.scale}. {what}\n{seeds_told(results)}", fontsize=11)
    return figure


def seeds_told(results: Results) -> str:
    """How many seeds a row of the results has, and which rows have another number than most."""
    seeds = Counter(line["row"] for line in results.complete)
    if not seeds:
        return "no seeds"
    (most, _), *others = Counter(seeds.values()).most_common()
    named = [f"{n}: {', '.join(row for row, own in seeds.items() if own == n)}" for n, _ in others]
    return "; ".join([f"{most} seed{'s' if most != 1 else ''} a row", *named])


def legend(figure: Figure, data: pd.DataFrame) -> None:
    """The families' colours and the kinds' markers, to the right of all axes."""
    if data.empty:
        return
    families = [Line2D([], [], color=PALETTE[FAMILIES[name]], lw=4, label=name) for name in dict.fromkeys(data.family)]
    names = [name for name in MARKERS if name in set(data.kind)] + sorted(set(data.kind) - set(MARKERS))
    kinds = [Line2D([], [], color="0.35", ls="", marker=marker_of(name), ms=7, label=f"depth {name}" if name.isdigit() else name) for name in names]
    figure.legend(handles=families + kinds, loc="outside right center", frameon=False, fontsize=9)


def apart(figure: Figure) -> None:
    """Room between panels, so that the tick labels of two neighbours do not read as one."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.15)  # type: ignore[call-arg]


def tradeoffs(results: Results) -> Figure:
    """The group study: accuracy against FLOPs and interactions, 8-block networks above, 16-block networks below.

    Most 16-block bottlenecks have nearly the same number of interactions: those have a panel of their own, on a linear axis.
    """
    data = summary(results.complete, "video_top1")
    data = data if data.empty else grouped(data)
    eight, sixteen = (data if data.empty else data[data.depth.isin(depths)] for depths in ((18, 26), (34, 50)))
    most = sixteen if sixteen.empty else sixteen.interactions_m > 0.9 * sixteen.interactions_m.max()
    few, many = (sixteen, sixteen) if sixteen.empty else (sixteen[~most], sixteen[most])
    above = [(eight, "gmacs", "8 blocks", slice(0, 1)), (eight, "interactions_m", "8 blocks", slice(1, 3))]
    below = [(sixteen, "gmacs", "16 blocks", slice(0, 1)), (few, "interactions_m", "16 blocks", slice(1, 2)),
             (many, "interactions_m", "16 blocks, most interactions", slice(2, 3))]  # fmt: skip
    rows = [row for row in (above, below) if data.empty or not row[0][0].empty]
    figure = plt.figure(figsize=(11.5, 4 * len(rows)), layout="constrained")
    apart(figure)
    grid = figure.add_gridspec(len(rows), 3, width_ratios=(3, 2, 1.7))
    first = None
    for k, panels in enumerate(rows):
        for part, cost, name, columns in panels:
            ax = figure.add_subplot(grid[k, columns], sharey=first)
            first = first or ax
            tradeoff(part, ax, cost, chained=("full", "G2", "G4", "G8", "D"), log="most" not in name).set_title(name, fontsize=10)
            if cost != "gmacs":
                ax.set_ylabel("")
    legend(figure, data)
    return titled(figure, results, "Mean and 95 % interval, close points side by side, dots at their own cost")


def group_sizes(results: Results) -> Figure:
    """The group study: accuracy from one group to depthwise, a curve a family and number of blocks."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    data = summary(results.complete, "video_top1")
    for ax, depths, name in zip(axes, ((18, 26), (34, 50)), ("8 blocks", "16 blocks"), strict=True):
        group_curves(data if data.empty else grouped(data[data.depth.isin(depths)]), ax)
        ax.set_title(name, fontsize=10)
        ax.label_outer()
    return titled(figure, results, "Mean and 95 % interval")


def families(results: Results) -> Figure:
    """ResNet3D, ir-CSN and ip-CSN at their depths: accuracy against interactions and against FLOPs."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.4), sharey=True, layout="constrained")
    apart(figure)
    data = summary(results.complete, "video_top1")
    data = data if data.empty else channel_separated(data)
    for ax, cost in zip(axes, ("interactions_m", "gmacs"), strict=True):
        tradeoff(data, ax, cost).label_outer()
    legend(figure, data)
    return titled(figure, results, "Mean and 95 % interval, close points side by side, dots at their own cost")


def regularization(results: Results) -> Figure:
    """Training and test accuracy of every network, and the gap between them."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True, layout="constrained")
    gaps(results.complete, axes[0])
    gap_sizes(results.complete, axes[1])
    return titled(figure, results, "Mean and 95 % interval")


def data_sizes(results: Results) -> Figure:
    """Accuracy against the number of training videos, and by how much the CSNs better ResNet3D: in test accuracy, by a smaller gap."""
    return by_sizes(results, sized(results, "training videos", training_videos))


def schedules(results: Results) -> Figure:
    """The same against epochs."""
    return by_sizes(results, sized(results, "epochs", lambda recipe: recipe.epochs))


def by_sizes(results: Results, data: Sized) -> Figure:
    """Accuracy against a size of the recipe above, the leads of the CSNs below."""
    figure, axes = plt.subplots(2, 2, figsize=(10.5, 7.6), layout="constrained")
    apart(figure)
    for ax, metric in zip(axes[0], ("train_top1", "video_top1"), strict=True):
        accuracy_by_size(data, ax, metric)
    for ax, metric in zip(axes[1], ("video_top1", "gap"), strict=True):
        leads_by_size(data, ax, metric).set_title("above 0: as the paper finds", fontsize=10)
    if data.lines:
        handles = [Line2D([], [], color=PALETTE[FAMILIES[name]], marker=style[0], ls=style[1:], label=name) for name, style in STYLES.items()]
        figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    return titled(figure, results, "Mean and 95 % interval, paired seeds")


def curves(results: Results) -> Figure:
    """Learning curves: training accuracy of the networks of each depth while they learn."""
    depth_of = {row.label: row.variant.depth for row in results.table.rows if not row.unfit(results.recipe)}
    depths = sorted(set(depth_of.values()))
    figure, panels = plt.subplots(1, max(len(depths), 1), figsize=(0.5 + 4.5 * max(len(depths), 1), 4), sharey=True, squeeze=False, layout="constrained")
    whole = {(line["row"], line["seed"]) for line in results.complete}
    shown = [line for line in results.curves if (line["row"], line["seed"]) in whole]
    for ax, depth in zip(panels[0], depths, strict=False):
        learning([line for line in shown if depth_of[line["row"]] == depth], ax)
        ax.set_title(f"depth {depth}", fontsize=10)
        ax.label_outer()
    return titled(figure, results, "Mean, band from lowest to highest")


def measured_against_paper(results: Results) -> Figure:
    """Measured accuracy against the paper's number for the same network."""
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    against_paper(results, ax)
    return titled(figure, results, "Mean and 95 % interval")


def published(results: Results) -> Figure:
    """The benchmarks: published numbers beside ours."""
    figure, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
    published_numbers(results, ax)
    figure.suptitle(f"{results.table.title}: published numbers by source, and ours where they were run", fontsize=11)
    return figure


def learned_filters(network: str, layers: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Filters of some depthwise layers of a network, a row a layer; of no layers, where they come from."""
    if not layers:
        figure, ax = plt.subplots(figsize=(8, 1), layout="constrained")
        ax.set_axis_off()
        empty(ax, "no filters yet: python -m csn.filters HOME/runs/RUN writes them")
        return figure
    most = max(map(len, layers.values()))
    figure = plt.figure(figsize=(11, 0.5 + 0.9 * len(layers)), layout="constrained")
    figure.suptitle(f"{network}: a frame is a filter, its three planes the frames t-1, t, t+1; blue negative, red positive", fontsize=10)
    for row, (name, weights) in zip(figure.subfigures(len(layers), 1, squeeze=False).flat, layers.items(), strict=True):
        row.suptitle(name, fontsize=8)
        filters(weights, row.subplots(1, most, squeeze=False).flat)
    return figure


def picture(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a file's content, png or svg, and the figure closed."""
    content = io.BytesIO()
    write(figure, content, kind, "figure")
    plt.close(figure)
    return content.getvalue()


def write(figure: Figure, to: object, kind: str, salt: str) -> None:
    """savefig so that equal figures give equal files."""
    options: Mapping[str, object] = {"dpi": 130} if kind == "png" else {"metadata": {"Date": None}}
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(to, format=kind, **options)  # type: ignore[arg-type]


def save(figure: Figure, path: Path) -> list[Path]:
    """Write path.png and path.svg; returns them. Raises UserError when the disk refuses."""
    written = []
    for kind in ("png", "svg"):
        target = path.with_suffix(f".{kind}")
        with replacing(target, "free space or give another folder with --home") as part:
            write(figure, part, kind, path.name)
        written.append(target)
    plt.close(figure)
    return written
