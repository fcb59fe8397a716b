"""Figures: drawn from lines alone, the same file from the same lines, and nothing covered by something else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from scipy import stats
from test_table import TABLE, line, lines

from csn import plots
from csn.collect import Results, read
from csn.plots.axes import beside, channel_separated, grouped
from csn.provenance import REPOSITORY
from csn.recipes import PAPER, PHOTO, SMALL, SMOKE
from csn.spec import UserError, Variant
from csn.table import Quoted, every_table, runs_of, table_of

sys.path.insert(0, str(REPOSITORY / "experiments"))
import table3_groups


@pytest.fixture(autouse=True)
def closed() -> None:
    plt.close("all")


def results(name: str, seeds: int = 2) -> Results:
    """Made-up results of a table's rows at smoke scale, with curves."""
    table = table_of(name)
    found = [
        line(row.label, seed, 20 + i + seed, gmacs=str(0.1 + i), interactions_m=str(2 + i // 2), train_top1=str(60 + i), block=run.variant.block,
             depth=str(run.variant.depth), groups=str(run.variant.groups), auc=str(50 + i))
        for i, (row, run) in enumerate(runs_of(table.rows, SMOKE, (0,))) for seed in range(seeds)
    ]  # fmt: skip
    curves = [{"row": one["row"], "seed": one["seed"], "epoch": str(e), "loss": str(4 / e), "clip_top1": str(9 * e)} for one in found for e in (1, 2, 3)]
    return Results(table, SMOKE, found, curves, seeds=tuple(range(seeds)))


def test_the_same_lines_give_the_same_file(tmp_path: Path) -> None:
    found = Results(TABLE, SMOKE, lines(a=[50, 51, 52], b=[40, 42, 41]), seeds=(0, 1, 2))
    written = plots.save(plots.group_sizes(found), tmp_path / "out" / "tiny")
    assert [p.suffix for p in written] == [".png", ".svg"] and all(p.stat().st_size > 1000 for p in written)
    first = written[1].read_bytes()
    assert plots.save(plots.group_sizes(found), tmp_path / "out" / "tiny")[1].read_bytes() == first
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        plots.save(plots.group_sizes(found), tmp_path / "file" / "tiny")


@pytest.mark.parametrize("table", [table for table in every_table() if table.figures], ids=lambda table: table.name)
def test_every_figure_draws_results_and_says_where_there_are_none(table) -> None:
    for name in table.figures:
        full = getattr(plots, name)(results(table.name))
        assert all(ax.lines for ax in full.axes), name
        assert all(ax.get_ylim()[0] >= 0 for ax in full.axes if ax.get_ylabel().endswith("%"))
        assert not any("no results" in text.get_text() for ax in full.axes for text in ax.texts)
        if name == "published":  # draws what is published, with results or without
            continue
        none = getattr(plots, name)(Results(table, SMOKE, ()))
        assert all([text.get_text() for text in ax.texts] == ["no results yet"] for ax in none.axes)


def test_the_tradeoff_marks_families_and_kinds() -> None:
    data = grouped(plots.summary(results("table3_groups").lines, "video_top1"))
    assert set(data.family) == {"simple", "bottleneck"} and set(data.kind) == {"full", "G2", "G8", "D", "DG4", "ip"}
    _, ax = plt.subplots()
    assert plots.tradeoff(data, ax, "interactions_m") is ax
    assert ax.get_xscale() == "log" and "interactions" in ax.get_xlabel()
    three = channel_separated(plots.summary(results("table2_interactions").lines, "video_top1"))
    assert list(three.family[:3]) == ["ResNet3D", "ir-CSN", "ip-CSN"] and list(three.kind) == ["26"] * 3 + ["50"] * 3


def test_every_point_and_its_interval_are_inside_the_axes() -> None:
    """Points that stand beside each other too."""
    data = grouped(plots.summary(results("table3_groups", seeds=3).lines, "video_top1"))
    figure, axes = plt.subplots(1, 2, sharey=True)
    plots.tradeoff(data[data["mean"] < data["mean"].median()], axes[0], "gmacs")
    plots.tradeoff(data, axes[1], "interactions_m")
    figure.canvas.draw()
    for ax in axes:
        low, high = ax.get_ylim()
        assert low < (data["mean"] - data["half"]).min() and high > (data["mean"] + data["half"]).max()


def test_close_points_are_moved_apart_around_their_middle() -> None:
    places = np.array([0.0, 5.0, 5.01, 4.99, 9.0])
    assert sorted(beside(places, 0.1)[1:4]) == [-1, 0, 1] and beside(places, 0.1)[[0, 4]].tolist() == [0, 0]


def test_points_moved_apart_are_joined_to_their_own_cost() -> None:
    costs = {"a": 2.0, "b": 2.0, "c": 9.0}
    found = [line(row, 0, 50 + 5 * i, gmacs=str(gmacs), block="bottleneck", depth="26") for i, (row, gmacs) in enumerate(costs.items())]
    data = plots.summary(found, "video_top1")
    _, ax = plt.subplots()
    plots.tradeoff(channel_separated(data), ax, "gmacs")
    dots = [(float(one.get_xdata()[0]), float(one.get_ydata()[0])) for one in ax.lines if one.get_marker() == "."]
    joined = [one.xy for one in ax.texts]
    assert dots == joined == [(2.0, 50.0), (2.0, 55.0)]


def test_what_was_not_run_has_no_panels_and_single_runs_no_interval() -> None:
    table, whole = table_of("table3_groups"), results("table3_groups")
    shallow = [one for one in whole.lines if one["depth"] in ("18", "26") and one["seed"] == "0"]
    figure = plots.tradeoffs(Results(table, SMALL, shallow, seeds=(0,)))
    assert [ax.get_title() for ax in figure.axes] == ["8 blocks"] * 2 and "Single runs, without an interval, close" in figure.get_suptitle()
    assert len(plots.tradeoffs(whole).axes) == 5 == len(plots.tradeoffs(Results(table, SMALL, ())).axes)


def test_the_title_tells_the_seeds_of_each_row_and_what_is_cut() -> None:
    sizes = read(table_of("table4_sizes"), SMALL)
    title = plots.data_sizes(sizes).get_suptitle()
    assert title.endswith("paired seeds\n10 seeds a row; 20: ResNet3D-50-x1, ir-CSN-50-x1, ip-CSN-50-x1")
    title = plots.data_sizes(replace(sizes, seeds=(0, 1, 2))).get_suptitle()  # some intervals of three reach beyond 100
    assert title.endswith("paired seeds, cut at 100 %\n3 seeds a row")
    assert "cut" not in plots.schedules(read(table_of("table4_schedules"), PHOTO)).get_suptitle()  # all at 100
    title = plots.families(read(table_of("table2_interactions"), SMALL)).get_suptitle()
    assert "cut" not in title and title.endswith("\n20 seeds a row")
    assert plots.seeds_told(Results(TABLE, SMOKE, lines(a=[50]), seeds=(0,))) == "1 seed a row"
    assert plots.seeds_told(Results(TABLE, SMOKE, ())) == "no seeds"


def drawn_at(ax: Axes, axis: str = "training videos") -> dict[str, list[tuple[int, float]]]:
    """Marker -> (size, height) of the points of an axis of sizes."""
    sizes = ax.get_xticks()
    assert ax.get_xlabel().startswith(axis) and [text.get_text().split()[0] for text in ax.get_xticklabels()] == [f"{n:.0f}" for n in sizes]
    return {str(one.get_marker()): [(int(min(sizes, key=lambda n: abs(n - x))), round(float(y), 6)) for x, y in zip(*one.get_data(), strict=True)]
            for one in ax.lines if one.get_marker() in "oDP"}  # fmt: skip


def mean_and_ends(values: Sequence[float]) -> list[float]:
    """The mean of values and the ends of its 95 % interval, as scipy tells them."""
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return [float(np.mean(values)), float(low), float(high)]


def bars(ax: Axes, along: int) -> list[tuple[Line2D, list[list[float]]]]:
    """Of every series with intervals its markers, and mean and ends of each point along axis 0 (x) or 1 (y)."""
    return [(one[0], [[float(point[along]), *segment[:, along].tolist()] for point, segment in zip(one[0].get_xydata(), one[2][0].get_segments(), strict=True)])
            for one in ax.containers]  # fmt: skip


def hollow(marker: Line2D) -> bool:
    return to_rgb(marker.get_markerfacecolor()) == (1, 1, 1)


def test_training_is_hollow_and_test_filled_each_with_its_interval_and_the_gap_with_its_own() -> None:
    """Of the rows that have all their seeds: the third lacks one."""
    tops = {"ResNet3D-26": [(90, 70), (92, 71), (97, 78)], "ir-CSN-26": [(80, 65), (81, 69), (86, 67)], "ip-CSN-26": [(85, 60), (84, 61)]}
    blocks = dict(zip(tops, ("bottleneck", "bottleneck-D", "ip"), strict=True))
    found = [line(row, seed, test, train_top1=str(train), block=blocks[row], depth="26")
             for row, own in tops.items() for seed, (train, test) in enumerate(own)]  # fmt: skip
    both, gap = plots.regularization(Results(table_of("table4_regularization"), SMALL, found, seeds=(0, 1, 2))).axes
    drawn = {(round(float(one.get_ydata()[0])), hollow(one)): ends for one, ends in bars(both, 0)}
    gaps = {round(float(one.get_ydata()[0])): ends for one, ends in bars(gap, 0)}
    assert [text.get_text() for text in both.get_yticklabels()] == ["ResNet3D-26", "ir-CSN-26"] and len(drawn) == 4 and len(gaps) == 2
    for y, label in enumerate(("ResNet3D-26", "ir-CSN-26")):
        train, test = zip(*tops[label], strict=True)
        assert drawn[y, True] == [pytest.approx(mean_and_ends(train))] and drawn[y, False] == [pytest.approx(mean_and_ends(test))]
        assert gaps[y] == [pytest.approx(mean_and_ends(np.subtract(train, test)))]
    assert {one.get_label(): hollow(one) for one in both.get_legend().legend_handles} == {"test": False, "training": True}
    assert [list(one.get_ydata()) for one in gap.lines if list(one.get_xdata()) == [0, 0]] == [[0, 1]] and gap.get_xlim()[0] <= 0  # no gap, all the way


def test_group_sizes_stand_above_their_ticks() -> None:
    """From one group to depthwise, whatever the order of the rows."""
    kinds = {"8": ("G", 8), "1": ("", 1), "depthwise": ("D", 1), "2": ("G", 2)}
    tops = {key: [50 + 7 * i + i % 3, 51 + 7 * i, 54 + 7 * i] for i, key in enumerate(product(("simple", "bottleneck"), kinds))}
    found = [line(f"{family} {tick}", seed, top, block="-".join(filter(None, (family, kinds[tick][0]))), groups=str(kinds[tick][1]))
             for (family, tick), own in tops.items() for seed, top in enumerate(own)]  # fmt: skip
    _, ax = plt.subplots()
    plots.group_curves(grouped(plots.summary(found, "video_top1")), ax)
    ticks = {round(float(x)): text.get_text() for x, text in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)}
    assert list(ticks.values()) == ["1", "2", "8", "depthwise"]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    for family, (one, ends) in zip(labels, bars(ax, 1), strict=True):
        assert all(abs(x - round(x)) < 0.1 for x in one.get_xdata()) and sorted(one.get_xdata()) == list(one.get_xdata())  # the line never turns back
        assert {ticks[round(x)]: own for x, own in zip(one.get_xdata(), ends, strict=True)} == {
            tick: pytest.approx(mean_and_ends(tops[family, tick])) for tick in kinds
        }  # fmt: skip


