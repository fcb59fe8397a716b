"""Claims and verdicts: the rule, its forms, the ledger; a missing line makes a verdict undecided, never a zero or a crash."""

from __future__ import annotations

import csv
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from conftest import refused, run
from scipy import stats
from test_table import line, lines

from csn.claims import Claim, Order, Predicts, Shrinks, judge, main, numbers
from csn.collect import csv_path, read, write_lines
from csn.metrics import interval
from csn.provenance import REPOSITORY
from csn.recipes import SMALL
from csn.show import accuracies, cell
from csn.table import Table, every_table, runs_of, table_of

CLAIM = Claim(text="a is above b", source="made up", tests=(Order(("a", "b")),))


def of(*tests: Order | Shrinks | Predicts) -> Claim:
    return replace(CLAIM, tests=tests)


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
    assert judged.told()[0] == ("" if mean is None else f"{mean:+.1f}")


def test_seeds_are_paired_by_number_not_by_order() -> None:
    shuffled = [line("a", s, 50 + s) for s in (2, 0, 1)] + [line("b", s, 40 + s) for s in (1, 2, 0)]
    judged = judge(CLAIM, shuffled)
    assert (judged.difference.low, judged.difference.high) == (pytest.approx(10), pytest.approx(10))


def test_an_order_needs_every_neighbour_and_names_the_weakest() -> None:
    values = {"a": [50, 51, 52], "b": [40, 42, 41], "c": [39, 43, 41]}
    chain = judge(of(Order(("a", "b", "c"))), lines(**values))
    assert (chain.verdict, chain.part.name) == ("undecided", "b over c")
    both = judge(of(Order(("a", ("b", "c")))), lines(**values))
    assert both.verdict == "supported" and [part.rows for part in both.claim.parts()] == [("a", "b"), ("a", "c")]
    refuted = judge(of(Order((("a", "b"), "c"))), lines(a=[50, 51, 52], b=[10, 11, 12], c=[40, 42, 41]))
    assert (refuted.verdict, refuted.part.name) == ("refuted", "b over c")


def test_the_part_told_is_the_one_that_decides() -> None:
    """Not the one of the lowest mean, where that one is too wide to say anything."""
    values = {"a": [50, 52, 51], "b": [40, 80, 45], "c": [60, 62, 61]}
    refuted = judge(of(Order(("a", ("b", "c")))), lines(**values | {"b": [30, 190, 50]}))
    assert (refuted.verdict, refuted.part.name) == ("refuted", "a over c") and refuted.difference.high < 0
    undecided = judge(of(Order(("c", ("a", "b")))), lines(**values | {"b": [10, 70, 20]}))
    assert (undecided.verdict, undecided.part.name) == ("undecided", "c over b") and undecided.difference.low < 0


def test_accuracy_per_flop_divides_by_the_line_s_gmacs() -> None:
    cheap = [line("a", s, 30 + s, gmacs="0.1") for s in range(3)] + [line("b", s, 60 + s, gmacs="1.0") for s in range(3)]
    judged = judge(of(Order(("a", "b"), metric="video_top1_per_gmac")), cheap)
    assert judged.verdict == "supported" and judged.difference.mean == pytest.approx(310 - 61)
    assert judged.part.unit == "points a GMAC"


def trained(row: str, tops: list[tuple[float, float]]) -> list[dict[str, str]]:
    return [line(row, seed, test, train_top1=str(train)) for seed, (train, test) in enumerate(tops)]


def test_finding_b_needs_lower_training_and_higher_test_accuracy() -> None:
    claim = of(Order(("r3d", "csn"), metric="train_top1"), Order(("csn", "r3d")))
    r3d = trained("r3d", [(90, 50), (91, 52), (92, 51)])
    regularised = trained("csn", [(80, 60), (81, 61), (82, 62)])
    assert judge(claim, r3d + regularised).verdict == "supported"
    worse = trained("csn", [(80, 40), (81, 41), (82, 42)])  # fits less and predicts less: no regularisation
    found = judge(claim, r3d + worse)
    assert (found.verdict, found.part.name) == ("refuted", "csn over r3d")
    gap = of(Order(("r3d", "csn"), metric="gap"))
    assert judge(gap, r3d + regularised).difference.mean == pytest.approx(40 - 20)


def test_a_lead_that_shrinks_is_a_difference_of_differences() -> None:
    claim = of(Shrinks(wide=("a", "b"), narrow=("c", "d")))
    found = judge(claim, lines(a=[50, 52, 51], b=[40, 41, 42], c=[70, 71, 72], d=[69, 69, 69]))
    assert numbers(claim.parts()[0], lines(a=[50], b=[40], c=[70], d=[69])) == {0: 9.0}
    assert found.difference.mean == pytest.approx(10 - 2) and found.verdict == "supported"
    assert judge(claim, lines(a=[50, 52, 51], b=[40, 41, 42], c=[70, 71, 72])).difference.n == 0


def costly(row: str, tops: list[float], gmacs: float, interactions: float) -> list[dict[str, str]]:
    return [line(row, seed, top, gmacs=str(gmacs), interactions_m=str(interactions)) for seed, top in enumerate(tops)]


