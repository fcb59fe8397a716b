"""Claims and verdicts: the rule, its forms, the ledger; a missing line makes a verdict undecided, never a zero or a crash."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from conftest import refused, run
from matplotlib import pyplot as plt
from scipy import stats
from test_table import line, lines

from csn import plots
from csn.claims import CEILING, UNDEFINED, Claim, Judged, Line, Order, Predicts, Shrinks, judge, signed
from csn.collect import csv_path, read, read_lines, write_lines
from csn.ledger import difference, ledger, ledger_sheet, main, parts_sheet, scales_with_results
from csn.metrics import interval
from csn.provenance import REPOSITORY
from csn.recipes import SMALL, recipe_of
from csn.report import text
from csn.sheet import cell
from csn.show import accuracies, reasons
from csn.table import Table, every_table, runs_of, table_of

CLAIM = Claim(text="a is above b", source="made up", tests=(Order(("a", "b")),))


def of(*tests: Order | Shrinks | Predicts) -> Claim:
    return replace(CLAIM, tests=tests)


def verdict_on(claim: Claim, found: Sequence[Line], **planned: Sequence[int]) -> Judged:
    """The verdict where every row plans the seeds that some line has, unless said otherwise."""
    seeds = sorted({int(one["seed"]) for one in found})
    return judge(claim, found, {row: planned.get(row, seeds) for part in claim.parts() for row in part.rows})


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
        ({"a": [50, 51, None], "b": [40, 42, 41]}, "undecided", None),
        ({"a": [50, 51], "b": [40, 42, 41]}, "undecided", None),
        ({"a": [50, 51, 52]}, "undecided", None),
    ],
)
def test_verdicts(values: dict, verdict: str, mean: float | None) -> None:
    judged = verdict_on(CLAIM, lines(**values))
    assert judged.verdict == verdict
    difference = judged.decides.difference
    assert isnan(difference.mean) if mean is None else difference.mean == pytest.approx(mean)
    assert judged.decides.told()[0] == ("" if mean is None else f"{mean:+.1f}")


def test_seeds_are_paired_by_number_not_by_order() -> None:
    shuffled = [line("a", s, 50 + s) for s in (2, 0, 1)] + [line("b", s, 40 + s) for s in (1, 2, 0)]
    difference = verdict_on(CLAIM, shuffled).decides.difference
    assert (difference.low, difference.high) == (pytest.approx(10), pytest.approx(10))


def test_pairs_are_over_the_seeds_planned_for_both_rows_and_all_planned_seeds_must_be_there() -> None:
    found = lines(a=[50, 51, 52, 10, 20], b=[40, 42, 41])
    judged = verdict_on(CLAIM, found, b=(0, 1, 2))
    assert (judged.verdict, judged.decides.n) == ("supported", "3") and judged.decides.difference.mean == pytest.approx(10)
    for seed in range(5):  # the fourth and fifth seed of a enter no pair, and a is not whole without them
        without = verdict_on(CLAIM, [one for one in found if (one["row"], one["seed"]) != ("a", str(seed))], a=range(5), b=range(3))
        assert (without.verdict, without.decides.n, without.decides.told()) == ("undecided", "4 of 5", ("", ""))
    unplanned = verdict_on(CLAIM, [*found, line("b", 7, 90), line("a", 7, 1)], a=range(5), b=range(3))
    assert unplanned.decides.difference == judged.decides.difference


def test_what_is_counted_needs_no_three_seeds_and_has_no_interval() -> None:
    claim = of(Order(("a", "b"), metric="gmacs"))
    dear, cheap = line("a", 0, 50, gmacs="0.5"), line("b", 0, 40, gmacs="0.25")
    judged = verdict_on(claim, [dear, cheap])
    assert (judged.verdict, judged.decides.n, judged.decides.told(), judged.decides.part.unit) == ("supported", "counted", ("+0.2500", ""), "GMACs")
    assert verdict_on(claim, [dear | {"gmacs": "0.1"}, cheap]).verdict == "refuted"
    assert verdict_on(claim, [dear, cheap], a=(0, 1)).verdict == "undecided"


def test_a_margin_is_what_may_be_lost() -> None:
    values = {"a": [50, 51, 52], "b": [51, 52.2, 53.1]}
    judged = verdict_on(of(Order(("a", "b"), margin=2)), lines(**values))
    assert (judged.verdict, judged.decides.part.name) == ("supported", "a over (b - 2)") and judged.decides.difference.mean == pytest.approx(0.9)
    assert verdict_on(of(Order(("a", "b"))), lines(**values)).verdict == "refuted"


@pytest.mark.parametrize("metric", ["train_top1", "clip_top1", "video_top1"])
def test_no_accuracy_can_lie_above_another_at_100(metric: str) -> None:
    found = [line(row, seed, 50 + seed) | {metric: "100"} for row in ("a", "b") for seed in range(3)]
    judged = verdict_on(of(Order(("a", "b"), metric=metric)), found)
    assert (judged.verdict, judged.decides.note) == ("undecided", CEILING)


def test_a_missing_seed_is_told_by_the_count_alone() -> None:
    """What is not defined would be so with every seed there."""
    decides = verdict_on(CLAIM, lines(a=[50, 51], b=[40, 42, 41])).decides
    assert (decides.name, decides.n, decides.enough) == ("a over b", "2 of 3", False)
    none = verdict_on(CLAIM, [], a=(0, 1, 2), b=(0, 1, 2)).decides
    assert (none.name, none.n, none.enough) == ("a over b", "0 of 3", False)


def test_two_networks_that_fit_everything_cannot_be_told_apart() -> None:
    fit = of(Order(("a", "b"), metric="train_top1"), Order(("b", "a")))
    better = trained("a", [(100, 50), (100, 51), (100, 52)]) + trained("b", [(100, 60), (100, 61), (100, 62)])
    judged = verdict_on(fit, better)
    assert (judged.verdict, judged.decides.name) == ("undecided", f"training: a over b; {CEILING}")
    assert verdict_on(fit, trained("b", [(100, 40), (100, 41), (100, 42)]) + better[:3]).verdict == "refuted"  # by its test accuracy
    level = trained("a", [(99, 50)] * 3) + trained("b", [(99, 60)] * 3)
    assert verdict_on(fit, level).decides.ceiling is False


def test_what_stays_at_the_ceiling_within_a_margin_is_decided() -> None:
    found = verdict_on(Claim(text="c", source="s", tests=(Order(("a", "b"), margin=2),)), lines(a=[100] * 3, b=[100] * 3))
    assert found.verdict == "supported" and CEILING not in found.decides.name


def test_what_is_equal_but_for_the_last_bit_of_a_float_decides_nothing() -> None:
    """100 - 66.7 and 99.9 - 66.6 are 1.4e-14 apart."""
    found = [line(row, seed, test, train_top1=str(train)) for row, train, test in (("a", 99.9, 66.6), ("b", 100, 66.7)) for seed in range(3)]
    judged = verdict_on(of(Order(("a", "b"), metric="gap")), found)
    assert (judged.verdict, judged.decides.told()) == ("undecided", ("+0.0", "[+0.0, +0.0]"))


def test_a_bound_beside_0_is_not_told_as_0() -> None:
    assert [signed(x, 1) for x in (2.04, -0.04, 0.0145, 0.0, 0.0501, -1e-9)] == ["+2.0", "-0.04", "+0.01", "+0.0", "+0.1", "-0.000000"]


def test_an_order_needs_every_neighbour_and_names_the_weakest() -> None:
    values = {"a": [50, 51, 52], "b": [40, 42, 41], "c": [39, 43, 41]}
    chain = verdict_on(of(Order(("a", "b", "c"))), lines(**values))
    assert (chain.verdict, chain.decides.part.name) == ("undecided", "b over c")
    both = verdict_on(of(Order(("a", ("b", "c")))), lines(**values))
    assert both.verdict == "supported" and [part.rows for part in both.claim.parts()] == [("a", "b"), ("a", "c")]
    refuted = verdict_on(of(Order((("a", "b"), "c"))), lines(a=[50, 51, 52], b=[10, 11, 12], c=[40, 42, 41]))
    assert (refuted.verdict, refuted.decides.part.name) == ("refuted", "b over c")


def test_the_part_told_is_the_one_that_decides() -> None:
    """Not the one of the lowest mean, where that one is too wide to say anything."""
    values = {"a": [50, 52, 51], "b": [40, 80, 45], "c": [60, 62, 61]}
    refuted = verdict_on(of(Order(("a", ("b", "c")))), lines(**values | {"b": [30, 190, 50]}))
    assert (refuted.verdict, refuted.decides.part.name) == ("refuted", "a over c") and refuted.decides.difference.high < 0
    undecided = verdict_on(of(Order(("c", ("a", "b")))), lines(**values | {"b": [10, 70, 20]}))
    assert (undecided.verdict, undecided.decides.part.name) == ("undecided", "c over b") and undecided.decides.difference.low < 0


def test_accuracy_per_flop_divides_by_the_line_s_gmacs() -> None:
    cheap = [line("a", s, 30 + s, gmacs="0.1") for s in range(3)] + [line("b", s, 60 + s, gmacs="1.0") for s in range(3)]
    judged = verdict_on(of(Order(("a", "b"), metric="video_top1_per_gmac")), cheap)
    assert judged.verdict == "supported" and judged.decides.difference.mean == pytest.approx(310 - 61)
    assert judged.decides.part.unit == "points a GMAC"


def trained(row: str, tops: list[tuple[float, float]]) -> list[dict[str, str]]:
    return [line(row, seed, test, train_top1=str(train)) for seed, (train, test) in enumerate(tops)]


def test_finding_b_needs_lower_training_and_higher_test_accuracy() -> None:
    claim = of(Order(("r3d", "csn"), metric="train_top1"), Order(("csn", "r3d")))
    r3d = trained("r3d", [(90, 50), (91, 52), (92, 51)])
    regularised = trained("csn", [(80, 60), (81, 61), (82, 62)])
    assert verdict_on(claim, r3d + regularised).verdict == "supported"
    worse = trained("csn", [(80, 40), (81, 41), (82, 42)])  # fits less and predicts less: no regularisation
    found = verdict_on(claim, r3d + worse)
    assert (found.verdict, found.decides.part.name) == ("refuted", "csn over r3d")
    gap = of(Order(("r3d", "csn"), metric="gap"))
    assert verdict_on(gap, r3d + regularised).decides.difference.mean == pytest.approx(40 - 20)


def test_a_lead_that_shrinks_is_a_difference_of_differences() -> None:
    claim = of(Shrinks(wide=("a", "b"), narrow=("c", "d")))
    found = verdict_on(claim, lines(a=[50, 52, 51], b=[40, 41, 42], c=[70, 71, 72], d=[69, 69, 69]))
    assert verdict_on(claim, lines(a=[50], b=[40], c=[70], d=[69])).decides.difference.mean == 9.0
    assert found.decides.difference.mean == pytest.approx(10 - 2) and found.verdict == "supported"
    assert verdict_on(claim, lines(a=[50, 52, 51], b=[40, 41, 42], c=[70, 71, 72])).decides.n == "0 of 3"
    assert found.decides.part.name == "(a - b) over (c - d)"
    [gap] = of(Shrinks(wide=("a", "b"), narrow=("c", "d"), metric="gap")).parts()
    assert gap.name == "gap: (a - b) over (c - d)"
    tops = dict(zip("abcd", [(90, 50), (80, 60), (95, 70), (90, 75)], strict=True))
    assert gap.number({row: line(row, 0, test, train_top1=str(train)) for row, (train, test) in tops.items()}) == (40 - 20) - (25 - 15)


def costly(row: str, tops: list[float], gmacs: float, interactions: float) -> list[dict[str, str]]:
    return [line(row, seed, top, gmacs=str(gmacs), interactions_m=str(interactions)) for seed, top in enumerate(tops)]


def test_what_predicts_better_is_a_difference_of_rank_correlations() -> None:
    claim = of(Predicts(("a", "b", "c"), better="interactions_m", worse="gmacs"))
    follows = costly("a", [10, 11, 12], 3, 1) + costly("b", [20, 21, 22], 1, 2) + costly("c", [30, 31, 32], 2, 3)
    found = verdict_on(claim, follows)
    assert found.verdict == "supported" and [one.told() for one in found.parts] == [("+1.50", "[+1.50, +1.50]"), ("+1.00", "[+1.00, +1.00]")]
    less = costly("a", [10, 11, 12], 1, 2) + costly("b", [20, 21, 22], 3, 3) + costly("c", [15, 16, 17], 2, 1)
    assert verdict_on(claim, less).verdict == "refuted" and verdict_on(claim, less).decides.told()[0] == "-0.50"
    neither = costly("a", [30, 31, 32], 1, 1) + costly("b", [20, 21, 22], 3, 2) + costly("c", [25, 26, 27], 2, 3)
    found = verdict_on(claim, neither)
    assert found.verdict == "refuted" and found.decides.part.name == "interactions"
    equal = costly("a", [10, 10, 10], 3, 1) + costly("b", [10, 10, 10], 1, 2) + costly("c", [10, 10, 10], 2, 3)
    found = verdict_on(claim, equal)
    assert (found.verdict, found.decides.n, found.decides.note) == ("undecided", "3", UNDEFINED) and found.decides.name.endswith(f"; {UNDEFINED}")


def made_up(table: Table, home: Path) -> None:
    """The planned seeds of every row that small holds, written as its CSV: accuracies that grow with the row's place."""
    out, places = [], list(dict.fromkeys(row.label for row, _ in runs_of(table.rows, SMALL, (0,))))
    for row, planned in runs_of(table.rows, SMALL):
        i, seed = places.index(row.label), planned.seed
        facts = {"table": table.name, "block": planned.variant.block, "depth": str(planned.variant.depth), "train_top1": str(90 - i + seed / 10)}
        out.append(line(row.label, seed, 40 + i * i / 9 + seed / 7, gmacs=str(1 + i), interactions_m=str(9 - i), run=planned.name, **facts))
    write_lines(csv_path(table, SMALL, home), out)