def test_one_row_alone_stands_above_its_tick_beside_an_empty_panel() -> None:
    """The README's first example."""
    table = table_of("table3_groups")
    found = [line("simple-D", 0, 80, gmacs="0.0097", interactions_m="0.29", block="simple-D")]
    alone, none = plots.group_sizes(Results(table, SMALL, found, seeds=(0,))).axes
    (x,) = {float(x) for one in alone.lines for x in one.get_xdata()}
    assert x == 0 and alone.get_xlim() == (-0.4, pytest.approx(0.4)) and [text.get_text() for text in alone.get_xticklabels()] == ["depthwise"]
    assert alone.yaxis.get_tick_params()["labelleft"] and not none.yaxis.get_tick_params()["labelleft"] and len(alone.get_yticks()) > 1
    for ax in plots.tradeoffs(Results(table, SMALL, found, seeds=(0,))).axes:
        low, high = ax.get_xlim()
        assert len([tick for tick in ax.get_xticks() if low <= tick <= high]) <= 5


def test_learning_curves_are_means_in_a_band_from_the_lowest_seed_to_the_highest() -> None:
    tops = {"ResNet3D-50": [(10, 40), (20, 70), (60, 73)], "ip-CSN-50": [(5, 80), (6, 90), (13, 91)]}
    curves = [{"row": row, "seed": str(seed), "epoch": str(epoch), "clip_top1": str(top)}
              for row, own in tops.items() for seed, pair in enumerate(own) for epoch, top in enumerate(pair, 1)]  # fmt: skip
    _, ax = plt.subplots()
    plots.learning(curves, ax)
    assert {one.get_label(): one.get_ydata().tolist() for one in ax.lines} == {"ResNet3D-50": [30, 61], "ip-CSN-50": [8, 87]}
    bands = [{tuple(point) for point in band.get_paths()[0].vertices.tolist()} for band in ax.collections]
    assert bands == [{(1, 10), (1, 60), (2, 40), (2, 73)}, {(1, 5), (1, 13), (2, 80), (2, 91)}]


