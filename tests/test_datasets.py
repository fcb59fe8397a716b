"""Kinetics-400, Sports-1M and Something-Something as they are distributed: class order, layouts, what is missing or malformed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from made_sets import KINETICS, TEMPLATES, TRICKY, by_video, kinetics, kinetics_root, put, sports_root

from csn.data import sets
from csn.data.kinetics400 import youtube_of
from csn.spec import UserError, VideoSet

# Kinetics-400


@pytest.mark.parametrize(
    "layout",
    [
        "train/{}",  # CVDF: flat
        "train/skiing_not_slalom_or_crosscountry/{}",  # torchvision: brackets deleted
        "videos_train/skiing_(not_slalom_or_crosscountry)/{}",  # mmaction2
        "skiing (not slalom or crosscountry)/{}",  # ActivityNet crawler
    ],
)
def test_kinetics_layouts(tmp_path: Path, layout: str) -> None:
    kinetics_root(tmp_path)
    put(tmp_path, *(layout.format(f"{name}.mp4") for name in ("--_a_bcdefg_000084_000094", "same_id_two_000021_000031")))
    split = sets.load(VideoSet(kind="kinetics400"), tmp_path, "train")
    assert split.classes == tuple(KINETICS)
    assert by_video(split) == {"--_a_bcdefg_000084_000094": (KINETICS.index(TRICKY[0]),), "same_id_two_000021_000031": (KINETICS.index(TRICKY[1]),)}
    assert len(split.missing) == 401 and "same_id_two_000001_000011" in split.missing


def test_kinetics_class_order_is_not_that_of_sorted_folders() -> None:
    """Deleting brackets, as torchvision's folders do, swaps the two skiing classes."""
    deleted = sorted(TRICKY[:2], key=lambda name: name.replace(" ", "_").replace("(", "").replace(")", ""))
    assert sorted(TRICKY[:2]) == TRICKY[:2] and deleted == TRICKY[1::-1]


def test_kinetics_names_without_times_and_other_splits(tmp_path: Path) -> None:
    kinetics_root(tmp_path)
    put(tmp_path, "val/valclip_001.mp4", "test/--_a_bcdefg_000084_000094.mp4", "train/--_a_bcdefg_000084_000094.mp4")
    assert list(by_video(sets.load(VideoSet(kind="kinetics400"), tmp_path, "val"))) == ["valclip_001_000007_000017"]
    assert sets.load(VideoSet(kind="kinetics400"), tmp_path, "train").samples[0].path.parent.name == "train"
    assert [youtube_of(name) for name in ("a_b_c_000001_000002", "-x_1_2", "_000001_000002_000003")] == ["a_b_c", "-x_1_2", "_000001"]


def test_kinetics_a_damaged_list_of_another_split_is_an_error(tmp_path: Path) -> None:
    """It would else change the numbers of the classes; one that is not there is none."""
    kinetics_root(tmp_path)
    put(tmp_path, "train/--_a_bcdefg_000084_000094.mp4")
    sets.load(VideoSet(kind="kinetics400"), tmp_path, "train")
    (damaged,) = list(tmp_path.rglob("val*.csv"))
    damaged.write_text(damaged.read_text() + "b,x,y,z\n")
    with pytest.raises(UserError, match=rf"{damaged.name}, line \d+"):
        sets.load(VideoSet(kind="kinetics400"), tmp_path, "train")