def test_what_predicts_better_is_a_difference_of_rank_correlations() -> None:
    claim = of(Predicts(("a", "b", "c"), better="interactions_m", worse="gmacs"))
    [part] = claim.parts()
    follows = costly("a", [10, 11, 12], 3, 1) + costly("b", [20, 21, 22], 1, 2) + costly("c", [30, 31, 32], 2, 3)
    assert numbers(part, follows) == {s: pytest.approx(1 - -0.5) for s in range(3)}
    found = judge(claim, follows)
    assert found.verdict == "supported" and found.told() == ("+1.50", "[+1.50, +1.50]")
    equal = costly("a", [10, 10, 10], 3, 1) + costly("b", [10, 10, 10], 1, 2) + costly("c", [10, 10, 10], 2, 3)
    assert judge(claim, equal).verdict == "undecided" and numbers(part, equal) == {}


def made_up(table: Table, home: Path) -> list[dict[str, str]]:
    """Three seeds of every row that small holds, written as its CSV: accuracies that grow with the row's place."""
    out, places = [], list(dict.fromkeys(row.label for row, _ in runs_of(table.rows, SMALL, (0,))))
    for row, planned in runs_of(table.rows, SMALL, range(3)):
        i, seed = places.index(row.label), planned.seed
        facts = {"table": table.name, "block": planned.variant.block, "depth": str(planned.variant.depth), "train_top1": str(90 - i + seed / 10)}
        out.append(line(row.label, seed, 40 + i * i / 9 + seed / 7, gmacs=str(1 + i), interactions_m=str(9 - i), run=planned.name, **facts))
    write_lines(csv_path(table, SMALL, home), out)
    return out


@pytest.mark.parametrize("name", [table.name for table in every_table() if table.claims])
def test_deleting_any_line_makes_its_claims_undecided(name: str, tmp_path: Path) -> None:
    table = table_of(name)
    whole = made_up(table, tmp_path)
    before = {one.claim.text: one for one in read(table, SMALL, tmp_path).judged()}
    assert all(one.verdict != "undecided" for one in before.values())
    for gone in whole[::3]:
        write_lines(csv_path(table, SMALL, tmp_path), [one for one in whole if one is not gone])
        results = read(table, SMALL, tmp_path)
        for one in results.judged():
            touched = any(gone["row"] in part.rows for part in one.claim.parts())
            assert one.verdict == ("undecided" if touched else before[one.claim.text].verdict)
    only = [one for one in whole if one["row"] == whole[0]["row"]]
    write_lines(csv_path(table, SMALL, tmp_path), [one for one in whole if one not in only])
    first = accuracies(read(table, SMALL, tmp_path), table.rows).rows[0]
    assert first[0] == only[0]["row"] and set(first[1:]) <= {"", str(table.rows[0].paper_top1)}


def test_the_ledger_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in every_table():
        if table.claims:
            made_up(table, tmp_path)
    assert main(["--home", str(tmp_path)]) == 0
    found = list(csv.DictReader((tmp_path / "results" / "small" / "claims.csv").read_text().splitlines()))
    assert len(found) == sum(len(table.claims) for table in every_table())
    assert {entry["scale"] for entry in found} == {"small"} and {entry["n"] for entry in found} == {"3"}
    assert all(float(entry["low"]) <= float(entry["difference"]) <= float(entry["high"]) for entry in found)
    page = (tmp_path / "results" / "claims.md").read_text()
    assert all(entry["claim"] in page for entry in found)
    assert "rank correlation" in page and "supported" in capsys.readouterr().out


def test_nothing_run_is_a_ledger_of_undecided_claims(tmp_path: Path) -> None:
    done = run("-m", "csn.claims", "--home", tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = list(csv.DictReader((tmp_path / "results" / "small" / "claims.csv").read_text().splitlines()))
    assert {(entry["n"], entry["difference"], entry["verdict"]) for entry in found} == {("0", "", "undecided")}
    (tmp_path / "results" / "small" / "table3_groups.csv").write_text("x,y\n1,2\n")
    assert "is not a results file" in refused(run("-m", "csn.claims", "--home", tmp_path))


def test_the_committed_ledger_is_that_of_the_committed_results(tmp_path: Path) -> None:
    for csv_file in (REPOSITORY / "results").glob("*/table*.csv"):
        target = tmp_path / csv_file.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(csv_file.read_bytes())
    assert main(["--home", str(tmp_path)]) == 0
    written = [path.relative_to(tmp_path) for path in [*tmp_path.glob("results/*/claims.csv"), tmp_path / "results" / "claims.md"]]
    assert all((REPOSITORY / path).read_bytes() == (tmp_path / path).read_bytes() for path in written), "run python -m csn.claims"


def test_a_cell_is_never_wider_than_its_column() -> None:
    assert [cell(interval(values)) for values in ([], [83.06], [83.0, 83.2, 83.1], [5.0, 44.0], [0.0, 20.0])] == [
        "", "83.1", "83.1 ±0.2", "24.5 ±248", "10.0 ±127",
    ]  # fmt: skip
    assert cell(interval([20.0, 35.7])) == "27.9 ±99.7"