COMMITTED = [(table.name, scale) for scale in ("small", "photo") for table in every_table() if table.claims]


@pytest.mark.parametrize(("name", "scale"), COMMITTED)
def test_deleting_any_committed_line_empties_a_cell_and_undecides_its_claims(name: str, scale: str) -> None:
    """Each line in turn: nothing is taken over fewer seeds than planned."""
    whole = read(table_of(name), recipe_of(scale))
    before, sheet = {one.claim.text: one for one in whole.judged()}, accuracies(whole, whole.table.rows)
    cells = {row[0]: row[1:] for row in sheet.rows}
    first, last = sheet.columns.index("M inter"), sheet.columns.index("n") - 1
    assert [len(whole.of(row.label)) for row in whole.table.rows] == [len(whole.planned[row.label]) for row in whole.table.rows]
    for gone in whole.lines:
        results = replace(whole, lines=[one for one in whole.lines if one is not gone])
        for row, *found in accuracies(results, results.table.rows).rows:
            if row == gone["row"]:
                planned = len(whole.planned[row])
                assert found[:first] == list(cells[row][:first]) and found[last] == f"{planned - 1} of {planned}"
                assert set(found[first:last]) == {""} and "" not in cells[row][first:last]
            else:
                assert tuple(found) == cells[row]
        judged = {one.claim.text: one for one in results.judged()}
        assert judged.keys() == before.keys()
        for claim, one in judged.items():
            if any(gone["row"] in part.rows for part in one.claim.parts()):
                assert (one.verdict, one.decides.told()) == ("undecided", ("", "")) and " of " in one.decides.n
            else:
                assert (one.verdict, one.decides.told()) == (before[claim].verdict, before[claim].decides.told())
        [sentence] = reasons(results, results.table.rows)[len(reasons(whole, whole.table.rows)) :]
        assert sentence.startswith(f"{gone['row']}: seed {gone['seed']} is missing; run it, or --seeds ") and sentence.endswith(" shows the others.")
    assert "nan" not in text(results).lower() and " 0.0 " not in text(results)  # of the last one
    for figure in whole.table.figures:  # of the last one, drawn without its row
        drawn = getattr(plots, figure)(results)
        assert drawn.axes
        plt.close(drawn)
    assert gone["row"] not in set(plots.summary(results.complete, "video_top1").row) != set()