def test_kinetics_clips_of_other_times(tmp_path: Path) -> None:
    """Taken where nothing else can be meant; a file is never two samples, nor a training clip one of the test."""
    kinetics_root(tmp_path)
    put(tmp_path, "train/same_id_two.mp4", "train/--_a_bcdefg_000085_000095.mp4", "train/class000003_000001_000011.mp4")
    put(tmp_path, "train/class000003_000002_000012.mp4", "val/class000004_000050_000060.mp4")
    kinetics(tmp_path, "test.csv", [(KINETICS[4], "class000004", 50, 60)])
    train = sets.load(VideoSet(kind="kinetics400"), tmp_path, "train")
    assert by_video(train) == {"--_a_bcdefg_000084_000094": (KINETICS.index(TRICKY[0]),)}
    assert {"same_id_two_000001_000011", "same_id_two_000021_000031", "class000003_000000_000010", "class000004_000000_000010"} <= set(train.missing)
    put(tmp_path, "a/same_id_two_000001_000011.mp4", "b/same_id_two_000001_000011.mp4")
    with pytest.raises(UserError, match=r"may be same_id_two_000001_000011: a/same_id_two_000001_000011.mp4 and b/"):
        sets.load(VideoSet(kind="kinetics400"), tmp_path, "train")


def test_kinetics_csv_forms(tmp_path: Path) -> None:
    put(tmp_path, "a/valclip_001_000007_000017.mp4")
    kinetics(tmp_path, "train.csv", [(name, f"c{i}", 0, 1) for i, name in enumerate(KINETICS)], "label,youtube_id,time_start,time_end,is_cc")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train.csv").rename(tmp_path / "annotations/kinetics_train.csv")
    (tmp_path / "annotations/kinetics_val.csv").write_text('\ufeffyoutube_id,time_end,time_start,label\nvalclip_001,17.0,7.0,"petting cat"\n', encoding="utf-8")
    assert by_video(sets.load(VideoSet(kind="kinetics400"), tmp_path, "val")) == {"valclip_001_000007_000017": (KINETICS.index("petting cat"),)}
    kinetics(tmp_path, "test.csv", [("valclip_001", "7", 17, "test")], "youtube_id,time_start,time_end,split")  # type: ignore[list-item]
    with pytest.raises(UserError, match="no label column"):
        sets.load(VideoSet(kind="kinetics400"), tmp_path, "test")


def test_kinetics_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = VideoSet(kind="kinetics400")
    with pytest.raises(UserError, match=r"train annotation of Kinetics-400 not found: put train.csv"):
        sets.load(spec, tmp_path, "train")
    (tmp_path / "train.csv").write_text("abseiling,0wR5jVB-WPk,417,427,train\n")
    with pytest.raises(UserError, match="no column 'youtube_id'"):
        sets.load(spec, tmp_path, "train")
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\nabseiling,0wR5jVB-WPk,soon,427\n")
    with pytest.raises(UserError, match="line 2"):
        sets.load(spec, tmp_path, "train")
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\nabseiling,0wR5jVB-WPk,417,427\n")
    with pytest.raises(UserError, match=r"has 400 classes, its annotation .* names 1"):
        sets.load(spec, tmp_path, "train")
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\na,id,417,427\na,id,417,427\nb,id,417,427\n")
    with pytest.raises(UserError, match=r"line 4: id from 417 to 427 s has label 'b', in an earlier line 'a'; remove one of the two"):
        sets.load(spec, tmp_path, "train")
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\n")
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match=r"train.csv cannot be read \(Permission denied\)"):
        sets.load(spec, tmp_path, "train")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"`split` \(=valid\) must be one of train, val, test"):
        sets.load(spec, tmp_path, "valid")


# Sports-1M


