"""Drawing into axes: every function takes data and axes, draws, and returns the axes.

Colours are seaborn's colour-blind-safe palette; markers and line styles repeat what colours say. Points are means over
seeds, bars their 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from math import isfinite, nan

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from csn.claims import Line, value
from csn.collect import Results
from csn.metrics import interval
from csn.published import measure

ASIDE = 6 / 72  # inches between markers of one place
PALETTE = sns.color_palette("colorblind")
TITLES = {
    "gmacs": "GMACs per clip", "interactions_m": "channel interactions, millions", "params_m": "parameters, millions",
    "video_top1": "test video@1, %", "train_top1": "training video@1, %", "clip_top1": "test clip@1, %", "gap": "training minus test video@1, points",
}  # fmt: skip
FAMILIES = {"simple": 0, "bottleneck": 1, "ResNet3D": 0, "ir-CSN": 1, "ip-CSN": 2, "others": 7}  # the colour of each
SOURCES = {"zoo": "D", "log": "^", "mmaction2": "s", "quoted": "v", "list": "X"}  # of published numbers, the marker of each
NETWORKS = {"bottleneck": "ResNet3D", "bottleneck-D": "ir-CSN", "ip": "ip-CSN"}  # Tables 2 and 4 have no others
MARKERS = {"full": "o", "G2": "s", "G4": "p", "G8": "^", "D": "D", "DG4": "X", "ip": "P", "26": "o", "50": "s", "101": "^", "152": "D"}


def marker_of(kind: str) -> str:
    """The marker of a kind: that of MARKERS, or a hexagon for one that only a table of someone's own has."""
    return MARKERS.get(kind, "h")


def summary(lines: Sequence[Line], metric: str) -> pd.DataFrame:
    """One row a network: its costs, and mean, half (of the 95 % interval over seeds; 0 for one seed), n of metric."""
    rows = []
    for label in dict.fromkeys(line["row"] for line in lines):
        own = [line for line in lines if line["row"] == label and isfinite(value(line, metric))]
        if not own:
            continue
        found, first = interval([value(line, metric) for line in own]), own[0]
        costs = {name: float(first[name] or nan) for name in ("gmacs", "params_m", "interactions_m")}
        half = found.half if isfinite(found.half) else 0.0
        facts = {"block": first["block"], "depth": int(first["depth"]), "groups": int(first["groups"] or 1)}
        rows.append({"row": label, **facts, **costs, "mean": found.mean, "half": half, "n": found.n})
    return pd.DataFrame(rows)


def empty(ax: Axes, why: str = "no results yet") -> Axes:
    """Say that there is nothing to draw."""
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes)
    ax.tick_params(length=0, labelbottom=False, labelleft=False)  # not set_yticks: a panel beside may share them
    return ax


def grouped(data: pd.DataFrame) -> pd.DataFrame:
    """With the columns family (simple or bottleneck) and kind (full, G and its groups, D, DG, ip) of the group study."""
    family = ["simple" if block.startswith("simple") else "bottleneck" for block in data.block]
    kind = [f"{block.partition('-')[2]}{groups if groups > 1 else ''}" or "full" for block, groups in zip(data.block, data.groups, strict=True)]
    return data.assign(family=family, kind=["ip" if block == "ip" else name for block, name in zip(data.block, kind, strict=True)])


def channel_separated(data: pd.DataFrame) -> pd.DataFrame:
    """With the columns family (ResNet3D, ir-CSN, ip-CSN, others) and kind (the depth)."""
    return data.assign(family=[NETWORKS.get(block, "others") for block in data.block], kind=data.depth.astype(str))


