"""Scan, train, test, record, CSV line: the whole path on a real-format fixture of every public set, in seconds."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_sets import KINETICS, kinetics, real
from small_checkpoint import small_checkpoint

from csn.checkpoints.facts import Input
from csn.cli import main as main_of_table
from csn.collect import collect, read
from csn.data.__main__ import main
from csn.data.scan import read_index
from csn.execute import execute
from csn.recipes import DFDC, HMDB51_FT, PAPER, PAPER_32, SOMETHING_V1, SPORTS1M, UCF101_FT
from csn.records import folder_of
from csn.spec import CLASSES, Recipe, Run, Variant, VideoSet
from csn.table import Row, Table

TINY = {"width": 4, "pool1": False, "frames": 2, "crop": 32, "resize": (48, 52), "epochs": 1, "warmup": 0, "clips_per_epoch": 4, "lr": 0.01,
        "batch": 4, "micro_batch": 2, "test_clips": 2, "views_per_batch": 3, "pretrained": "", "freeze_bn": False}  # fmt: skip
# the published recipe of each set, made tiny: what is special about it stays (label sets, mirror, dense test, frame rate, three crops)
RECIPES: dict[str, Recipe] = {
    "kinetics400": replace(PAPER_32, **TINY, test_crop=48),
    "sports1m": replace(SPORTS1M, **TINY, test_crop=32),
    "something-v1": replace(SOMETHING_V1, **TINY, test_crop=48),
    "something-v2": replace(PAPER, **TINY, test_crop=32, data=VideoSet(kind="something-v2"), mirror=False),
    "ucf101": replace(UCF101_FT, **TINY, test_crop=48),
    "hmdb51": replace(HMDB51_FT, **TINY, test_crop=48),
    "dfdc": replace(DFDC, **TINY, test_crop=48),
}
VARIANT = Variant(block="simple", depth=18)


def scanned(kind: str, root: Path) -> int:
    return main(["scan", "--dataset", kind, "--root", str(root), "--workers", "1"])


CLIPS = os.environ.get("CSN_TEST_CLIPS")
MEDIA = [None, pytest.param(CLIPS and Path(CLIPS), marks=pytest.mark.skipif(CLIPS is None, reason="CSN_TEST_CLIPS names no folder of clips"))]


@pytest.mark.parametrize("clips", MEDIA, ids=["generated", "clips"])
@pytest.mark.parametrize("kind", CLASSES)
def test_from_files_to_a_csv_line(kind: str, clips: Path | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TINY twins of the paper's recipes; n_videos, missing videos and metrics are those of the fixture."""
    recipe = RECIPES[kind]
    assert recipe.data.kind == kind
    root = real(kind, tmp_path / kind, clips)
    assert scanned(kind, root) == 0
    if clips:
        known = json.loads((clips / "expected.json").read_text())
        counts = {name: entry.plan.frames for name, entry in read_index(root).entries.items() if entry.plan and (root / name).is_symlink()}
        assert counts == {name: known[str((root / name).readlink().relative_to(clips))]["frames_ffmpeg"] for name in counts}
        assert bool(counts) == (kind != "something-v1")  # that one is folders of pictures
    run = Run(variant=replace(VARIANT, width=4, pool1=False), recipe=recipe, seed=0)
    record = execute(run, tmp_path, tmp_path)
    assert "error" not in record, record
    told = capsys.readouterr().out
    videos, missing = EXPECTED[kind]
    assert (record["n_train_videos"], record["n_videos"]) == videos
    assert record["missing_videos"] == {"train": missing, "test": {"hmdb51": 35, "something-v1": 1}.get(kind, 0)}
    assert f"train: {videos[0]} videos of {CLASSES[kind]} classes, {missing} missing, 0 damaged" in told
    assert (f"warning: train: missing: {'gone' if kind == 'sports1m' else ''}" in told) == (missing > 0)
    assert ("class without a video" in told) == (kind != "dfdc") == bool(record["empty_classes"]["train"])
    assert record["damaged_videos"] == {"train": [], "test": []}
    two = kind == "dfdc"
    for name in ("train_top1", "clip_top1", "video_top1", *(("auc", "log_loss") if two else ("video_top5",))):
        interval = record[f"{name}_interval"]
        assert interval["low"] <= record[name] <= interval["high"] and interval["n"] == videos[name != "train_top1"], name
    assert ("auc" in record) == two and ("video_top5" in record) != two
    scores = np.load(folder_of(run, tmp_path) / "scores.npz")
    assert scores["probs"].shape == (videos[1], CLASSES[kind])
    assert scores["labels"].shape == ((videos[1], 487) if kind == "sports1m" else (videos[1],))  # Sports-1M: a set a video
    table = Table(name="toy", title="Toy", rows=(Row(label="toy", variant=VARIANT),))
    results, troubles = collect(table, recipe, tmp_path)
    assert not troubles and len(results.lines) == 1
    line = results.lines[0]
    assert (line["run"], line["error"], line["n_videos"], line["scale"]) == (run.name, "", str(videos[1]), recipe.scale)
    assert bool(line["auc"]) == bool(line["log_loss"]) == two and bool(line["video_top5"]) != two
    assert float(line["video_top1_low"]) <= float(line["video_top1"]) <= float(line["video_top1_high"])
    assert (tmp_path / "results" / recipe.scale / "toy.csv").read_text().count("\n") == 2