def test_sports1m(tmp_path: Path) -> None:
    root = sports_root(tmp_path)
    train = sets.load(VideoSet(kind="sports1m"), root, "train")
    assert by_video(train) == {"-dqivjS_lpI": (168, 169), "bbb": (0,)} and train.missing == ("gone",)
    assert train.classes[:2] == ("fútbol", "скачки") and len(train.classes) == 487
    assert by_video(sets.load(VideoSet(kind="sports1m"), root, "test")) == {"ccc": (486,)}
    put(root, "old/ccc.mp4", "old/bbb.mp4")
    with pytest.raises(UserError, match=r"may be ccc: old/ccc.mp4 and videos/ccc.webm, and so for 1 more"):
        sets.load(VideoSet(kind="sports1m"), root, "test")
    (root / "old/ccc.mp4").unlink()
    (root / "original/test_partition.txt").unlink()
    (root / "sports1m_test.json").write_text("\ufeff" + json.dumps([{"id": "ccc", "label487": [3, 1], "stitle": "x"}]), encoding="utf-8")
    assert by_video(sets.load(VideoSet(kind="sports1m"), root, "test")) == {"ccc": (1, 3)}
    (root / "sports1m_test.json").write_text(json.dumps([{"id": "ccc", "label487": [3]}, {"id": "bbb", "label487": []}]))
    with pytest.raises(UserError, match="record 2 has no label"):
        sets.load(VideoSet(kind="sports1m"), root, "test")


def test_sports1m_a_video_on_several_lines_has_all_their_labels(tmp_path: Path) -> None:
    root = sports_root(tmp_path)
    lines = ("https://www.youtube.com/watch?v=ccc 486", "https://www.youtube.com/watch?v=bbb 7", "http://www.youtube.com/watch?v=ccc&t=3 5,9")
    (root / "original/test_partition.txt").write_text("\n".join(lines) + "\n")
    assert by_video(sets.load(VideoSet(kind="sports1m"), root, "test")) == {"ccc": (5, 9, 486), "bbb": (7,)}


def test_sports1m_in_gzip_and_its_cross_validation(tmp_path: Path) -> None:
    root = sports_root(tmp_path)
    (root / "labels.txt.gz").write_bytes(gzip.compress((root / "labels.txt").read_bytes()))
    for name in ("labels.txt", "original/test_partition.txt", "original/train_partition.txt.gz"):
        (root / name).unlink()
    (root / "cross-validation").mkdir()
    for fold in (3, 4):
        for split, video in (("train", "bbb"), ("test", "ccc")):
            (root / f"cross-validation/sports{fold}_{split}.txt").write_text(f"\ufeffhttps://www.youtube.com/watch?v={video} {fold}\n", encoding="utf-8")
    found = [sets.load(VideoSet(kind="sports1m"), root, split) for split in ("train", "test")]
    assert [by_video(split) for split in found] == [{"bbb": (3,)}, {"ccc": (3,)}] and found[0].classes[1] == "скачки"


@pytest.mark.parametrize("content", [b"<html>not found</html>", gzip.compress(b"x" * 5000, mtime=0)[:30]], ids=["page", "half"])
def test_a_list_that_was_not_downloaded_whole_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (sports_root(tmp_path) / "original/train_partition.txt.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"train_partition\.txt\.gz cannot be read as UTF-8 text \(.*\); perhaps it was not downloaded whole"):
        sets.load(VideoSet(kind="sports1m"), tmp_path, "train")


@pytest.mark.parametrize("line", ["https://www.youtube.com/watch?v=a 487", "https://www.youtube.com/a 1", "https://www.youtube.com/watch?v=a", "x y z"])
def test_sports1m_malformed(tmp_path: Path, line: str) -> None:
    (sports_root(tmp_path) / "original/test_partition.txt").write_text(line + "\n")
    with pytest.raises(UserError, match="line 1"):
        sets.load(VideoSet(kind="sports1m"), tmp_path, "test")
    (tmp_path / "original/test_partition.txt").unlink()
    (tmp_path / "sports1m_test.json").write_text('{"id": 1}')
    with pytest.raises(UserError, match="no list of records"):
        sets.load(VideoSet(kind="sports1m"), tmp_path, "test")


# Something-Something


def test_something_v1_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "something-something-v1-labels.csv").write_text("\n".join(TEMPLATES) + "\n")
    (tmp_path / "something-something-v1-train.csv").write_text(f"100218;{TEMPLATES[1]}\r\n7;{TEMPLATES[2]}\r\n9;{TEMPLATES[0]}\n")
    (tmp_path / "something-something-v1-validation.csv").write_text("7;Holding nothing\n")
    put(tmp_path, "20bn-something-something-v1/7/00001.jpg", "videos/100218.mp4")
    split = sets.load(VideoSet(kind="something-v1"), tmp_path, "train")
    assert split.classes == tuple(TEMPLATES) and split.classes != tuple(sorted(TEMPLATES))
    assert by_video(split) == {"100218": (1,), "7": (2,)} and split.missing == ("9",)
    assert split.samples[1].path == tmp_path / "20bn-something-something-v1/7"
    put(tmp_path, "flow/7/00001.jpg", "videos/7.mp4", "flow/9/00001.jpg")  # flow, a film made of the pictures
    assert sets.load(VideoSet(kind="something-v1"), tmp_path, "train") == split
    put(tmp_path, "20bn-something-something-v1/copy/7/00001.jpg")
    with pytest.raises(UserError, match=r"may be 7: 20bn-something-something-v1/7 and 20bn-something-something-v1/copy/7; move one of the two away"):
        sets.load(VideoSet(kind="something-v1"), tmp_path, "train")
    with pytest.raises(UserError, match="'Holding nothing' of video 7"):
        sets.load(VideoSet(kind="something-v1"), tmp_path, "validation")
    (tmp_path / "something-something-v1-train.csv").write_text("100218,Holding something\n")
    with pytest.raises(UserError, match=r"line 1: .* is not `id;template`"):
        sets.load(VideoSet(kind="something-v1"), tmp_path, "train")