def test_learning_curves_stand_in_the_panel_of_their_depth_if_all_their_seeds_are_there() -> None:
    whole = results("table4_regularization")
    lines = [one for one in whole.lines if (one["row"], one["seed"]) != ("ip-CSN-50", "1")]
    panels = {ax.get_title(): [one.get_label() for one in ax.lines] for ax in plots.curves(replace(whole, lines=lines)).axes}
    assert panels == {"depth 26": ["ResNet3D-26", "ir-CSN-26", "ip-CSN-26"], "depth 50": ["ResNet3D-50", "ir-CSN-50"]}


def test_data_sizes_show_who_betters_whom_and_by_how_much() -> None:
    """ir-CSN: 5 points more in test, 2 less in training; ip-CSN: 1 and 0 less; more with the number of videos, another number every seed."""
    table, lines = table_of("table4_sizes"), []
    for row, one in runs_of(table.rows, SMALL, (0, 1)):
        block, more = one.variant.block, row.videos + one.seed
        test = 50 + more + {"bottleneck": 0, "bottleneck-D": 5 * row.videos, "ip": -1}[block]
        train = 90 + more - (2 if block == "bottleneck-D" else 0)
        lines.append(line(row.label, one.seed, test, train_top1=str(train), block=block, depth="50"))
    figure = plots.data_sizes(Results(table, SMALL, lines, seeds=(0, 1)))
    train, accuracy, test, gap = map(drawn_at, figure.axes)
    assert test == {"D": [(320, 2.5), (640, 5.0), (1280, 10.0), (2560, 20.0)], "P": [(n, -1.0) for n in (320, 640, 1280, 2560)]}
    assert gap == {"D": [(320, 4.5), (640, 7.0), (1280, 12.0), (2560, 22.0)], "P": [(n, -1.0) for n in (320, 640, 1280, 2560)]}
    assert accuracy["o"] == [(320, 51.0), (640, 51.5), (1280, 52.5), (2560, 54.5)]  # ResNet3D
    assert train["D"] == [(320, 89.0), (640, 89.5), (1280, 90.5), (2560, 92.5)]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["320\nn 2", "640\nn 2", "1280\nn 2", "2560\nn 2"]
    assert all(ax.get_ylim()[1] <= 102 for ax in figure.axes[:2])
    fewer = [one for one in lines if one["row"] != "ip-CSN-50-x4"]
    assert len(drawn_at(plots.data_sizes(Results(table, SMALL, fewer, seeds=(0, 1))).axes[2])["P"]) == 3
    paper = [one for one in lines if one["row"].endswith("-x1")]
    assert drawn_at(plots.data_sizes(Results(table, PAPER, paper, seeds=(0, 1))).axes[2]) == {"D": [(240436, 5.0)], "P": [(240436, -1.0)]}


