"""Figures from CSV lines only. Every function takes lines and an axes, draws, and returns the axes.

Colours are seaborn's colour-blind-safe palette; markers repeat what colours say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from csn.files import replacing
from csn.metrics import interval

Line = Mapping[str, str]
PALETTE = sns.color_palette("colorblind")
MARKERS = ("o", "s", "^", "D", "v", "P")


def summary(lines: Sequence[Line], metric: str) -> pd.DataFrame:
    """One row a network: its costs, and mean, half (of the 95 % interval over seeds), n of metric, per cent."""
    rows = []
    for label in dict.fromkeys(line["row"] for line in lines):
        own = [line for line in lines if line["row"] == label and line[metric]]
        if not own:
            continue
        found = interval([float(line[metric]) for line in own])
        costs = {name: float(own[0][name] or "nan") for name in ("gmacs", "params_m", "interactions_m")}
        half = found.half if isfinite(found.half) else 0.0
        rows.append({"row": label, "block": own[0]["block"], "depth": int(own[0]["depth"]), **costs, "mean": found.mean, "half": half, "n": found.n})
    return pd.DataFrame(rows)


def tradeoff(lines: Sequence[Line], ax: Axes, cost: str = "gmacs", metric: str = "video_top1") -> Axes:
    """metric against a cost column (log axis), mean and 95 % interval over seeds; one colour and line a family, group sizes joined."""
    data = summary(lines, metric)
    if data.empty:
        ax.text(0.5, 0.5, "no results yet", ha="center", va="center", transform=ax.transAxes)
        return ax
    kinds = ["simple" if block.startswith("simple") else "bottleneck" for block in data.block]
    data["family"] = [f"{kind}, {8 if depth in (18, 26) else 16} blocks" for kind, depth in zip(kinds, data.depth, strict=True)]
    for i, (family, part) in enumerate(data.groupby("family", sort=False)):
        chain = part[~part.block.isin(["ip", "bottleneck-DG"])].sort_values(cost)
        ax.plot(chain[cost], chain["mean"], "-", color=PALETTE[i], alpha=0.5, lw=1)
        ax.errorbar(part[cost], part["mean"], yerr=part["half"], fmt=MARKERS[i], color=PALETTE[i], ms=5, capsize=2, lw=1, label=family)
        for _, point in part.iterrows():
            name = str(point["row"]).removesuffix(f"-{point['depth']}")
            short = name.replace("bottleneck", "b").replace("simple", "s")
            ax.annotate(short, (point[cost], point["mean"]), xytext=(4, 4), textcoords="offset points", fontsize=7, color=PALETTE[i])
    ax.set_xscale("log")
    titles = {"gmacs": "GMACs per clip", "interactions_m": "channel interactions, millions", "params_m": "parameters, millions"}
    first = lines[0]
    ax.set_xlabel(f"{titles[cost]} ({first['frames']} x {first['crop']} x {first['crop']})" if cost == "gmacs" else titles[cost])
    ax.set_ylabel({"video_top1": "test video@1, %", "train_top1": "training video@1, %", "clip_top1": "test clip@1, %"}[metric])
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return ax


def groups_figure(lines: Sequence[Line], title: str) -> Figure:
    """The paper's group study as a figure: test accuracy against FLOPs and against channel interactions."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    tradeoff(lines, axes[0], "gmacs")
    drawn = [line for line in lines if line["interactions_m"] and float(line["interactions_m"]) > 0]
    tradeoff(drawn, axes[1], "interactions_m")
    seeds = Counter(line["row"] for line in lines if line["video_top1"])
    least, most = (min(seeds.values()), max(seeds.values())) if seeds else (0, 0)
    figure.suptitle(f"{title}: mean and 95 % interval, seeds a row: {least if least == most else f'{least} to {most}'}", fontsize=11)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write path.png and path.svg; returns them. Raises UserError when the disk refuses."""
    written = []
    for suffix, options in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
        target = path.with_suffix(suffix)
        # the salt: the same figure gives the same file
        with replacing(target, "free space or give another folder with --home") as part, matplotlib.rc_context({"svg.hashsalt": path.name}):
            figure.savefig(part, **options)
        written.append(target)
    plt.close(figure)
    return written