@pytest.mark.parametrize("prefix", ["something-something-v2-", "labels/"])
def test_something_v2_takes_the_template_not_the_label(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / f"{prefix}labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate(sorted(TEMPLATES))}))
    rows = [
        {"id": "78687", "label": "Holding something", "template": "Approaching [something] with your camera", "placeholders": ["x"]},
        {"id": "1", "label": "holding", "template": "Holding [something]", "placeholders": ["y"]},
    ]
    (tmp_path / f"{prefix}validation.json").write_text(json.dumps(rows))
    put(tmp_path, "20bn-something-something-v2/78687.webm")
    split = sets.load(VideoSet(kind="something-v2"), tmp_path, "validation")
    assert by_video(split) == {"78687": (0,)} and split.missing == ("1",) and split.classes == tuple(sorted(TEMPLATES))
    (tmp_path / f"{prefix}validation.json").write_text(json.dumps([*rows, rows[1]]))
    assert sets.load(VideoSet(kind="something-v2"), tmp_path, "validation").repeated == ("1",)
    (tmp_path / f"{prefix}validation.json").write_text(json.dumps([*rows, rows[1] | {"template": rows[0]["template"]}]))
    with pytest.raises(UserError, match=r"1 is of class 'Approaching .*', in an earlier line of 'Holding something'; remove one of the two"):
        sets.load(VideoSet(kind="something-v2"), tmp_path, "validation")
    (tmp_path / f"{prefix}validation.json").write_text(json.dumps(rows))
    put(tmp_path, "20bn-something-something-v2/78687/000001.jpg", "frames/78687/000001.jpg", "mp4/78687.mp4")
    assert sets.load(VideoSet(kind="something-v2"), tmp_path, "validation") == split
    (tmp_path / f"{prefix}labels.json").write_text('{"a": "1"}')
    with pytest.raises(UserError, match="are not 0 to 0"):
        sets.load(VideoSet(kind="something-v2"), tmp_path, "validation")
    (tmp_path / f"{prefix}labels.json").write_text('{"a": Infinity}')
    with pytest.raises(UserError, match="no map of names to numbers"):
        sets.load(VideoSet(kind="something-v2"), tmp_path, "validation")
    (tmp_path / f"{prefix}labels.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        sets.load(VideoSet(kind="something-v2"), tmp_path, "validation")