EXPECTED = {  # (videos of train and of test, missing of train)
    "kinetics400": ((3, 2), 400), "sports1m": ((2, 2), 1), "something-v1": ((3, 2), 1), "something-v2": ((3, 2), 0),
    "ucf101": ((2, 2), 1), "hmdb51": ((17, 16), 36), "dfdc": ((6, 6), 0),
}  # fmt: skip


def test_a_network_is_tested_without_the_training_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who has the validation set alone can run the rows that test a published network."""
    root = real("kinetics400", tmp_path / "kinetics400")
    (root / "train.csv").unlink()
    shutil.rmtree(root / "train")
    classes = [(name, f"class{i:06d}", 0, 10) for i, name in enumerate(KINETICS)]
    kinetics(root, "validate.csv", [*classes, (KINETICS[0], "valclip_001", 7, 17), (KINETICS[1], "-_b_cdefghi", 0, 10)])
    assert scanned("kinetics400", root) == 0
    (tmp_path / "checkpoints").mkdir()
    variant = replace(VARIANT, width=4, pool1=False)
    given = Input(PAPER.mean, PAPER.std, frames=2, stride=2, crop=32, short=48)
    small_checkpoint(tmp_path / "checkpoints" / "theirs.safetensors", tuple(KINETICS), variant, given)
    recipe = replace(RECIPES["kinetics400"], scale="paper", pretrained="theirs.safetensors", clips_per_epoch=0)
    table = Table(name="theirs", title="Theirs", rows=(Row(label="theirs", variant=variant, recipe=recipe, pretrained="here"),), scale="paper")
    assert main_of_table(table, ["--home", str(tmp_path), "--data", str(tmp_path), "--jobs", "1"]) == 0, capsys.readouterr()
    [line] = read(table, PAPER, tmp_path).lines
    assert line["n_videos"] == "2" and line["train_top1"] == "" and line["video_top1"]


DATASETS = os.environ.get("CSN_TEST_DATASETS")


@pytest.mark.skipif(DATASETS is None, reason="CSN_TEST_DATASETS names no folder of data sets")
def test_real_signs(tmp_path: Path) -> None:
    """Twenty real videos, one a class, through a list of another tool; every frame count is that of their list."""
    assert DATASETS is not None
    root = tmp_path / "folder"
    root.mkdir()
    with (Path(DATASETS) / "asl_gestures20/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        (root / row["file"]).symlink_to(Path(DATASETS) / "asl_gestures20" / row["file"])
    for split in ("train", "test"):
        (root / f"{split}.txt").write_text("".join(f"{row['file']} {row['label']}\n" for row in rows))
    (root / "classes.txt").write_text("".join(f"{row['class']}\n" for row in rows))
    assert scanned("folder", root) == 0
    index = read_index(root)
    assert {name: entry.plan.frames for name, entry in index.entries.items() if entry.plan} == {row["file"]: int(row["frames"]) for row in rows}
    recipe = replace(PAPER, **TINY, test_crop=48, data=VideoSet(kind="folder", classes=20))
    record = execute(Run(variant=replace(VARIANT, width=4, pool1=False), recipe=recipe, seed=0), tmp_path, tmp_path)
    assert "error" not in record, record
    assert (record["n_train_videos"], record["n_videos"]) == (20, 20) and record["empty_classes"] == {"train": [], "test": []}
