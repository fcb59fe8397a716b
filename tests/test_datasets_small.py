"""UCF101, HMDB51 and DFDC as they are distributed: class order, label numbers, groups, what is missing or malformed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made_sets import HMDB, ODD, UCF, by_video, dfdc_part, hmdb_root, put, ucf_root

from csn.data import sets
from csn.spec import UserError, VideoSet

# UCF101 and HMDB51


def test_ucf101(tmp_path: Path) -> None:
    root, spec = ucf_root(tmp_path), VideoSet(kind="ucf101")
    train = sets.load(spec, root, "train")
    assert train.classes == tuple(UCF) and train.classes != tuple(sorted(UCF))
    assert by_video(train) == {"v_HandStandPushups_g08_c01": (UCF.index("HandstandPushups"),), "v_HammerThrow_g08_c01": (UCF.index("HammerThrow"),)}
    assert train.missing == ("Act000/v_gone.avi",)
    put(root, "rawframes/HammerThrow/v_HammerThrow_g08_c01/img_00001.jpg", "mp4/HammerThrow/v_HammerThrow_g08_c01.mp4", "flow_u/Act000/v_gone.avi")
    assert sets.load(spec, root, "train") == train
    assert by_video(sets.load(spec, root, "test")) == {"v_Hammering_g01_c01": (UCF.index("Hammering"),)}
    second = sets.load(VideoSet(kind="ucf101", fold=2), root, "test")
    assert by_video(second) == {"v_Act001_g01_c01": (1,)} and second.samples[0].path.is_dir()
    listed = root / "ucfTrainTestlist/trainlist01.txt"
    listed.write_text(listed.read_text() + listed.read_text().splitlines()[0] + "\n")
    twice = sets.load(spec, root, "train")
    assert twice.samples == train.samples and twice.fingerprint == train.fingerprint and len(twice.repeated) == 1
    assert train.fingerprint != second.fingerprint == sets.load(VideoSet(kind="ucf101", fold=2), root, "test").fingerprint


def test_ucf101_from_a_disk_without_case(tmp_path: Path) -> None:
    """The list writes HandstandPushups/v_HandStandPushups_g08_c01.avi: a copy may have either spelling, or none."""
    root = ucf_root(tmp_path)
    (root / "UCF-101/HandstandPushups/v_HandStandPushups_g08_c01.avi").unlink()
    put(root, "UCF-101/handstandpushups/v_handstandpushups_g08_c01.avi")
    train = sets.load(VideoSet(kind="ucf101"), root, "train")
    assert by_video(train)["v_HandStandPushups_g08_c01"] == (UCF.index("HandstandPushups"),) and train.missing == ("Act000/v_gone.avi",)
    assert {sample.path.name for sample in train.samples} == {"v_handstandpushups_g08_c01.avi", "v_HammerThrow_g08_c01.avi"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("trainlist01.txt", "Act001/v.avi 1\n", "label 1 is not that of Act001, 2"),  # counted from 0
        ("trainlist01.txt", "Nothing/v.avi 1\n", "class 'Nothing'"),
        ("classInd.txt", "0 ApplyEyeMakeup\n", "'0' where class 1 should be"),
    ],
)
def test_ucf101_malformed(tmp_path: Path, file: str, content: str, message: str) -> None:
    (ucf_root(tmp_path) / "ucfTrainTestlist" / file).write_text(content)
    with pytest.raises(UserError, match=message):
        sets.load(VideoSet(kind="ucf101"), tmp_path, "train")


def test_hmdb51(tmp_path: Path) -> None:
    root = hmdb_root(tmp_path)
    train, test = (sets.load(VideoSet(kind="hmdb51"), root, split) for split in ("train", "test"))
    assert train.classes == test.classes == tuple(HMDB)
    for path in sorted(root.glob("hmdb51_org/*/*")):
        put(root, str(path.relative_to(root)).replace("hmdb51_org", "hmdb51_sta"))  # the stabilised films
    assert sets.load(VideoSet(kind="hmdb51"), root, "train") == train
    put(root, "testTrainMulti_7030_splits/._brush_hair_test_split1.txt")  # macOS leaves these on other disks
    assert sets.load(VideoSet(kind="hmdb51"), root, "train") == train
    assert len(train.samples) == 52 and len(test.samples) == 51 and train.missing == ("brush_hair/gone.avi",)
    assert by_video(train)[f"brush_hair/{ODD[:-4]}"] == (0,) and by_video(train)["draw_sword/draw_sword_1"] == (1,)
    assert len(sets.load(VideoSet(kind="hmdb51", fold=2), root, "test").samples) == 51
    with pytest.raises(UserError, match="testTrainMulti_7030_splits"):
        sets.load(VideoSet(kind="hmdb51", fold=3), root, "test")
    (root / "testTrainMulti_7030_splits/brush_hair_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(UserError, match="line 1"):
        sets.load(VideoSet(kind="hmdb51"), root, "train")


# DFDC


@pytest.mark.parametrize("parts", [1, 12])
def test_dfdc_keeps_fakes_with_their_original(tmp_path: Path, parts: int) -> None:
    for part in range(parts):
        dfdc_part(tmp_path / f"dfdc_train_part_{part}", 60 if parts == 1 else 2)
    (tmp_path / f"dfdc_train_part_{parts - 1}/1fake_{parts - 1}real1.mp4").unlink()
    train, val = (sets.load(VideoSet(kind="dfdc"), tmp_path, split) for split in ("train", "val"))
    assert train.classes == ("REAL", "FAKE")
    sides = [{video.rpartition("/")[0] + video.rpartition("fake")[2].rpartition("/")[2] for video in by_video(s)} for s in (train, val)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert all(("fake" in video) == (labels == (1,)) for s in (train, val) for video, labels in by_video(s).items())
    assert len(train.samples) + len(val.samples) == parts * 3 * (60 if parts == 1 else 2) - 1
    assert len(train.missing) + len(val.missing) == 1
    if parts == 12:
        assert {video.split("/")[0] for video in by_video(val)} == {"dfdc_train_part_0", "dfdc_train_part_10"}


def test_dfdc_takes_the_list_that_names_originals(tmp_path: Path) -> None:
    """labels.csv beside metadata.json says less: split by it, real and fake of one source part."""
    part = tmp_path / "dfdc_train_part_0"
    dfdc_part(part, 60)
    alone = [by_video(sets.load(VideoSet(kind="dfdc"), tmp_path, split)) for split in ("train", "val")]
    rows = json.loads((part / "metadata.json").read_text())
    (part / "labels.csv").write_text("filename,label\n" + "".join(f"{name},{row['label']}\n" for name, row in rows.items()))
    assert [by_video(sets.load(VideoSet(kind="dfdc"), tmp_path, split)) for split in ("train", "val")] == alone
    (part / "metadata.json").unlink()
    with pytest.raises(UserError, match=r"labels.csv does not say of which video the fake 0fake_0real0.mp4 was made, .* without leaks; add a second part"):
        sets.load(VideoSet(kind="dfdc"), tmp_path, "train")
    dfdc_part(tmp_path / "dfdc_train_part_1", 2)
    assert {video.split("/")[0] for video in by_video(sets.load(VideoSet(kind="dfdc"), tmp_path, "val"))} == {"dfdc_train_part_0"}


@pytest.mark.parametrize("parts", [(1, 2, 3), (0, 10), (7, 27)])
def test_dfdc_has_both_splits_whatever_parts_are_there(tmp_path: Path, parts: tuple[int, ...]) -> None:
    for part in parts:
        dfdc_part(tmp_path / f"dfdc_train_part_{part}", 2)
    train, val = (by_video(sets.load(VideoSet(kind="dfdc"), tmp_path, split)) for split in ("train", "val"))
    assert {video.split("/")[0] for video in val} == {f"dfdc_train_part_{parts[0]}"}
    assert len(train) + len(val) == 6 * len(parts) and not set(train) & set(val)


def test_dfdc_refuses_a_video_that_lies_in_two_folders(tmp_path: Path) -> None:
    for name in ("dfdc_train_part_0", "train_sample_videos"):
        dfdc_part(tmp_path / name, 1)
    shutil.copy(tmp_path / "dfdc_train_part_0/metadata.json", tmp_path / "train_sample_videos/metadata.json")
    with pytest.raises(UserError, match="would train and test on one video"):
        sets.load(VideoSet(kind="dfdc"), tmp_path, "val")


def test_dfdc_keeps_a_fake_with_an_original_of_another_part(tmp_path: Path) -> None:
    for part, content in ((0, {"a.mp4": {"label": "REAL"}}), (1, {"b.mp4": {"label": "FAKE", "original": "a.mp4"}, "c.mp4": {"is_fake": False}})):
        folder = f"dfdc_train_part_{part}"
        put(tmp_path, *(f"{folder}/{name}" for name in content))
        (tmp_path / folder / "metadata.json").write_text(json.dumps(content))
    train, val = (by_video(sets.load(VideoSet(kind="dfdc"), tmp_path, split)) for split in ("train", "val"))
    assert train == {"dfdc_train_part_1/c.mp4": (0,)}
    assert val == {"dfdc_train_part_0/a.mp4": (0,), "dfdc_train_part_1/b.mp4": (1,)}


def test_dfdc_root_may_be_called_test(tmp_path: Path) -> None:
    dfdc_part(tmp_path / "test_of_mine", 60)
    assert by_video(sets.load(VideoSet(kind="dfdc"), tmp_path / "test_of_mine", "train"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "filename,label\na.mp4,1\nb.mp4,0\nc.mp4,Fake\n"),
        ("labels.csv", "a.mp4,fake\nb.mp4,real\nc.mp4,1.0\n"),
        ("metadata.json", '{"a.mp4": {"is_fake": 1}, "b.mp4": {"is_fake": 0}, "c.mp4": {"label": "fake"}}'),
        ("metadata.json", '{"a.mp4": {"is_fake": true}, "b.mp4": {"is_fake": false}, "c.mp4": {"label": "fake"}}'),
    ],
)
def test_dfdc_test_folder(tmp_path: Path, name: str, content: str) -> None:
    put(tmp_path, "test/a.mp4", "test/b.mp4")
    (tmp_path / "test" / name).write_text(content)
    split = sets.load(VideoSet(kind="dfdc"), tmp_path, "test")
    assert by_video(split) == {"test/a.mp4": (1,), "test/b.mp4": (0,)} and split.missing == ("test/c.mp4",)
    with pytest.raises(UserError, match="dfdc_train_part_0"):
        sets.load(VideoSet(kind="dfdc"), tmp_path, "train")


@pytest.mark.parametrize("row", ['"a.mp4": {"label": "FAKE", "original": 3}', '"/etc/a.mp4": {"label": "REAL"}'])
def test_dfdc_names_that_are_none(tmp_path: Path, row: str) -> None:
    put(tmp_path, "dfdc_train_part_0/a.mp4")
    (tmp_path / "dfdc_train_part_0/metadata.json").write_text(f"{{{row}}}")
    with pytest.raises(UserError, match=r"metadata\.json is no list of DFDC .* does not go with file names"):
        sets.load(VideoSet(kind="dfdc"), tmp_path, "train")


@pytest.mark.parametrize("content", ["a.mp4,2\n", "a.mp4,maybe\n", "a.mp4\n"])
def test_dfdc_malformed(tmp_path: Path, content: str) -> None:
    put(tmp_path, "test/a.mp4", "test/labels.csv")
    (tmp_path / "test/labels.csv").write_text(content)
    with pytest.raises(UserError, match="no list of DFDC"):
        sets.load(VideoSet(kind="dfdc"), tmp_path, "test")