def test_schedules_are_drawn_against_epochs() -> None:
    """ip-CSN: 4 points more in test after 30 epochs, 1 after 60, nothing in training."""
    table, lines = table_of("table4_schedules"), []
    for row, one in runs_of(table.rows, SMALL, (0, 1)):
        lead = (4 if row.epochs == 1 else 1) if one.variant.block == "ip" else 0
        lines.append(line(row.label, one.seed, 80 + one.seed + lead, train_top1="95", block=one.variant.block, depth="50"))
    _, accuracy, test, gap = (drawn_at(ax, "epochs") for ax in plots.schedules(Results(table, SMALL, lines, seeds=(0, 1))).axes)
    assert test == gap == {"D": [(30, 0.0), (60, 0.0)], "P": [(30, 4.0), (60, 1.0)]}
    assert accuracy == {"o": [(30, 80.5), (60, 80.5)], "D": [(30, 80.5), (60, 80.5)], "P": [(30, 84.5), (60, 81.5)]}


def test_the_intervals_of_a_size_are_those_of_its_accuracies_and_of_its_paired_leads() -> None:
    table, base, more = table_of("table4_schedules"), [70, 78, 73], {"bottleneck": [0, 0, 0], "bottleneck-D": [2, -1, 3], "ip": [4, 5, 9]}
    found = [line(row.label, one.seed, base[one.seed] + row.epochs * more[one.variant.block][one.seed], train_top1="95", block=one.variant.block, depth="50")
             for row, one in runs_of(table.rows, SMALL, (0, 1, 2))]  # fmt: skip
    _, accuracy, test, _ = plots.schedules(Results(table, SMALL, found, seeds=(0, 1, 2))).axes
    leads = [[pytest.approx(mean_and_ends(np.multiply(times, more[block]))) for times in (1, 2)] for block in ("bottleneck-D", "ip")]
    assert [ends for _, ends in bars(test, 1)] == leads
    assert bars(accuracy, 1)[2][1] == [pytest.approx(mean_and_ends(np.add(base, np.multiply(times, more["ip"])))) for times in (1, 2)]