def tradeoff(data: pd.DataFrame, ax: Axes, cost: str, chained: Sequence[str] = tuple(MARKERS), log: bool = True) -> Axes:
    """Test video@1 against a cost (log or linear axis). data: its summary with family and kind; the kinds in chained are joined.

    Markers of nearly one cost stand beside each other, each joined to a dot at its own cost; the lines run where the costs are.
    """
    data = data if data.empty else data[data[cost] > 0]
    if data.empty:
        return empty(ax)
    figure = ax.get_figure(root=True)
    assert figure is not None
    places = data[cost].to_numpy(float)
    places = np.log10(places) if log else places
    low, high = float(places.min()), float(places.max())
    room = 0.08 * (max(high - low, 0.5) if log else max(high - low, 0.05 * high))
    data = data.assign(x=data[cost], aside=beside(places, room / 4))
    for family, part in data.groupby("family", sort=False):
        colour = PALETTE[FAMILIES[str(family)]]
        chain = part[part.kind.isin(chained)].sort_values("x")
        ax.plot(chain.x, chain["mean"], "-", color=colour, alpha=0.45, lw=1.2, zorder=1)
        for _, point in part.iterrows():
            marker = marker_of(point["kind"])
            place = ax.transData + ScaledTranslation(ASIDE * point["aside"], 0, figure.dpi_scale_trans)
            if point["aside"]:
                ax.annotate("", (point["x"], point["mean"]), (72 * ASIDE * point["aside"], 0), textcoords="offset points", zorder=2,
                            arrowprops={"arrowstyle": "-", "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
                ax.plot(point["x"], point["mean"], ".", color=colour, ms=5, zorder=2)
            ax.errorbar(point["x"], point["mean"], yerr=point["half"] or None, fmt="none", ecolor=colour, capsize=2.5, lw=1, transform=place)
            ax.plot(point["x"], point["mean"], marker, color=colour, ms=9 if marker in "PX" else 7, mec="white", mew=0.7, zorder=3, transform=place)
            ax.update_datalim([(point["x"], point["mean"] + side * point["half"]) for side in (-1, 1)])  # what is moved aside does not count by itself
    if log:
        ax.set_xscale("log")
        few = MaxNLocator(4) if high - low < 0.15 else None  # of less than half an octave
        ax.xaxis.set_major_locator(few or LogLocator(subs=(1,) if high - low > 1.7 else (1, 2, 5) if high - low > 0.7 else (1, 1.5, 2, 3, 5, 7)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(10 ** (low - room), 10 ** (high + room))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlim(low - 2 * room, high + 2 * room)
    ax.autoscale_view(scalex=False)
    ax.set_xlabel(TITLES[cost])
    ax.set_ylabel(TITLES["video_top1"])
    ax.grid(alpha=0.3)
    return ax


def beside(places: NDArray[np.floating], apart: float) -> NDArray[np.float64]:
    """Steps, 0 for most, by which points of one place are drawn beside each other: those within apart of a neighbour, evenly about 0."""
    order, steps = np.argsort(places, kind="stable"), np.zeros(len(places))
    for cluster in np.split(order, np.flatnonzero(np.diff(places[order]) > apart) + 1):
        steps[cluster] = np.arange(len(cluster)) - (len(cluster) - 1) / 2
    return steps


def group_curves(data: pd.DataFrame, ax: Axes) -> Axes:
    """Test video@1 against the groups of the 3x3x3 convolutions, depthwise last. data: its summary with family and kind."""
    if data.empty:
        return empty(ax)
    sizes = sorted({int(groups) for groups, kind in zip(data.groups, data.kind, strict=True) if kind == "full" or (kind[0] == "G" and kind[1:].isdigit())})
    places = {("full" if size == 1 else f"G{size}"): i for i, size in enumerate(sizes)} | {"D": len(sizes)}
    aside = 0.08 * (np.arange(data.family.nunique()) - (data.family.nunique() - 1) / 2)
    for step, (family, part) in enumerate(data.groupby("family", sort=False)):
        part = part[part.kind.isin(places)].sort_values("kind", key=lambda kinds: kinds.map(places))
        x = [places[kind] + aside[step] for kind in part.kind]
        style, colour = "os"[step] + ("-", "--")[step], PALETTE[FAMILIES[str(family)]]
        ax.errorbar(x, part["mean"], yerr=part["half"], fmt=style, color=colour, capsize=3, lw=1.4, label=str(family))
    ax.set_xticks(range(len(places)), [*map(str, sizes), "depthwise"])
    ax.set_xlim(-0.4, len(places) - 0.6)
    ax.set_xlabel("groups of the 3x3x3 convolutions")
    ax.set_ylabel(TITLES["video_top1"])
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def gaps(lines: Sequence[Line], ax: Axes) -> Axes:
    """Training and test video@1 of every row, joined: the longer the bar, the larger the gap."""
    train, test = summary(lines, "train_top1"), summary(lines, "video_top1")
    if train.empty or test.empty:
        return empty(ax)
    both = channel_separated(train.merge(test, on="row", suffixes=("", "_test")))
    for y, (_, row) in enumerate(both.iterrows()):
        colour = PALETTE[FAMILIES[row["family"]]]
        ax.plot([row["mean_test"], row["mean"]], [y, y], color=colour, lw=5, alpha=0.3, solid_capstyle="butt")
        ax.errorbar(row["mean"], y - 0.09, xerr=row["half"] or None, fmt="o", mfc="white", color=colour, capsize=3, ms=7)
        ax.errorbar(row["mean_test"], y + 0.09, xerr=row["half_test"] or None, fmt="o", color=colour, capsize=3, ms=7)
    ax.set_yticks(range(len(both)), list(both.row))
    ax.set_ylim(len(both) - 0.5, -0.5)
    ax.set_xlabel("video@1, %")
    ax.grid(alpha=0.3, axis="x")
    handles = [Line2D([], [], color="0.35", ls="", marker="o", ms=7, mfc=fill, label=name) for name, fill in (("test", "0.35"), ("training", "white"))]
    ax.legend(handles=handles, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return ax


def gap_sizes(lines: Sequence[Line], ax: Axes) -> Axes:
    """The gap of every row, training minus test video@1, with its interval over seeds."""
    data = summary(lines, "gap")
    if data.empty:
        return empty(ax)
    for y, (_, row) in enumerate(channel_separated(data).iterrows()):
        ax.errorbar(row["mean"], y, xerr=row["half"] or None, fmt="o", color=PALETTE[FAMILIES[row["family"]]], capsize=3, ms=7)
    ax.set_yticks(range(len(data)), list(data.row))
    ax.set_ylim(len(data) - 0.5, -0.5)
    ax.axvline(0, color="0.5", lw=1)
    ax.set_xlabel(TITLES["gap"])
    ax.grid(alpha=0.3, axis="x")
    return ax


def learning(curves: Sequence[Line], ax: Axes) -> Axes:
    """clip@1 of the augmented training clips against epochs: mean over seeds, band from the lowest to the highest seed."""
    if not curves:
        return empty(ax)
    data = pd.DataFrame([{"row": line["row"], "epoch": int(line["epoch"]), "clip_top1": float(line["clip_top1"] or nan)} for line in curves])
    styles = cycle(("-", "--", ":"))
    for label, part in data.groupby("row", sort=False):
        family = str(label).rpartition("-")[0]
        found = part.groupby("epoch")["clip_top1"].agg(["mean", "min", "max"])
        colour = PALETTE[FAMILIES[family]] if family in FAMILIES else "0.4"
        ax.plot(found.index, found["mean"], next(styles), color=colour, marker=".", label=str(label))
        ax.fill_between(found.index, found["min"], found["max"], color=colour, alpha=0.15, lw=0)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("clip@1 of augmented training clips, %")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def against_paper(results: Results, ax: Axes) -> Axes:
    """Measured accuracy against the number published for the same row; hollow where that is recalled without a source."""
    data = summary(results.complete, "video_top1")
    papers = {row.label: row.paper_top1 for row in results.table.rows if row.paper_top1 is not None}
    shown = data[data.row.isin(papers)] if not data.empty else data
    if shown.empty:
        return empty(ax)
    shown = channel_separated(shown)
    for _, row in shown.iterrows():
        paper, colour = papers[row["row"]], PALETTE[FAMILIES[row["family"]]]
        ax.errorbar(paper.value, row["mean"], yerr=row["half"] or None, fmt=marker_of(row["kind"]), color=colour, ms=8, mew=1.6, capsize=3,
                    mfc="white" if paper.recalled else colour)  # fmt: skip
    handles = [Line2D([], [], color=PALETTE[FAMILIES[name]], lw=4, label=name) for name in dict.fromkeys(shown.family)]
    handles += [Line2D([], [], color="0.35", mfc="white", ls="", marker=marker_of(kind), ms=8, label=f"depth {kind}") for kind in dict.fromkeys(shown.kind)]
    ax.legend(handles=handles, frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))
    ax.set_xlabel("paper, Kinetics-400 video@1, % (hollow: recalled, no source found)", fontsize=9)
    ax.set_ylabel(f"here, scale {results.recipe.scale}, video@1, %", fontsize=9)
    ax.grid(alpha=0.3)
    return ax


def published_numbers(results: Results, ax: Axes) -> Axes:
    """The published numbers of every row, a marker a source, one below the other where they are several, and ours where it was run."""
    told, ours = set(), False
    for y, row in enumerate(results.table.rows):
        for i, one in enumerate(row.published):
            place = y + 0.2 * (i - (len(row.published) - 1) / 2)
            label = "_" if one.source in told else one.source
            ax.plot(one.value, place, SOURCES.get(one.source, "h"), color=PALETTE[7], ms=6, mec="white", mew=0.5, label=label)
            told.add(one.source)
        if not row.published:
            ax.text(0.01, y, "none published with a source", va="center", fontsize=8, color="0.4", transform=ax.get_yaxis_transform())
        found = results.measured(row.label, measure(row.under(results.recipe)))
        if isfinite(found.mean):
            half = found.half if isfinite(found.half) else None
            ax.errorbar(found.mean, y, xerr=half, fmt="o", color=PALETTE[0], capsize=3, ms=7, label="_" if ours else "here")
            ours = True
    ax.set_yticks(range(len(results.table.rows)), [f"{row.label} (AUC x 100)" if measure(row.under(results.recipe)) == "auc" else row.label
                                                   for row in results.table.rows])  # fmt: skip
    ax.invert_yaxis()
    ax.set_xlabel("video top-1, %")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=6, title=None)  # within the axes its markers would read as numbers
    return ax