def test_a_row_of_no_lines_is_empty_and_says_so(tmp_path: Path) -> None:
    table = table_of("table3_groups")
    made_up(table, tmp_path)
    path = csv_path(table, SMALL, tmp_path)
    write_lines(path, [one for one in read_lines(path) if one["row"] != "simple"])
    results = read(table, SMALL, tmp_path)
    assert set(accuracies(results, table.rows).rows[0]) == {"simple", ""}
    assert reasons(results, table.rows) == ["simple: seeds 0 1 2 3 4 5 6 7 8 9 are missing; run them."]


def test_seeds_asked_for_are_the_planned_ones_then(tmp_path: Path) -> None:
    table = table_of("table3_groups")
    made_up(table, tmp_path)
    results = replace(read(table, SMALL, tmp_path), seeds=(1,))
    cells = dict(zip(accuracies(results, table.rows).columns, accuracies(results, table.rows).rows[0], strict=True))
    assert (cells["video@1"], cells["n"]) == (f"{40 + 1 / 7:.1f}", "1") and not reasons(results, table.rows)
    assert {one.verdict for one in results.judged()} == {"undecided"}


def test_a_committed_line_deleted_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "results" / "photo" / "table4_regularization.csv"
    path.parent.mkdir(parents=True)
    lines = (REPOSITORY / path.relative_to(tmp_path)).read_text().splitlines(keepends=True)
    path.write_text("".join(one for one in lines if not one.startswith("table4_regularization,ir-CSN-50,3,")))
    done = run("experiments/table4_regularization.py", "--show", "--scale", "photo", "--home", tmp_path)
    told = " ".join(done.stdout.split())
    assert done.returncode == 0 and "19 of 20" in told and "supported " not in told and "refuted" not in told.replace("; refuted:", "")
    there = [str(seed) for seed in range(20) if seed != 3]
    assert f"ir-CSN-50: seed 3 is missing; run it, or --seeds {' '.join(there)} shows the others." in told
    again = run("experiments/table4_regularization.py", "--show", "--scale", "photo", "--home", tmp_path, "--seeds", *there)
    assert again.returncode == 0 and "is missing; run" not in again.stdout and "19 of 20" not in again.stdout