def test_figures_of_someone_s_own_rows_draw_them_or_say_why_not() -> None:
    """Groups and depths that no table here has get a marker; blocks of no family are not taken for ResNet3D."""
    own = [replace(table3_groups.EIGHT[0], label=label, variant=Variant(block=block, depth=depth, groups=groups))
           for label, block, depth, groups in (("dg2", "bottleneck-DG", 26, 2), ("g16", "simple-G", 18, 16), ("18", "simple", 18, 1))]  # fmt: skip
    found = [line(row.label, 0, 50, gmacs="1", interactions_m="2", train_top1="60", block=row.variant.block, depth=str(row.variant.depth),
                  groups=str(row.variant.groups)) for row in own]  # fmt: skip
    results = Results(replace(table3_groups.TABLE, rows=tuple(own), claims=()), SMALL, found, seeds=(0,))
    for figure in (plots.tradeoffs(results), plots.families(results), plots.regularization(results)):
        assert any(str(one.get_marker()) == "h" for ax in figure.axes for one in ax.lines) or figure.axes[0].get_xlabel() == "video@1, %"
    assert [text.get_text() for text in plots.families(results).legends[0].get_texts()] == ["others", "depth 26", "depth 18"]
    schedules = table_of("table4_schedules")
    twice = (*schedules.rows, replace(schedules.rows[0], label="again"))
    with pytest.raises(UserError, match=r"row again has the network and the epochs of row ResNet3D-50; take it out of the table's `figures`"):
        plots.schedules(Results(replace(schedules, rows=twice), SMALL, ()))
    with pytest.raises(UserError, match=r"row dg2 is none of ResNet3D, ir-CSN and ip-CSN"):
        plots.data_sizes(results)
    assert [ax.get_title() for ax in plots.curves(results).axes] == ["depth 18", "depth 26"]


def test_an_axis_of_accuracies_is_no_cliff_for_one_video() -> None:
    table = table_of("table4_sizes")
    found = [line(row.label, seed, 80, train_top1="99.9" if row.videos == 4 else "100", block=row.variant.block, depth="50")
             for row in table.rows for seed in (0, 1)]  # fmt: skip
    train, test, *_ = plots.data_sizes(Results(table, SMALL, found, seeds=(0, 1))).axes
    assert train.get_ylim()[0] <= 90.3 and 100.1 <= train.get_ylim()[1] <= 100.3  # and no marker at 100 is cut in half
    assert test.get_ylim()[1] - test.get_ylim()[0] < 10  # the others may be as fine as their points
    all_fit = [{**one, "train_top1": "100"} for one in found]
    train, *_ = plots.data_sizes(Results(table, SMALL, all_fit, seeds=(0, 1))).axes
    assert train.get_ylim()[0] <= 90.3 and 100.1 <= train.get_ylim()[1] <= 100.3


