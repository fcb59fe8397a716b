"""Claims and verdicts, the CSV, the figures: missing is an empty cell, a failure is a row that says why."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from csn import plots
from csn.execute import REPOSITORY, folder_of
from csn.metrics import interval, top_k
from csn.recipes import SMALL, SMOKE
from csn.show import render
from csn.spec import UserError, Variant
from csn.table import COLUMNS, Claim, Quoted, Row, Table, collect, csv_path, judge, read_lines, runs_of

sys.path.insert(0, str(REPOSITORY / "experiments"))
import table3_groups

ROWS = (
    Row(label="a", variant=Variant(block="simple", depth=18), paper_top1=Quoted(65.3, recalled=True)),
    Row(label="b", variant=Variant(block="simple-D", depth=18)),
    Row(label="g", variant=Variant(block="bottleneck-G", groups=16)),
)
CLAIM = Claim(text="a is above b", source="made up", order=("a", "b"))
TABLE = Table(name="tiny", title="Tiny", rows=ROWS, claims=(CLAIM,), figure="groups_figure")


def line(row: str, seed: int, top1: float | None, **cells: str) -> dict[str, str]:
    content = {"row": row, "seed": str(seed), "video_top1": "" if top1 is None else str(top1), "gmacs": "0.5", "params_m": "1", "interactions_m": "2",
               "block": "simple", "depth": "18", "frames": "4", "crop": "32"}  # fmt: skip
    return {name: content.get(name, "") for name in COLUMNS} | cells


def lines(**values: list[float | None]) -> list[dict[str, str]]:
    return [line(row, seed, top1) for row, tops in values.items() for seed, top1 in enumerate(tops)]


def test_the_interval_is_students() -> None:
    values = [3.0, 5.0, 4.5, 6.5]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 4)
    assert interval([2.0]).mean == 2.0 and isnan(interval([2.0]).low) and isnan(interval([]).mean)


@pytest.mark.parametrize(
    ("values", "verdict", "mean"),
    [
        ({"a": [50, 51, 52], "b": [40, 42, 41]}, "supported", 10.0),
        ({"a": [40, 42, 41], "b": [50, 51, 52]}, "refuted", -10.0),
        ({"a": [40, 60, 50], "b": [50, 41, 52]}, "undecided", 7 / 3),
        ({"a": [50, 51], "b": [40, 42]}, "undecided", 9.5),
        ({"a": [50, 51, None], "b": [40, 42, 41]}, "undecided", 9.5),
        ({"a": [50, 51, 52]}, "undecided", None),
    ],
)
def test_verdicts(values: dict, verdict: str, mean: float | None) -> None:
    judged = judge(CLAIM, lines(**values))
    assert judged.verdict == verdict
    assert isnan(judged.difference.mean) if mean is None else judged.difference.mean == pytest.approx(mean)


def test_seeds_are_paired_by_number_not_by_order() -> None:
    shuffled = [line("a", s, 50 + s) for s in (2, 0, 1)] + [line("b", s, 40 + s) for s in (1, 2, 0)]
    judged = judge(CLAIM, shuffled)
    assert (judged.difference.low, judged.difference.high) == (pytest.approx(10), pytest.approx(10))


def test_an_order_needs_every_neighbour_and_names_the_weakest() -> None:
    values = {"a": [50, 51, 52], "b": [40, 42, 41], "c": [39, 43, 41]}
    chain = judge(replace(CLAIM, order=("a", "b", "c")), lines(**values))
    assert (chain.verdict, chain.pair) == ("undecided", ("b", "c"))
    both = judge(replace(CLAIM, order=("a", ("b", "c"))), lines(**values))
    assert both.verdict == "supported" and both.claim.pairs() == [("a", "b"), ("a", "c")]
    refuted = judge(replace(CLAIM, order=(("a", "b"), "c")), lines(a=[50, 51, 52], b=[10, 11, 12], c=[40, 42, 41]))
    assert (refuted.verdict, refuted.pair) == ("refuted", ("b", "c"))


def test_accuracy_per_flop_divides_by_the_line_s_gmacs() -> None:
    cheap = [line("a", s, 30 + s, gmacs="0.1") for s in range(3)] + [line("b", s, 60 + s, gmacs="1.0") for s in range(3)]
    judged = judge(replace(CLAIM, metric="video_top1_per_gmac"), cheap)
    assert judged.verdict == "supported" and judged.difference.mean == pytest.approx(310 - 61)


def test_top_k_counts_nan_and_ties_as_misses() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [np.nan] * 3, [0.2, 0.3, 0.5]])
    labels = np.array([1, 0, 0, 0])
    assert top_k(scores, labels, 1).tolist() == [True, False, False, False]
    assert top_k(scores, labels, 2).tolist() == [True, True, False, False]
    assert top_k(scores, labels, 3).tolist() == [True, True, False, True]


def put(home: Path, row: Row, seed: int, **record: object) -> str:
    [(_, run)] = runs_of([row], SMOKE, (seed,))
    folder = folder_of(run, home)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"run": run.name, "commit": "abc", "device": "cpu", **record}))
    return run.name


def test_collecting_merges_records_with_lines_that_came_along(tmp_path: Path) -> None:
    """A line without a record here is kept; a record replaces it; a line of a run that is no longer planned goes."""
    first = put(tmp_path, ROWS[0], 0, video_top1=12.5, flops=2_000_000)
    collect(TABLE, SMOKE, tmp_path)
    (folder_of(runs_of([ROWS[0]], SMOKE, (0,))[0][1], tmp_path) / "record.json").unlink()
    second = put(tmp_path, ROWS[1], 2, video_top1=8.25)
    found, troubles = collect(TABLE, SMOKE, tmp_path)
    assert [(entry["run"], entry["video_top1"]) for entry in found] == [(first, "12.500"), (second, "8.250")] and not troubles
    assert found[0]["gmacs"] == "0.002000" and found[1]["gmacs"] == ""
    assert read_lines(csv_path(TABLE, SMOKE, tmp_path)) == found
    other = replace(TABLE, rows=ROWS[1:])
    assert [entry["run"] for entry in collect(other, SMOKE, tmp_path)[0]] == [second]


def test_the_csv_has_the_agreed_columns_and_no_zero_for_missing(tmp_path: Path) -> None:
    put(tmp_path, ROWS[0], 0, error="the loss is nan in epoch 1 of 2, by step 1 of 4", dirty="1234")
    collect(TABLE, SMOKE, tmp_path)
    [found] = csv.DictReader(csv_path(TABLE, SMOKE, tmp_path).read_text().splitlines())
    assert list(found) == list(COLUMNS)
    assert found["video_top1"] == found["seconds"] == found["gmacs"] == ""
    assert found["error"].startswith("the loss is nan") and found["commit"] == "abc-dirty"


def test_a_damaged_record_is_named_and_the_rest_collected(tmp_path: Path) -> None:
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    put(tmp_path, ROWS[1], 0, video_top1=3.0)
    record = folder_of(runs_of([ROWS[1]], SMOKE, (0,))[0][1], tmp_path) / "record.json"
    record.write_text("{")
    found, troubles = collect(TABLE, SMOKE, tmp_path)
    assert [entry["row"] for entry in found] == ["a"]
    assert len(troubles) == 1 and str(record) in troubles[0]


def test_a_foreign_csv_is_refused(tmp_path: Path) -> None:
    path = csv_path(TABLE, SMOKE, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match="is not a results file"):
        collect(TABLE, SMOKE, tmp_path)


def printed(found: list[dict[str, str]], home: Path, table: Table = TABLE, recipe=SMOKE) -> str:
    text = io.StringIO()
    render(table, table.rows, found, recipe, home, Console(file=text, width=80))
    return text.getvalue()


def test_the_printed_table_shows_means_intervals_failures_and_the_dagger(tmp_path: Path) -> None:
    found = [*lines(a=[50, 51, 52], b=[40, 42]), line("b", 2, None, error="the loss is nan")]
    text = printed(found, tmp_path)
    assert "51.0 ±2.5" in text and "65.3†" in text and "41.0 ±12.7" in text
    assert "b: seed 2 failed: the loss is nan" in text
    assert "g: `groups` (=16) must divide `width` (=8)." in text
    assert "undecided" in text and "supported" not in text
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert "supported" in printed(lines(a=[50, 51, 52], b=[40, 42, 41]), tmp_path)


def test_no_results_is_an_empty_table_not_zeros(tmp_path: Path) -> None:
    text = printed([], tmp_path)
    assert "0.0" not in text and "nan" not in text.lower().replace("", "")
    assert not list(tmp_path.rglob("*.png"))


def test_figures_are_drawn_from_lines_alone(tmp_path: Path) -> None:
    found = lines(a=[50, 51, 52], b=[40, 42, 41])
    figure = plots.groups_figure(found, "Tiny")
    left, right = figure.axes
    assert left.get_xscale() == "log" and "GMACs" in left.get_xlabel() and "interactions" in right.get_xlabel()
    written = plots.save(figure, tmp_path / "out" / "tiny")
    assert [p.suffix for p in written] == [".png", ".svg"] and all(p.stat().st_size > 1000 for p in written)
    first = written[1].read_bytes()
    assert plots.save(plots.groups_figure(found, "Tiny"), tmp_path / "out" / "tiny")[1].read_bytes() == first
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        plots.save(plots.groups_figure(found, "Tiny"), tmp_path / "file" / "tiny")
    plots.plt.close("all")


def test_an_axes_without_results_says_so() -> None:
    figure, axes = plots.plt.subplots()
    assert plots.tradeoff([], axes).texts[0].get_text() == "no results yet"
    plots.plt.close(figure)


def test_table3_asks_for_rows_that_exist_and_every_group_size() -> None:
    table = table3_groups.TABLE
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == len(labels) == 20
    assert {name for claim in table.claims for pair in claim.pairs() for name in pair} <= set(labels)
    assert {row.variant.depth for row in table.rows} == {18, 26, 34, 50}
    assert all(row.unfit(SMALL) is None and row.unfit(SMOKE) is None for row in table.rows)
    assert all(row.paper_top1 is None or row.paper_top1.recalled for row in table.rows)
    assert len(table.claims) <= 5


def test_rows_and_seeds_are_chosen_or_refused() -> None:
    assert [row.label for row in TABLE.chosen(["b", "a"])] == ["a", "b"]
    with pytest.raises(UserError, match=r"unknown row \(=z\); the rows of tiny are a, b, g\."):
        TABLE.chosen(["z"])
    assert [(row.label, run.seed) for row, run in runs_of(ROWS, SMOKE, (1, 0))] == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]
