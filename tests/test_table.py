"""From records to CSV and table: missing is an empty cell, a failure is a row that says why."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import run
from made_videos import write_folder
from rich.console import Console

from csn import cli, plots, sheet
from csn.claims import METRICS, Claim, Order, Predicts, Shrinks
from csn.collect import COLUMNS, CURVES, WORDS, Results, collect, csv_path, curves_path, read, read_lines, superseded
from csn.complexity import complexity
from csn.data.media import listing
from csn.data.scan import index_file, scan
from csn.ledger import ledger, ledger_sheet, verdicts
from csn.plan import plan, published_in, seconds_of, state_of, timed_lines
from csn.provenance import REPOSITORY
from csn.recipes import PAPER, SMALL, SMOKE, recipe_of
from csn.records import folder_of
from csn.show import HEADS, compared, reasons, render, sheets
from csn.spec import Recipe, UserError, Variant, VideoSet
from csn.table import COSTS, SHOWN, Quoted, Row, Table, cost_key, count_costs, every_table, planned_costs, runs_of, table_of

sys.path.insert(0, str(REPOSITORY / "experiments"))
import table2_interactions
import table3_groups
import table4_regularization
import table4_schedules
import table4_sizes

ROWS = (
    Row(label="a", variant=Variant(block="simple", depth=18), paper_top1=Quoted(65.3, recalled=True)),
    Row(label="b", variant=Variant(block="simple-D", depth=18)),
    Row(label="g", variant=Variant(block="bottleneck-G", groups=16)),
)
CLAIM = Claim(text="a is above b", source="made up", tests=(Order(("a", "b")),))
TABLE = Table(name="tiny_table", title="Tiny", rows=ROWS, claims=(CLAIM,), figures=("tradeoffs",))
HISTORY = [{"epoch": 1, "lr": 0.05, "loss": 4.4, "clip_top1": 1.5}, {"epoch": 2, "lr": 0.0, "loss": 4.2, "clip_top1": 3.0}]


def line(row: str, seed: int, top1: float | None, **cells: str) -> dict[str, str]:
    content = {"row": row, "seed": str(seed), "video_top1": "" if top1 is None else str(top1), "gmacs": "0.5", "params_m": "1", "interactions_m": "2",
               "block": "simple", "depth": "18", "frames": "4", "crop": "32"}  # fmt: skip
    return {name: content.get(name, "") for name in COLUMNS} | cells


def lines(**values: list[float | None]) -> list[dict[str, str]]:
    return [line(row, seed, top1) for row, tops in values.items() for seed, top1 in enumerate(tops)]


def put(home: Path, row: Row, seed: int, **record: object) -> str:
    [(_, run)] = runs_of([row], SMOKE, (seed,))
    folder = folder_of(run, home)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"run": run.name, "commit": "abc", "device": "cpu", **record}))
    return run.name


def forget(home: Path, row: Row, seed: int) -> None:
    (folder_of(runs_of([row], SMOKE, (seed,))[0][1], home) / "record.json").unlink()


def test_collecting_merges_records_with_lines_that_came_along(tmp_path: Path) -> None:
    """A line without a record here is kept; a record replaces it; a line of a run that is no longer planned is set aside."""
    first = put(tmp_path, ROWS[0], 0, video_top1=12.5, flops=2_000_000)
    collect(TABLE, SMOKE, tmp_path)
    forget(tmp_path, ROWS[0], 0)
    second = put(tmp_path, ROWS[1], 2, video_top1=8.25)
    results, troubles = collect(TABLE, SMOKE, tmp_path)
    found = results.lines
    assert [(entry["run"], entry["video_top1"]) for entry in found] == [(first, "12.500"), (second, "8.250")] and not troubles
    assert found[0]["gmacs"] == "0.002000" and found[1]["gmacs"] == ""
    assert read_lines(csv_path(TABLE, SMOKE, tmp_path)) == found
    other = replace(TABLE, rows=ROWS[1:], claims=())
    left = collect(other, SMOKE, tmp_path)[0]
    assert [entry["run"] for entry in left.lines] == [second] and left.superseded == 1
    assert read_lines(superseded(csv_path(TABLE, SMOKE, tmp_path))) == found[:1]
    assert collect(other, SMOKE, tmp_path)[0].superseded == 0 and read_lines(superseded(csv_path(TABLE, SMOKE, tmp_path))) == found[:1]


def test_learning_curves_are_collected_and_kept_with_their_line(tmp_path: Path) -> None:
    table = replace(TABLE, curves=True)
    put(tmp_path, ROWS[0], 0, video_top1=12.5, history=HISTORY)
    put(tmp_path, ROWS[1], 0, error="the loss is nan")
    results, _ = collect(table, SMOKE, tmp_path)
    assert curves_path(table, SMOKE, tmp_path).name == "tiny_table_curves.csv"
    [head, *rows] = csv.reader(curves_path(table, SMOKE, tmp_path).read_text().splitlines())
    assert head == list(CURVES) and len(rows) == 2
    assert rows[0] == ["tiny_table", "a", "0", "1", "0.050000", "4.40000", "1.500"]
    forget(tmp_path, ROWS[0], 0)
    assert collect(table, SMOKE, tmp_path)[0].curves == results.curves == read(table, SMOKE, tmp_path).curves
    fewer = replace(table, rows=ROWS[1:], claims=())
    known = read(fewer, SMOKE, tmp_path)
    assert known.superseded == 1 and known.curves == [] and "since its rows or recipe changed, are left out: 1." in reasons(known, fewer.rows)[-1]
    assert collect(fewer, SMOKE, tmp_path)[0].curves == []
    assert read_lines(superseded(curves_path(table, SMOKE, tmp_path)), CURVES) == results.curves


def test_rows_that_share_a_run_keep_their_lines_each(tmp_path: Path) -> None:
    """In a fresh clone, too, where records are none."""
    table = replace(TABLE, curves=True, rows=(ROWS[0], ROWS[1], replace(ROWS[0], label="a again")))
    for row in ROWS[:2]:
        put(tmp_path, row, 0, video_top1=12.5, history=HISTORY)
    results, _ = collect(table, SMOKE, tmp_path)
    assert [entry["row"] for entry in results.lines] == ["a", "b", "a again"] and len(results.curves) == 6
    for row in ROWS[:2]:
        forget(tmp_path, row, 0)
    assert collect(table, SMOKE, tmp_path) == (results, []) and read(table, SMOKE, tmp_path) == results
    fewer = replace(table, rows=ROWS[1:], claims=())
    assert collect(fewer, SMOKE, tmp_path)[0].superseded == 2
    assert [entry["row"] for entry in read_lines(superseded(csv_path(table, SMOKE, tmp_path)))] == ["a", "a again"]


def test_a_row_of_another_name_keeps_its_lines(tmp_path: Path) -> None:
    table = replace(TABLE, curves=True)
    put(tmp_path, ROWS[0], 0, video_top1=12.5, history=HISTORY)
    before, _ = collect(table, SMOKE, tmp_path)
    forget(tmp_path, ROWS[0], 0)
    renamed = replace(table, rows=(replace(ROWS[0], label="plain"), *ROWS[1:]), claims=())
    for _ in range(2):
        results, _ = collect(renamed, SMOKE, tmp_path)
        assert results.lines == [{**before.lines[0], "row": "plain"}] and not results.superseded
        assert results.curves == [{**one, "row": "plain"} for one in before.curves]
    assert not superseded(csv_path(table, SMOKE, tmp_path)).exists()


def test_a_line_that_is_there_twice_is_named(tmp_path: Path) -> None:
    """As merging two files may leave it: it would count twice in a mean."""
    put(tmp_path, ROWS[0], 0, video_top1=12.5, history=HISTORY)
    table = replace(TABLE, curves=True)
    collect(table, SMOKE, tmp_path)
    for path in (csv_path(table, SMOKE, tmp_path), curves_path(table, SMOKE, tmp_path)):
        whole = path.read_text()
        path.write_text(whole + whole.splitlines()[-1] + "\n")
        for way in (collect, read):
            with pytest.raises(UserError, match=rf"Line {len(whole.splitlines()) + 1} of {path} is of the same run as line \d \(a, seed 0\); delete one"):
                way(table, SMOKE, tmp_path)
        path.write_text(whole)


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    table = replace(TABLE, curves=True)
    put(tmp_path, ROWS[0], 0, video_top1=12.5, history=HISTORY)
    collect(table, SMOKE, tmp_path)

    def files() -> list[tuple[int, int]]:
        """Which files they are (a new one takes the place of what is written), and when they were written."""
        found = [path(table, SMOKE, tmp_path).stat() for path in (csv_path, curves_path)]
        return [(one.st_ino, one.st_mtime_ns) for one in found]

    before = files()
    collect(table, SMOKE, tmp_path)
    assert files() == before
    put(tmp_path, ROWS[1], 0, video_top1=13.5, history=HISTORY)
    collect(table, SMOKE, tmp_path)
    assert all(new != old for new, old in zip(files(), before, strict=True))


def test_a_line_that_is_set_aside_twice_stands_there_once(tmp_path: Path) -> None:
    """Its CSV is checked out again, and its row is still gone."""
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    put(tmp_path, ROWS[1], 0, video_top1=13.5)
    collect(TABLE, SMOKE, tmp_path)
    path = csv_path(TABLE, SMOKE, tmp_path)
    committed, other = path.read_bytes(), replace(TABLE, rows=ROWS[1:], claims=())
    for _ in range(2):
        path.write_bytes(committed)
        assert collect(other, SMOKE, tmp_path)[0].superseded == 1
    assert [one["row"] for one in read_lines(superseded(path))] == ["a"]


def test_a_run_that_ended_well_once_keeps_its_line_when_it_is_killed_the_next_time(tmp_path: Path) -> None:
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    put(tmp_path, ROWS[1], 0, error="killed by signal 9", retry=True)
    first, troubles = collect(TABLE, SMOKE, tmp_path)
    assert [one["error"] for one in first.lines] == ["", "killed by signal 9"] and not troubles  # no line before: this one says why
    shutil.rmtree(tmp_path / "runs")
    put(tmp_path, ROWS[0], 0, error="killed by signal 9", retry=True)
    again, troubles = collect(TABLE, SMOKE, tmp_path)
    assert again.lines == first.lines and troubles == ["a seed 0, run again: killed by signal 9; its line of the run before stays."]
    shutil.rmtree(tmp_path / "runs")
    put(tmp_path, ROWS[0], 0, error="the loss is nan")  # an end that would come again is its result
    assert [one["error"] for one in collect(TABLE, SMOKE, tmp_path)[0].lines] == ["the loss is nan", "killed by signal 9"]


def test_claims_are_judged_on_all_rows_whatever_rows_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        for k, row in enumerate(ROWS[:2]):
            put(tmp_path, row, seed, video_top1=90.0 - 5 * k + seed * (1 + k))
    table = replace(TABLE, claims=(*TABLE.claims, Claim(text="another", source="", tests=(Order(("b", "a")),))), figures=())
    texts = {}
    for only in ([], ["--only", "a"]):
        assert cli.main(table, ["--show", "--scale", "smoke", "--seeds", "0", "1", "2", "--home", str(tmp_path), *only]) == 0
        texts[bool(only)] = " ".join(capsys.readouterr().out.split("Claims")[1].split("difference:")[0].split())
    assert texts[True] == texts[False] and "supported" in texts[True] and "refuted" in texts[True]
    wide = replace(table, rows=(*ROWS, replace(ROWS[0], label="c", variant=replace(ROWS[0].variant, width=16))))
    assert cli.main(wide, ["--show", "--scale", "smoke", "--home", str(tmp_path), "--only", "c"]) == 0
    assert "Claims" not in capsys.readouterr().out  # none names it


def test_curves_are_taken_over_with_the_lines_of_shared_runs(tmp_path: Path) -> None:
    first = table4_regularization.TABLE
    put(tmp_path, first.rows[0], 0, video_top1=12.5, history=HISTORY)
    collect(first, SMOKE, tmp_path)
    shutil.rmtree(tmp_path / "runs")
    own = replace(first, name="table7_mine", rows=first.rows[:2], claims=())
    found = collect(own, SMOKE, tmp_path)[0]
    assert [one["table"] for one in (*found.lines, *found.curves)] == ["table7_mine"] * 3 and [one["loss"] for one in found.curves] == ["4.40000", "4.20000"]
    assert collect(own, SMOKE, tmp_path)[0].curves == found.curves == read(own, SMOKE, tmp_path).curves


def test_a_table_s_own_curve_counts_before_that_of_another_table(tmp_path: Path) -> None:
    """The same run, made twice: each table keeps the curve that it has a line for."""
    first = table4_regularization.TABLE
    own = replace(first, name="table7_mine", rows=first.rows[:1], claims=())
    for table, loss in ((first, 4.4), (own, 3.3)):
        put(tmp_path, first.rows[0], 0, video_top1=12.5, history=[HISTORY[0] | {"loss": loss}])
        collect(table, SMOKE, tmp_path)
        shutil.rmtree(tmp_path / "runs")
    assert [[one["loss"] for one in collect(table, SMOKE, tmp_path)[0].curves] for table in (first, own)] == [["4.40000"], ["3.30000"]]


def test_tables_are_told_by_their_whole_number() -> None:
    assert [replace(TABLE, name=name).number for name in ("table4_sizes", "table10_mine", "tiny_table")] == [4, 10, 0]
    assert [table.number for table in every_table()] == [1, 2, 3, 4, 4, 4, 5]


def test_a_wrong_table_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"`rows` \(=a\) of tiny_table must have different labels"):
        replace(TABLE, rows=(ROWS[0], ROWS[0]))
    with pytest.raises(UserError, match=r"`claims` \(=z\) must name rows of tiny_table, which are a, "):
        replace(TABLE, claims=(Claim(text="", source="", tests=(Order(("a", "z")),)),))
    with pytest.raises(UserError, match=r"`metrics` \(=video_top5\) of tiny_table must be of train_top1, "):
        replace(TABLE, metrics=("video_top5",))
    with pytest.raises(UserError, match=r"`claims` \(=all\) of tiny_table must compare two rows at least"):
        replace(TABLE, claims=(Claim(text="all", source="", tests=(Order((("a", "b"),)),)),))
    assert set(SHOWN) == set(HEADS)
    assert set(METRICS) == set(COLUMNS) - WORDS - {"seed", "video_top1_low", "video_top1_high"} | {"gap", "video_top1_per_gmac"}
    for wrong in (
        lambda: Order(("a", "b"), metric="accuracy"),
        lambda: Shrinks(("a", "b"), ("a", "g"), metric="accuracy"),
        lambda: Predicts(("a", "b", "g"), better="accuracy", worse="gmacs"),
    ):
        with pytest.raises(UserError, match=r"`metric` \(=accuracy\) of a claim must be one of train_top1, "):
            wrong()
    monkeypatch.setattr("csn.runner.run_all", lambda *_: pytest.fail("it trains before it looks"))
    for figure in ("nope", "LEAST"):
        own = replace(TABLE, figures=(figure,), claims=())
        assert cli.main(own, ["--scale", "smoke", "--home", str(tmp_path)]) == 2
        assert f"`figures` (={figure}) of tiny_table must be a function of csn.plots." in " ".join(capsys.readouterr().err.split())
    (tmp_path / "experiments").mkdir()
    monkeypatch.setattr("csn.table.REPOSITORY", tmp_path)
    own = 'from csn.table import Row, Table\nfrom csn.spec import Variant\nTABLE = Table(name="{}", title="", rows=(Row(label="a", variant=Variant({})),))\n'
    for name, content, sentence in (
        ("table71_copied", own.format("table3_groups", ""), r"The `name` \(=table3_groups\) of the table in .*table71_copied.py must be table71_copied"),
        ("table72_groups", own.format("table72_groups", "groups=3"), r"experiments/table72_groups.py cannot be used \(UserError: `groups` \(=3\)"),
        ("table73_comma", "TABLE = (,)\n", r"experiments/table73_comma.py cannot be used \(SyntaxError: .*; mend it, or move it away"),
    ):
        (tmp_path / "experiments" / f"{name}.py").write_text(content)
        with pytest.raises(UserError, match=sentence):
            table_of(name)
        sys.modules.pop(name, None)


def test_rows_of_one_network_share_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would find each other at work on it."""
    seen = list[list[str]]()
    monkeypatch.setattr("csn.runner.run_all", lambda work, *_: seen.append([label for label, _, _ in work]) or ([], False))
    own = replace(TABLE, rows=(ROWS[0], replace(ROWS[0], label="again"), ROWS[1]), claims=(), figures=())
    cli.main(own, ["--scale", "smoke", "--seeds", "0", "1", "--home", str(tmp_path), "--data", str(data)])
    assert seen == [["a", "b", "a", "b"]]


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """rich reads [wide] as a style, and [/wide] as the end of one that nobody began."""
    own = replace(TABLE, title="Tiny [mine]", rows=(replace(ROWS[0], label="a [wide]"), replace(ROWS[1], label="b [/wide]")), claims=(), figures=())
    assert cli.main(own, ["--plan", "--scale", "smoke", "--home", str(tmp_path), "--data", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "Tiny [mine]: plan at" in told and "a [wide]" in told and "b [/wide]" in told


def test_new_counts_go_to_the_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = COSTS.read_bytes()
    rare = replace(TABLE, rows=(Row(label="deep", variant=Variant(block="ip", depth=101, interior_relu=True)),), claims=(), scale="sports1m", figures=())
    assert cli.main(rare, ["--show", "--home", str(tmp_path)]) == 0
    assert COSTS.read_bytes() == before and len(json.loads((tmp_path / "results/costs.json").read_text())) > 0
    capsys.readouterr()
    assert cli.main(rare, ["--plan", "--home", str(tmp_path), "--data", str(tmp_path)]) == 0
    assert "Empty cost cells" not in capsys.readouterr().out
    assert cli.main(rare, ["--plan", "--home", str(tmp_path / "other"), "--data", str(tmp_path)]) == 0
    assert "Empty cost cells" in capsys.readouterr().out


def test_the_csv_has_the_agreed_columns_and_no_zero_for_missing(tmp_path: Path) -> None:
    put(tmp_path, ROWS[0], 0, error="the loss is nan in epoch 1 of 2, by step 1 of 4", dirty="1234")
    collect(TABLE, SMOKE, tmp_path)
    [found] = csv.DictReader(csv_path(TABLE, SMOKE, tmp_path).read_text().splitlines())
    assert list(found) == list(COLUMNS)
    assert found["video_top1"] == found["seconds"] == found["gmacs"] == found["auc"] == ""
    assert found["error"].startswith("the loss is nan") and found["commit"] == "abc-dirty"


def test_a_damaged_record_is_named_and_the_rest_collected(tmp_path: Path) -> None:
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    put(tmp_path, ROWS[1], 0, video_top1=3.0)
    record = folder_of(runs_of([ROWS[1]], SMOKE, (0,))[0][1], tmp_path) / "record.json"
    record.write_text("{")
    results, troubles = collect(TABLE, SMOKE, tmp_path)
    assert [entry["row"] for entry in results.lines] == ["a"]
    assert len(troubles) == 1 and str(record) in troubles[0]


def test_a_foreign_csv_is_refused(tmp_path: Path) -> None:
    path = csv_path(TABLE, SMOKE, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match="is not a results file"):
        collect(TABLE, SMOKE, tmp_path)


def test_a_line_of_a_merge_conflict_is_named(tmp_path: Path) -> None:
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    collect(TABLE, SMOKE, tmp_path)
    path = csv_path(TABLE, SMOKE, tmp_path)
    path.write_text(path.read_text() + "<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"Line 3 of .*tiny_table\.csv is damaged \(its seed is ''\); mend or delete it"):
        collect(TABLE, SMOKE, tmp_path)


def test_a_rerun_is_compared_with_the_committed_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every row with a record in another home; the others came with the repository."""
    repository, home = tmp_path / "repository", tmp_path / "again"
    put(repository, ROWS[0], 0, video_top1=83.25, video_top1_interval={"low": 80.75, "high": 85.875, "n": 800}, device="A")
    put(repository, ROWS[1], 0, video_top1=50.0, device="A")
    put(home, ROWS[0], 0, video_top1=83.375, device="B")
    put(home, ROWS[1], 0, video_top1=50.0, device="B")
    collect(TABLE, SMOKE, repository)
    monkeypatch.setattr(cli, "REPOSITORY", repository)
    flags = ["--show", "--scale", "smoke", "--home"]
    assert cli.main(TABLE, [*flags, str(home)]) == 0
    told = capsys.readouterr().out
    assert "a seed 0: video@1 83.375, committed 83.250 on A: within [80.750, 85.875], 95 % over test videos.\n" in told
    assert "b seed 0: video@1 50.000, committed 50.000 on A: equal.\n" in told
    assert cli.main(TABLE, [*flags, str(repository)]) == 0 and "committed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ours", "bounds", "others", "words"),
    [
        ("90.0", ("80.0", "85.0"), [], "committed 83.25 on : outside [80.0, 85.0], 95 % over test videos."),
        ("90.0", ("80.0", "85.0"), [70.0], "committed 83.25 on : outside [80.0, 85.0], 95 % over test videos."),
        ("82.0", ("", ""), [], "committed 83.25 on : differs by -1.250 points."),
        ("", ("80.0", "85.0"), [], "video@1 missing, committed 83.25 on : cannot be compared."),
        # Student, 2 degrees of freedom: 82 +- 4.3027 * 1.25 * sqrt(4 / 3)
        ("88.0", ("80.0", "85.0"), [80.75, 82.0], "committed 83.25 on : within [75.8, 88.2], 95 % of one more run, 3 seeds."),
        ("88.3", ("80.0", "85.0"), [80.75, 82.0], "committed 83.25 on : outside [75.8, 88.2], 95 % of one more run, 3 seeds."),
    ],
)
def test_a_rerun_may_lie_within_or_outside_or_have_nothing_to_lie_in(ours: str, bounds: tuple[str, str], others: list[float], words: str) -> None:
    committed = [line("a", 0, 83.25, video_top1_low=bounds[0], video_top1_high=bounds[1], run="a-s0")]
    committed += [line("a", seed, top1, run=f"a-s{seed}") for seed, top1 in enumerate(others, 1)]
    assert compared(line("a", 0, None, video_top1=ours, run="a-s0"), committed).endswith(words)


def test_whoever_deletes_a_record_runs_it_again(tmp_path: Path) -> None:
    """A line of the CSV stands for a run that is not here at all, and for none that failed."""
    [(_, first), (_, second)] = runs_of(ROWS[:2], SMOKE, (0,))
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    put(tmp_path, ROWS[1], 0, error="the loss is nan")
    collect(TABLE, SMOKE, tmp_path)
    assert published_in(TABLE, SMOKE, tmp_path) == {first.name}
    assert [state_of(run, tmp_path, {first.name}) for run in (first, second)] == ["done", "failed"]
    for row in ROWS[:2]:
        forget(tmp_path, row, 0)
    assert [state_of(run, tmp_path, {first.name}) for run in (first, second)] == ["missing", "missing"]
    folder_of(first, tmp_path).rmdir()
    assert state_of(first, tmp_path, {first.name}) == "published"


def test_figures_are_of_all_rows_whatever_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Results] = []
    monkeypatch.setattr(plots, "tradeoffs", drawn.append)
    monkeypatch.setattr(plots, "save", lambda figure, target: [target])
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    put(tmp_path, ROWS[1], 0, video_top1=13.5)
    results, _ = collect(replace(TABLE, figures=("tradeoffs",)), SMOKE, tmp_path)
    text = io.StringIO()
    render(results, replace(results, lines=results.lines[:1]), ROWS[:1], tmp_path, Console(file=text, width=80))
    assert drawn == [results] and "12.5" in text.getvalue() and "13.5" not in text.getvalue()


def printed(found: list[dict[str, str]], home: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> str:
    text = io.StringIO()
    results = Results(replace(TABLE, figures=()), SMOKE, found, seeds=seeds)
    render(results, results, TABLE.rows, home, Console(file=text, width=80))
    return text.getvalue()


def test_the_printed_table_shows_means_intervals_failures_and_the_dagger(tmp_path: Path) -> None:
    found = [*lines(a=[50, 51, 52], b=[40, 42]), line("b", 2, None, error="the loss is nan")]
    text = printed(found, tmp_path)
    assert "51.0 ±2.5" in text and "65.3†" in text and "2 of 3" in text and "41.0" not in text
    assert "b: seed 2 failed: the loss is nan" in text and "b: seed 2 is missing; run it, or --seeds 0 1 shows the others." in text
    assert "41.0 ±13" in printed(found, tmp_path, (0, 1))
    assert "g: `groups` (=16) must divide `width` (=8)." in text
    assert "undecided" in text and "supported \n" not in text
    assert max(map(len, text.splitlines())) <= 80 and "where shown" in text
    assert "supported \n" in printed(lines(a=[50, 51, 52], b=[40, 42, 41]), tmp_path)


def test_figures_and_files_of_more_seeds_than_are_printed_say_so(tmp_path: Path) -> None:
    every = read(table_of("table2_interactions"), SMALL, REPOSITORY)
    for printed_seeds, told in (((0, 1), " (and .svg), of all planned seeds"), (None, " (and .svg)")):
        text = io.StringIO()
        render(every, replace(every, seeds=printed_seeds), every.table.rows, tmp_path, Console(file=text, width=80))
        figures = [line for line in text.getvalue().splitlines() if line.startswith("figure: ")]
        assert len(figures) == 2 and all(line.endswith(told) for line in figures)


@pytest.mark.parametrize("scale", ["small", "photo"])
@pytest.mark.parametrize("table", [table for table in every_table() if table.trains], ids=lambda table: table.name)
def test_the_committed_tables_are_whole_in_80_columns(table: Table, scale: str) -> None:
    first, *_ = sheets(read(table, recipe_of(scale), REPOSITORY), table.rows, narrow=True)
    text = io.StringIO()
    sheet.put(first, Console(file=text, width=80))
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert max(map(len, text.getvalue().splitlines())) <= 80
    if not first.text:
        for row in first.rows:
            assert any(line == " ".join(row).split() for line in lines), row


def test_what_is_too_wide_is_folded_not_cut_off() -> None:
    text = io.StringIO()
    sheet.put(sheet.Sheet("wide", ("row", "number"), [("a" * 30, "12345†")]), Console(file=text, width=30))
    assert text.getvalue().count("a") == 30 and "†" in text.getvalue()


def test_columns_of_words_share_a_line_without_breaking_a_word() -> None:
    words = sheet.Sheet("words", ("a", "number", "b"), [("one two three", "7", "x" * 12 + " and " + "y" * 20), ("four", "8", "z")], text=("a", "b"))
    assert sheet.widths(words, 0) == {0: 5, 2: 20} and sheet.widths(words, 9) == {0: 9, 2: 25} and sheet.widths(words, 100) == {0: 13, 2: 37}
    text = io.StringIO()
    sheet.put(words, Console(file=text, width=40))
    assert "y" * 20 in text.getvalue() and "x" * 12 in text.getvalue() and max(map(len, text.getvalue().splitlines())) <= 40
    nothing = replace(read(table_of("table3_groups"), SMALL, REPOSITORY), seeds=(0, 99))  # "1 of 2" beside empty cells
    for every in (ledger_sheet(ledger(REPOSITORY, ("small", "photo"))), verdicts(nothing.judged(), ())):
        text = io.StringIO()
        sheet.put(every, Console(file=text, width=80))
        assert {word for cells in (every.columns, *every.rows) for cell in cells for word in cell.split()} <= set(text.getvalue().split())
        assert max(map(len, text.getvalue().splitlines())) <= 80


def test_no_results_is_an_empty_table_not_zeros(tmp_path: Path) -> None:
    text = printed([], tmp_path)
    assert "0.0" not in text and "nan" not in text.lower()
    assert not list(tmp_path.rglob("*.png"))


def test_the_gap_is_measured_seed_by_seed() -> None:
    found = [line("a", seed, 50 + seed, train_top1=str(60 + 3 * seed)) for seed in range(3)] + [line("a", 3, None, train_top1="90")]
    gap = Results(TABLE, SMOKE, found, seeds=(0, 1, 2)).measured("a", "gap")
    assert (gap.mean, gap.n) == (pytest.approx(12), 3)
    assert Results(TABLE, SMOKE, found, seeds=(0, 1, 2, 3)).measured("a", "gap").n == 0  # one has no gap: there is no mean of all planned


def test_what_a_scale_cannot_hold_is_one_sentence() -> None:
    deep = next(row for row in table2_interactions.TABLE.rows if row.label == "ip-CSN-152")
    for scale in ("smoke", "small"):
        assert deep.unfit(recipe_of(scale)) == f"depth 152 is too deep for scale {scale}, which holds depths up to 50; scale paper holds it."
        assert runs_of([deep], recipe_of(scale), (0,)) == []
    assert deep.unfit(recipe_of("paper")) is None
    own = Row(label="own", variant=Variant(depth=50), recipe=recipe_of("paper"))
    assert "belongs to scale paper" in (own.unfit(SMALL) or "")
    tuned = Row(label="ip", variant=Variant(block="ip", depth=50))
    assert (tuned.unfit(recipe_of("ucf101-ft")) or "").startswith("scale ucf101-ft begins from ipCSN_152_ft_kinetics_from_sports1m")
    assert replace(tuned, recipe=recipe_of("ucf101-ft")).unfit(recipe_of("paper")) is None
    assert runs_of([own], recipe_of("paper"), (0,))[0][1].recipe == recipe_of("paper")


def test_the_paper_s_costs_stand_beside_the_counted_ones() -> None:
    sheet = complexity("costs", table2_interactions.TABLE.rows)
    assert len(sheet.rows) == 12
    for _, *cells in sheet.rows:
        assert cells[::2] == cells[1::2]


def test_at_another_scale_each_cost_stands_under_its_name() -> None:
    """As in the lines of runs, which count for themselves."""
    sheet = complexity("costs", table2_interactions.TABLE.rows, SMALL)
    told = {row[0]: dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows}
    for one in (found[0] for row in table2_interactions.TABLE.rows if (found := read(table2_interactions.TABLE, SMALL).of(row.label))):
        costs = [float(told[one["row"]][name]) for name in ("GMACs", "M par", "G inter")]
        assert costs == pytest.approx([float(one["gmacs"]), float(one["params_m"]), float(one["interactions_m"]) / 1e3], rel=1e-3)


def test_tables_share_their_runs() -> None:
    """Tables 2 and 4 at depths 26 and 50 are rows of Table 3: trained once."""
    shared = [run.name for _, run in runs_of(table3_groups.TABLE.rows, SMALL, (0,))]
    for table in (table2_interactions.TABLE, table4_regularization.TABLE):
        names = [run.name for _, run in runs_of(table.rows, SMALL, (0,))]
        assert len(names) == 6 and set(names) <= set(shared)


def test_a_line_of_one_table_is_that_of_the_others_with_the_same_run(tmp_path: Path) -> None:
    """Without its record too, as in a fresh clone: it counts as published and is taken over; that of a failed run is not."""
    first, other = table2_interactions.TABLE, table3_groups.TABLE
    name = put(tmp_path, first.rows[0], 0, video_top1=12.5)
    failed = put(tmp_path, first.rows[1], 0, error="the loss is nan")
    collect(first, SMOKE, tmp_path)
    for row in first.rows[:2]:
        forget(tmp_path, row, 0)
        folder_of(runs_of([row], SMOKE, (0,))[0][1], tmp_path).rmdir()
    assert published_in(other, SMOKE, tmp_path) == published_in(first, SMOKE, tmp_path) == {name} != {failed}
    [taken] = collect(other, SMOKE, tmp_path)[0].lines
    [given, _] = read_lines(csv_path(first, SMOKE, tmp_path))
    assert (given["table"], given["row"]) == (first.name, "ResNet3D-26") and taken == given | {"table": other.name, "row": "bottleneck"}
    assert read_lines(csv_path(other, SMOKE, tmp_path)) == [taken] and collect(table4_regularization.TABLE, SMOKE, tmp_path)[0].lines[0]["run"] == name


def test_long_schedules_have_twice_the_epochs_and_nothing_else() -> None:
    runs = {row.label: run for row, run in runs_of(table4_schedules.TABLE.rows, SMALL, (0,))}
    once = {row.label: run for row, run in runs_of(table4_regularization.TABLE.rows, SMALL, (0,))}
    for label in ("ResNet3D-50", "ir-CSN-50", "ip-CSN-50"):
        assert runs[label] == once[label]
        long = replace(once[label].recipe, epochs=2 * SMALL.epochs, warmup=2 * SMALL.warmup)
        assert runs[f"{label}-long"] == replace(once[label], recipe=long)
    assert {len(row.seeds_at(scale)) for scale in ("small", "photo") for row in table4_schedules.TABLE.rows if row.epochs == 2} == {20, 10}


def test_time_is_told_by_flops_and_epochs_of_runs_of_other_tables(tmp_path: Path) -> None:
    """None of its own lines: those of Table 4 at half the epochs."""
    rows = table4_schedules.TABLE.rows
    for row in rows[:3]:
        put(tmp_path, row, 0, video_top1=12.5, seconds=60, flops=2_000_000_000)
    work = runs_of(rows, SMOKE, (0,))
    count_costs(run for _, run in work)
    own = runs_of(table4_regularization.TABLE.rows, SMOKE, (0, 1))
    told = seconds_of(own, table4_regularization.TABLE, timed_lines(table4_regularization.TABLE, SMOKE, tmp_path, own))  # by records, in no CSV yet
    assert [told[run.name] for row, run in own if row.label in [one.label for one in rows[:3]]] == [60.0] * 6
    collect(table4_regularization.TABLE, SMOKE, tmp_path)
    told = seconds_of(work, table4_schedules.TABLE, timed_lines(table4_schedules.TABLE, SMOKE, tmp_path))
    flops = {run.name: planned_costs()[cost_key(run.variant, run.recipe)]["flops"] for _, run in work}
    assert told == {run.name: pytest.approx(60 * flops[run.name] / 2e9 * row.epochs) for row, run in work}


def test_data_sizes_are_multiples_of_the_scale_s_training_videos_and_nothing_else() -> None:
    runs = {row.label: run for row, run in runs_of(table4_sizes.TABLE.rows, SMALL, (0,))}
    assert [runs[f"ResNet3D-50-x{size}"].recipe.data.train for size in ("0.5", "1", "2", "4")] == [320, 640, 1280, 2560]  # type: ignore[union-attr]
    assert all(replace(one.recipe, data=SMALL.data) == SMALL and one.variant.depth == 50 for one in runs.values())
    once = {row.label: run for row, run in runs_of(table4_regularization.TABLE.rows, SMALL, (0,))}
    assert {runs[f"{name}-x1"].name for name in ("ResNet3D-50", "ir-CSN-50", "ip-CSN-50")} == {run.name for label, run in once.items() if "50" in label}
    assert {row.videos: row.seeds_at("small") for row in table4_sizes.TABLE.rows} == {size: tuple(range(20 if size == 1 else 10)) for size in (0.5, 1, 2, 4)}


def test_a_data_size_that_a_scale_has_not_is_one_sentence() -> None:
    half, whole = table4_sizes.TABLE.rows[0], table4_sizes.TABLE.rows[3]
    assert half.unfit(SMOKE) == "`train` (=40) must be a multiple of 80 (10 digits x 8 motions)."
    paper = recipe_of("paper")
    assert half.unfit(paper) == "0.5 times the training videos of kinetics400 cannot be drawn; scales of built-in data draw theirs."
    assert whole.unfit(paper) is None and whole.under(paper) == paper
    done = run("experiments/table4_sizes.py", "--plan", "--scale", "smoke")
    assert done.returncode == 0 and "cannot be held" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    none = run("experiments/table4_sizes.py", "--plan", "--scale", "smoke", "--only", "ip-CSN-50-x0.5")
    assert none.returncode == 0 and "GMACs of one clip" not in none.stdout and none.stdout.endswith("\n0 runs\n")


def test_every_table_names_rows_once_and_its_claims_name_rows() -> None:
    assert [table.name for table in every_table()] == [
        "table1_architectures", "table2_interactions", "table3_groups", "table4_regularization", "table4_schedules", "table4_sizes",
        "table5_benchmarks",
    ]  # fmt: skip
    for table in every_table():
        labels = [row.label for row in table.rows]
        assert len(set(labels)) == len(labels) and len(table.claims) <= 6
        assert {row for claim in table.claims for part in claim.parts() for row in part.rows} <= set(labels)
    with pytest.raises(UserError, match="There is no table table9_none"):
        table_of("table9_none")


@pytest.mark.parametrize("scale", ["smoke", "small", "photo", "paper"])
def test_the_cheaper_networks_of_the_trade_off_claim_are_all_there_are(scale: str) -> None:
    runs = [(row.label, run) for row, run in runs_of(table3_groups.EIGHT, recipe_of(scale), (0,))]
    count_costs(run for _, run in runs)
    gmacs = {label: planned_costs()[cost_key(run.variant, run.recipe)]["flops"] for label, run in runs}
    assert {label for label in gmacs if gmacs[label] < gmacs["bottleneck-D"]} == set(table3_groups.CHEAPER)


def test_a_claim_beyond_a_scale_is_left_out_with_a_sentence() -> None:
    small = Results(table2_interactions.TABLE, SMALL, ())
    assert [one.claim for one in small.judged()] == list(table2_interactions.TABLE.claims[:4])
    assert small.unheld() == ['Not judged: "Deep nets: both CSNs above ResNet3D (depth 101)": depth 101 is too deep for scale small, '
                              "which holds depths up to 50; scale paper holds it."]  # fmt: skip
    paper = Results(table2_interactions.TABLE, recipe_of("paper"), ())
    assert len(paper.judged()) == 5 and not paper.unheld()


def test_no_row_is_held_by_the_scale_of_another_network_s_fine_tuning(tmp_path: Path) -> None:
    results = Results(table3_groups.TABLE, recipe_of("ucf101-ft"), ())
    (sentence,) = results.unheld()
    assert sentence.startswith('Not judged: "Taking channel interaction away from 3x3x3 ') and sentence.count(": scale ucf101-ft begins from ip") == 1
    done = run("experiments/table3_groups.py", "--scale", "ucf101-ft", "--home", tmp_path)
    told = " ".join(done.stdout.split())
    assert done.returncode == 0 and "ip-50: scale ucf101-ft begins from ipCSN_152_ft_" in told and "Claims" not in told and not (tmp_path / "runs").exists()


def test_table3_asks_for_every_group_size_and_small_holds_all() -> None:
    rows = table3_groups.TABLE.rows
    assert len(rows) == 20 and {row.variant.depth for row in rows} == {18, 26, 34, 50}
    assert all(row.unfit(SMALL) is None and row.unfit(SMOKE) is None for row in rows)
    assert all(row.paper_top1 is None or row.paper_top1.recalled for row in rows)


@pytest.mark.parametrize("scale", ["small", "photo"])
def test_the_planned_runs_are_the_committed_lines(scale: str) -> None:
    """Twenty seeds of the rows of Table 4, wherever they stand, and of the long ones at small, ten of the others."""
    counts = (table2_interactions.TABLE, 120), (table4_regularization.TABLE, 120), (table4_sizes.TABLE, 150)
    counts += (table3_groups.TABLE, 260), (table4_schedules.TABLE, 120 if scale == "small" else 90)
    for table, count in counts:
        planned = [(row.label, run.name) for row, run in runs_of(table.rows, recipe_of(scale))]
        committed = [(one["row"], one["run"]) for one in read_lines(csv_path(table, recipe_of(scale), REPOSITORY))]
        assert sorted(planned) == sorted(committed) and len(planned) == count
    assert len(runs_of(table3_groups.TABLE.rows, SMOKE)) == 20 and len(runs_of(table3_groups.TABLE.rows, SMALL, (7,))) == 20


def test_rows_and_seeds_are_chosen_or_refused() -> None:
    assert [row.label for row in TABLE.chosen(["b", "a"])] == ["a", "b"]
    with pytest.raises(UserError, match=r"unknown row \(=z\); the rows of tiny_table are a, b, g\."):
        TABLE.chosen(["z"])
    assert [(row.label, run.seed) for row, run in runs_of(ROWS, SMOKE, (1, 0))] == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]


def test_the_time_told_by_a_plan_is_of_what_is_missing(tmp_path: Path) -> None:
    """At the median of what the row's runs took; and the GPU-hours of one run for each that is missing."""
    rows = table4_schedules.TABLE.rows[:1]
    for seed, seconds in enumerate((60, 1000, 130)):
        put(tmp_path, rows[0], seed, video_top1=12.5, seconds=seconds, flops=2_000_000_000)

    def told(recipe: Recipe, *seeds: int) -> str:
        console = Console(width=400, file=io.StringIO(), record=True)
        plan(table4_schedules.TABLE, list(rows), seeds, recipe, tmp_path, tmp_path, 1, console)
        return console.export_text()

    collect(table4_schedules.TABLE, SMOKE, tmp_path)
    assert "Estimated time for what is missing, 1 at a time: about 4 min, by runs on cpu." in told(SMOKE, 0, 1, 2, 3, 4)
    assert "5 runs: 3 done, 2 missing" in told(SMOKE, 0, 1, 2, 3, 4) and "Estimated" not in told(SMOKE, 0, 1, 2)

    (run,) = (run for _, run in runs_of(rows, PAPER, (0,)))
    count_costs([run])
    hours = [float(text.partition("About ")[2].split()[0].replace(",", "")) for text in (told(PAPER, 0), told(PAPER, 0, 1, 2))]
    assert hours[1] == pytest.approx(3 * hours[0], rel=0.01)
    folder_of(run, tmp_path).mkdir(parents=True)
    (folder_of(run, tmp_path) / "record.json").write_text(json.dumps({"run": run.name, "video_top1": 70.0}))
    assert f"About {2 * hours[0]:,.0f} GPU-hours for what is missing" in told(PAPER, 0, 1, 2)


def test_the_exit_code_tells_of_failures_among_the_rows_that_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, ROWS[0], 0, video_top1=12.5)
    put(tmp_path, ROWS[1], 0, error="the loss is nan")
    for only, code in (((), 1), (("--only", "a"), 0), (("--only", "b"), 1), (("--only", "b", "--seeds", "1"), 0)):
        assert cli.main(replace(TABLE, claims=(), figures=()), ["--show", "--scale", "smoke", "--home", str(tmp_path), *only]) == code
    assert "the loss is nan" in capsys.readouterr().out


@pytest.mark.parametrize("parted", [False, True])
def test_test_videos_that_are_the_training_videos_are_warned_of(parted: bool, tmp_path: Path) -> None:
    root = tmp_path / "folder"
    for part in ("train/", "test/") if parted else ("",):
        write_folder(root / f"{part}up" / "clip", frames=8)
    scan(root, listing(root), index_file(root), workers=1, seconds=60)
    console = Console(width=200, file=io.StringIO(), record=True)
    cli.make_data(replace(SMOKE, data=VideoSet(kind="folder", classes=1)), tmp_path, console)
    assert ("warning: the test videos are the training videos; part them into train/ and test/." in console.export_text()) != parted