def test_recalled_numbers_are_hollow() -> None:
    _, ax = plt.subplots()
    plots.against_paper(results("table2_interactions"), ax)
    markers = [one for one in ax.lines if one.get_marker() in ("o", "s")]
    assert len(markers) == 6 and all(one.get_markerfacecolor() == "white" for one in markers)
    assert "recalled" in ax.get_xlabel()


def test_what_is_measured_stands_above_the_paper_s_number_and_is_filled_where_that_has_a_source() -> None:
    table = table_of("table2_interactions")
    shallow = [replace(row, paper_top1=Quoted(value, recalled)) for row, value, recalled in zip(table.rows, (65.5, 62.25), (True, False), strict=False)]
    tops = {shallow[0].label: [20, 21, 25], shallow[1].label: [31, 30, 38]}
    found = [line(row.label, seed, top, block=row.variant.block, depth="26") for row in shallow for seed, top in enumerate(tops[row.label])]
    _, ax = plt.subplots()
    plots.against_paper(Results(replace(table, rows=tuple(shallow), claims=()), SMALL, found, seeds=(0, 1, 2)), ax)
    drawn = {float(one.get_xdata()[0]): (ends, hollow(one)) for one, ends in bars(ax, 1)}
    assert drawn == {65.5: ([pytest.approx(mean_and_ends([20, 21, 25]))], True), 62.25: ([pytest.approx(mean_and_ends([31, 30, 38]))], False)}


def test_filters_are_drawn_each_to_its_own_largest_weight() -> None:
    _, axes = plt.subplots(2, 2)
    weights = np.arange(3 * 27, dtype=np.float32).reshape(3, 1, 3, 3, 3) - 40
    drawn = plots.filters(weights, axes.flat)
    assert len(drawn) == 4 and not drawn[3].images
    planes = drawn[0].images
    assert [plane.get_array()[0].tolist() for plane in planes] == [[-40, -39, -38], [-31, -30, -29], [-22, -21, -20]]
    assert {plane.get_clim() for plane in planes} == {(-40, 40)}
    ends = [tuple(plane.get_extent()[:2]) for plane in planes]
    assert all(left[1] < right[0] for left, right in pairwise(ends)) and len(drawn[0].patches) == 4  # gaps; a frame a plane and one of all


def test_sixteen_blocks_are_drawn_at_their_interactions() -> None:
    """Where five networks have nearly as many, on a linear axis of their own."""
    figure = plots.tradeoffs(read(table_of("table3_groups"), PHOTO))
    crowded = figure.axes[4]
    assert crowded.get_xscale() == "linear" and {ax.get_xscale() for ax in figure.axes[:4]} == {"log"}
    points = sorted(round(float(one.get_xdata()[0]), 2) for one in crowded.lines if len(one.get_xdata()) == 1 and one.get_marker() in "os^DP")
    assert points == [84.46, 84.52, 85.44, 88.42, 88.42] and crowded.get_xlim()[0] > 80


def test_published_numbers_lie_apart_and_ours_are_named_where_they_are() -> None:
    table = table_of("table5_benchmarks")
    [ax] = plots.published(Results(table, PAPER, ())).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["zoo", "mmaction2", "quoted", "log", "list"]
    places = [round(float(one.get_ydata()[0]), 3) for one in ax.lines]
    assert len(set(places)) == len(places) == sum(len(row.published) for row in table.rows)
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == 13 and "dfdc (AUC x 100)" in names and [text.get_text() for text in ax.texts] == ["none published with a source"] * 2
    [ours] = plots.published(Results(table, PAPER, [line("ir-ig65m", 0, 82.0)])).axes
    assert [text.get_text() for text in ours.get_legend().get_texts()][-1] == "here"


def test_our_number_is_of_the_metric_that_the_row_is_named_by() -> None:
    found = [line("ir-ig65m", 0, 82.0, auc="12"), line("dfdc", 0, 91.0, auc="68.5")]
    [ax] = plots.published(Results(table_of("table5_benchmarks"), PAPER, found)).axes
    names = dict(zip(ax.get_yticks().tolist(), (text.get_text() for text in ax.get_yticklabels()), strict=True))
    drawn = {names[float(one[0].get_ydata()[0])]: float(one[0].get_xdata()[0]) for one in ax.containers}
    assert drawn == {"ir-ig65m": 82.0, "dfdc (AUC x 100)": 68.5}