def test_the_ledger_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in every_table():
        if table.claims:
            made_up(table, tmp_path)
    assert main(["--home", str(tmp_path)]) == 0
    found = list(csv.DictReader((tmp_path / "results" / "small" / "claims.csv").read_text().splitlines()))
    assert len(found) == sum(not read(table, SMALL).beyond(claim) for table in every_table() for claim in table.claims)
    assert {entry["scale"] for entry in found} == {"small"} and all(entry["n"] == entry["planned"] in ("3", "10", "20") for entry in found)
    assert all(float(entry["low"]) <= float(entry["difference"]) <= float(entry["high"]) for entry in found if entry["unit"] != "GMACs")
    parts = list(csv.DictReader((tmp_path / "results" / "small" / "claims_parts.csv").read_text().splitlines()))
    for entry in found:
        own = [part for part in parts if part["claim"] == entry["claim"]]
        assert len(own) == sum(len(claim.parts()) for table in every_table() for claim in table.claims if claim.text == entry["claim"])
        assert {name: entry[name] for name in own[0]} in own  # the deciding one
    page = (tmp_path / "results" / "claims.md").read_text()
    assert all(entry["claim"] in page for entry in found)
    assert "Spearman" in page and "supported" in capsys.readouterr().out


def test_the_ledger_has_a_line_a_claim_and_a_column_a_scale(tmp_path: Path) -> None:
    for table in every_table():
        if table.claims:
            made_up(table, tmp_path)
    found = ledger(tmp_path, ("small", "paper"))
    whole, parts = ledger_sheet(found), parts_sheet(found)
    assert whole.columns == ("table", "claim", "small", "paper") and len({row[1] for row in whole.rows}) == len(whole.rows)
    cells = {row[1]: row[2:] for row in whole.rows}
    for results, one in found.judged:
        told = cells[one.claim.text][0 if results.recipe.scale == "small" else 1]
        n = "counted" if one.decides.part.counted and one.decides.seeds else f"n {one.decides.n}"
        assert told.startswith(f"{one.verdict}: ") and told.endswith(n) and difference(one.decides) in told
        (deciding,) = (row for row in parts.rows if row[1:3] == (one.claim.text, results.recipe.scale) and row[-1])
        assert deciding[3:] == (one.decides.name, difference(one.decides), one.decides.n, one.verdict)
    assert {verdict.partition(":")[0] for verdict, _ in cells.values()} == {"supported", "refuted", ""}
    deep = next(claim for claim in cells if "101" in claim)
    assert cells[deep] == ("", "undecided: n 0 of 1") and any(deep in sentence for sentence in found.left_out)  # what small cannot hold


