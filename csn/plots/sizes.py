"""Tables whose rows differ in one size of the recipe: accuracy against it, and the leads of the CSNs, drawn into axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from csn.claims import Line, value
from csn.collect import Results
from csn.metrics import interval
from csn.plots.axes import FAMILIES, NETWORKS, PALETTE, TITLES, empty
from csn.recipes import VIDEOS
from csn.spec import Embedded, Recipe, UserError

STYLES = {"ResNet3D": "o-", "ir-CSN": "D--", "ip-CSN": "P:"}
ASIDE = 1.04  # factor between markers of one size


@dataclass(frozen=True)
class Sized:
    """lines: the complete ones of a table whose rows differ in one size, by family, size, seed. axis: what the size is."""

    axis: str
    lines: Mapping[tuple[str, int, int], Line]


def sized(results: Results, axis: str, size: Callable[[Recipe], int]) -> Sized:
    """The lines of results by a size of each row's recipe. Raises UserError where two rows would share a point, or one belongs to no family."""
    fit = [row for row in results.table.rows if not row.unfit(results.recipe)]
    keys = {row.label: (NETWORKS.get(row.variant.block, ""), size(row.under(results.recipe))) for row in fit}
    for label, key in keys.items():
        other = next(one for one, own in keys.items() if own == key)
        if not key[0] or other != label:
            why = "is none of ResNet3D, ir-CSN and ip-CSN" if not key[0] else f"has the network and the {axis} of row {other}"
            raise UserError(f"The figure of {results.table.name} against {axis} cannot be drawn: row {label} {why}; take it out of the table's `figures`.")
    return Sized(axis, {(*keys[line["row"]], int(line["seed"])): line for line in results.complete})


def training_videos(recipe: Recipe) -> int:
    return recipe.data.train if isinstance(recipe.data, Embedded) else VIDEOS[recipe.data.kind][0]


def sized_axis(data: Sized, ax: Axes) -> Axes:
    """The axis of sizes, a tick a size, with its number of seeds."""
    seeds = {size: {seed for _, own, seed in data.lines if own == size} for _, size, _ in data.lines}
    ax.set_xscale("log")
    ax.set_xticks(sorted(seeds), [f"{size}\nn {len(seeds[size])}" for size in sorted(seeds)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"{data.axis}, seeds of each row")
    ax.grid(alpha=0.3)
    return ax


def by_size(ax: Axes, points: Mapping[int, Sequence[float]], family: str) -> None:
    """Mean and 95 % interval of numbers against sizes, in the style of a family, beside those of the others."""
    i, found = list(STYLES).index(family), {n: interval(points[n]) for n in sorted(points)}
    places = [n * ASIDE ** (i - 1) for n in found]
    halves = [one.half if isfinite(one.half) else 0.0 for one in found.values()]
    means = [one.mean for one in found.values()]
    ax.errorbar(places, means, yerr=halves, fmt=STYLES[family], color=PALETTE[FAMILIES[family]], capsize=3, ms=6)


def accuracy_by_size(data: Sized, ax: Axes, metric: str) -> Axes:
    """Training (train_top1) or test (video_top1) video@1 against sizes."""
    if not data.lines:
        return empty(ax)
    for family in STYLES:
        points: dict[int, list[float]] = {}
        for (own, size, _), line in data.lines.items():
            if own == family:
                points.setdefault(size, []).append(value(line, metric))
        if points:
            by_size(ax, points, family)
    ax.set_ylabel(TITLES[metric])
    return sized_axis(data, ax)


def leads_by_size(data: Sized, ax: Axes, metric: str) -> Axes:
    """By how many points each CSN betters ResNet3D of the same seed and size: in test accuracy (video_top1), or by a smaller gap."""
    sign = -1 if metric == "gap" else 1
    pairs = {key: (line, base) for key, line in data.lines.items() if key[0] != "ResNet3D" and (base := data.lines.get(("ResNet3D", *key[1:])))}
    if not pairs:
        return empty(ax)
    for family in dict.fromkeys(key[0] for key in pairs):
        points: dict[int, list[float]] = {}
        for (own, size, _), (line, base) in pairs.items():
            if own == family:
                points.setdefault(size, []).append(sign * (value(line, metric) - value(base, metric)))
        by_size(ax, points, family)
    ax.axhline(0, color="0.5", lw=1)
    ax.set_ylabel("gap: ResNet3D over CSN, points" if metric == "gap" else "test: CSN over ResNet3D, points")
    return sized_axis(data, ax)
