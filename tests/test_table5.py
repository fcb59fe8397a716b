"""Table 5: what it quotes, what its rows need, and that testing a checkpoint is a run like any other."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from conftest import run
from test_table import line

from csn.collect import Results, collect
from csn.execute import execute
from csn.provenance import REPOSITORY
from csn.published import benchmarks
from csn.recipes import PAPER, SMOKE
from csn.records import folder_of
from csn.spec import Run, Variant
from csn.table import Row, Table

sys.path.insert(0, str(REPOSITORY / "experiments"))
import table5_benchmarks

ROWS = table5_benchmarks.TABLE.rows


def test_every_row_tells_its_protocol_its_cost_and_what_is_published() -> None:
    numbers, protocols = benchmarks(Results(table5_benchmarks.TABLE, PAPER, ()), ROWS)
    told = {row[0]: dict(zip(numbers.columns, row, strict=True)) for row in numbers.rows}
    how = {row[0]: dict(zip(protocols.columns, row, strict=True)) for row in protocols.rows}
    assert told["ir-ig65m"] == {
        "row": "ir-ig65m", "data": "kinetics400", "pretrained": "IG-65M; published weights", "published (source)": "82.6 (zoo), 82.568 (log)", "ours": "",
    }  # fmt: skip
    assert how["ir-ig65m"] == {"row": "ir-ig65m", "protocol": "tested; val; top-1", "views": "10 x 3 of 32x256x256", "GMACs": "96.7", "in all": "2,901"}
    assert how["ip-scratch"]["GMACs"] == "108.8" and how["sports1m"]["GMACs"] == "83.3"
    assert all(row.protocol.startswith(("tested; ", "trained; ", "fine-tuned; ")) for row in ROWS)
    assert how["sports1m"]["protocol"].endswith("hit@1 of label sets") and "ours: fold 1" in how["hmdb51"]["protocol"]
    assert told["k400-sports1m"]["published (source)"] == "78.8 (zoo), 79.07 (mmaction2), 79.2 (quoted)"
    for source in {one.source for row in ROWS for one in row.published}:
        assert f"{source}: " in table5_benchmarks.TABLE.note
    values = {one.value for row in ROWS for one in row.published}
    assert {77.8, 79.2, 82.5, 82.6, 49.3, 94.708, 68.1} <= values
    assert {row.under(PAPER).data.kind for row in ROWS} == {"kinetics400", "sports1m", "something-v1", "ucf101", "hmdb51", "dfdc"}
    assert all(one.source and not one.recalled for row in ROWS for one in row.published)


def test_ours_is_of_the_metric_that_the_set_is_scored_by() -> None:
    found = [line("ir-ig65m", 0, 82.0, auc="12"), line("dfdc", 0, 91.0, auc="68.5")]
    numbers, _ = benchmarks(Results(table5_benchmarks.TABLE, PAPER, found), ROWS)
    assert {row[0]: row[-1] for row in numbers.rows if row[-1]} == {"ir-ig65m": "82.0", "dfdc": "68.5"}


def test_the_terminal_shows_sources_and_the_cost_of_a_view(tmp_path: Path) -> None:
    done = run("experiments/table5_benchmarks.py", "--show", "--home", tmp_path)
    assert done.returncode == 0 and "82.568" in done.stdout and "(log)" in done.stdout and "108.8" in done.stdout and "fold 1" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if not line.startswith("figure:")) <= 80


def test_the_plan_tells_what_each_row_needs(tmp_path: Path) -> None:
    (tmp_path / "data" / "ucf101").mkdir(parents=True)
    done = run("experiments/table5_benchmarks.py", "--plan", "--home", tmp_path, COLUMNS="160")
    assert done.returncode == 0, done.stderr
    assert "ucf101 (there): ucf101" in done.stdout and "dfdc (missing): dfdc" in done.stdout
    assert "checkpoints/irCSN_152_ft_kinetics_from_ig65m_f126851907.pkl (missing): ir-ig65m" in done.stdout
    assert "GPU-hours for what is missing" in done.stdout and "13 missing" in done.stdout
    costs = {cells[1].strip(): cells[2].strip() for line in done.stdout.splitlines() if len(cells := line.split("│")) > 2}
    assert (costs["ir-ig65m"], costs["ip-ig65m"], costs["k400-scratch"]) == ("96.7157", "108.7953", "83.2947")  # a view of 256 pixels; a training clip
    small = run("experiments/table5_benchmarks.py", "--plan", "--scale", "small", "--home", tmp_path, COLUMNS="160")
    assert small.returncode == 0 and "depth 152 is too deep for scale small" in " ".join(small.stdout.split()) and "0 runs" in small.stdout


def test_testing_a_checkpoint_is_a_run_of_no_steps(tmp_path: Path, data: Path) -> None:
    """A network trained here, taken as a published file and tested without training: the same accuracy, to the last digit."""
    variant = Variant(block="bottleneck-D", depth=26, width=SMOKE.width, pool1=SMOKE.pool1)
    first = Run(variant=variant, recipe=replace(SMOKE, epochs=1, warmup=0), seed=0)
    trained = execute(first, tmp_path, data)
    place = tmp_path / "data"
    shutil.copytree(data, place)
    (place / "checkpoints").mkdir(exist_ok=True)  # the shared data may have one by now
    shutil.copy(folder_of(first, tmp_path) / "weights.safetensors", place / "checkpoints" / "theirs.safetensors")
    tested = replace(SMOKE, pretrained="theirs.safetensors", epochs=1, warmup=0, clips_per_epoch=0)
    row = Row(label="theirs", variant=replace(variant, width=64), recipe=replace(tested, scale="paper"))
    found = execute(Run(variant=row.at(PAPER), recipe=row.under(PAPER), seed=0), tmp_path, place)
    assert found["history"] == [] and "error" not in found, found.get("error")
    assert found["pretrained"]["sha256"] and found["params"] == trained["params"]
    assert [found[name] for name in ("video_top1", "clip_top1")] == [trained[name] for name in ("video_top1", "clip_top1")]
    assert "train_top1" in trained and "train_top1" not in found and found["n_train_videos"] is None  # nothing was trained, no fit to measure
    table = Table(name="table9_test", title="Test", rows=(row,), scale="paper")
    results, _ = collect(table, PAPER, tmp_path)
    assert [line["video_top1"] for line in results.lines] == [f"{trained['video_top1']:.3f}"]
    assert [line["train_top1"] for line in results.lines] == [""]