def test_the_ledger_is_of_the_scales_with_results_but_never_of_smoke(tmp_path: Path) -> None:
    """Whose accuracies mean nothing."""
    for scales, found in (((), ["small"]), (("smoke",), ["small"]), (("photo",), ["photo"]), (("small",), ["small", "photo"])):
        for scale in scales:
            write_lines(csv_path(table_of("table3_groups"), recipe_of(scale), tmp_path), [])
        assert scales_with_results(tmp_path) == found


def test_a_ledger_of_some_seeds_tells_every_part_and_writes_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results" / "small"
    results.mkdir(parents=True)
    shutil.copy(csv_path(table_of("table4_regularization"), SMALL, REPOSITORY), results)
    done = run("-m", "csn.claims", "--home", tmp_path, "--seeds", *range(5, 20), COLUMNS="300")
    assert done.returncode == 0 and [path.name for path in results.iterdir()] == ["table4_regularization.csv"], done.stderr
    told = [" ".join(line.split()) for line in done.stdout.splitlines() if "ip-CSN-50 over ResNet3D-50" in line]
    lines = read(table_of("table4_regularization"), SMALL)
    tops = {name: {int(one["seed"]): float(one["video_top1"]) for one in lines.of(name)} for name in ("ip-CSN-50", "ResNet3D-50")}
    found = interval([tops["ip-CSN-50"][seed] - tops["ResNet3D-50"][seed] for seed in range(5, 20)])
    assert any(f" {found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}] 15" in line for line in told), done.stdout


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
    written = [path.relative_to(tmp_path) for path in [*tmp_path.glob("results/*/claims*.csv"), tmp_path / "results" / "claims.md"]]
    assert all((REPOSITORY / path).read_bytes() == (tmp_path / path).read_bytes() for path in written), "run python -m csn.claims"


def test_a_cell_is_never_wider_than_its_column() -> None:
    assert [cell(interval(values)) for values in ([], [83.06], [83.0, 83.2, 83.1], [5.0, 44.0], [0.0, 20.0])] == [
        "", "83.1", "83.1 ±0.2", "24.5 ±248", "10.0 ±127",
    ]  # fmt: skip
    assert cell(interval([20.0, 21.5])) == "20.8 ±9.5" and cell(interval([20.0, 21.6])) == "20.8 ±10"
