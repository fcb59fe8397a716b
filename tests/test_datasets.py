"""Every data set as it is really distributed: class order, label numbers, layouts, what is missing, what is malformed."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from made_videos import write

from csn.data import Split, lists, sets
from csn.data.__main__ import main
from csn.data.kinetics400 import by_name
from csn.data.media import listing
from csn.data.scan import read_index
from csn.spec import CLASSES, UserError, VideoSet


def put(root: Path, *names: str) -> None:
    """Empty files of these names: loaders look at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def by_video(split: Split) -> dict[str, tuple[int, ...]]:
    return {sample.video: sample.labels for sample in split.samples}


# Kinetics-400 -------------------------------------------------------------------------------------------------------

TRICKY = ["skiing (not slalom or crosscountry)", "skiing crosscountry", "passing American football (in game)", "petting cat"]
KINETICS = sorted(TRICKY + [f"activity {i:03d}" for i in range(396)])


def kinetics(root: Path, name: str, rows: list[tuple[str, str, object, object]], header: str = "label,youtube_id,time_start,time_end,split") -> None:
    """An annotation with the rows (label, id, start, end)."""
    with (root / name).open("w", newline="") as out:
        out.write(header + "\r\n")
        csv.writer(out).writerows([*row, name[:-4]] for row in rows)


def kinetics_root(root: Path) -> Path:
    """Two named clips after one row for every class, which also tells the classes."""
    rows = [(name, f"class{i:06d}", 0, 10) for i, name in enumerate(KINETICS)]
    kinetics(root, "train.csv", [*rows, (TRICKY[0], "--_a_bcdefg", "84.0", 94), (TRICKY[1], "same_id_two", 1, 11), (TRICKY[1], "same_id_two", 21, 31)])
    kinetics(root, "validate.csv", [(TRICKY[3], "valclip_001", 7, 17)])
    return root


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
    assert by_name(["a_b_c_000001_000002.mp4", "-x_1_2.webm"]) == ({("a_b_c", 1, 2): ["a_b_c_000001_000002.mp4"]}, {"-x_1_2": ["-x_1_2.webm"]})


def test_kinetics_csv_forms(tmp_path: Path) -> None:
    put(tmp_path, "a/valclip_001_000007_000017.mp4")
    kinetics(tmp_path, "train.csv", [(name, f"c{i}", 0, 1) for i, name in enumerate(KINETICS)], "label,youtube_id,time_start,time_end,is_cc")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/val.csv").write_text('\ufeffyoutube_id,time_end,time_start,label\nvalclip_001,17.0,7.0,"petting cat"\n', encoding="utf-8")
    assert by_video(sets.load(VideoSet(kind="kinetics400"), tmp_path, "val")) == {"valclip_001_000007_000017": (KINETICS.index("petting cat"),)}
    kinetics(tmp_path, "test.csv", [("valclip_001", "7", 17, "test")], "youtube_id,time_start,time_end,split")  # type: ignore[list-item]
    with pytest.raises(UserError, match="no label column"):
        sets.load(VideoSet(kind="kinetics400"), tmp_path, "test")


def test_kinetics_malformed(tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match=r"`split` \(=valid\) must be one of train, val, test"):
        sets.load(spec, tmp_path, "valid")


# Sports-1M ----------------------------------------------------------------------------------------------------------


def sports_root(root: Path) -> Path:
    (root / "original").mkdir()
    (root / "labels.txt").write_text("\n".join(["fútbol", "скачки", *(f"sport {i}" for i in range(485))]) + "\n", encoding="utf-8")
    rows = "https://www.youtube.com/watch?v=-dqivjS_lpI 168,169\r\nhttp://www.youtube.com/watch?v=bbb&t=3 0\n\nhttps://www.youtube.com/watch?v=gone 5\n"
    with gzip.open(root / "original/train_partition.txt.gz", "wt") as out:
        out.write(rows)
    (root / "original/test_partition.txt").write_text("https://www.youtube.com/watch?feature=x&v=ccc 486\n")
    put(root, "videos/-dqivjS_lpI.mkv", "videos/bbb.FLV", "videos/ccc.webm")
    return root


def test_sports1m(tmp_path: Path) -> None:
    root = sports_root(tmp_path)
    train = sets.load(VideoSet(kind="sports1m"), root, "train")
    assert by_video(train) == {"-dqivjS_lpI": (168, 169), "bbb": (0,)} and train.missing == ("gone",)
    assert train.classes[:2] == ("fútbol", "скачки") and len(train.classes) == 487
    assert by_video(sets.load(VideoSet(kind="sports1m"), root, "test")) == {"ccc": (486,)}
    (root / "original/test_partition.txt").unlink()
    (root / "sports1m_test.json").write_text(json.dumps([{"id": "ccc", "label487": [3, 1], "stitle": "x"}]))
    assert by_video(sets.load(VideoSet(kind="sports1m"), root, "test")) == {"ccc": (1, 3)}


@pytest.mark.parametrize("line", ["https://www.youtube.com/watch?v=a 487", "https://www.youtube.com/a 1", "https://www.youtube.com/watch?v=a", "x y z"])
def test_sports1m_malformed(tmp_path: Path, line: str) -> None:
    (sports_root(tmp_path) / "original/test_partition.txt").write_text(line + "\n")
    with pytest.raises(UserError, match="line 1"):
        sets.load(VideoSet(kind="sports1m"), tmp_path, "test")
    (tmp_path / "original/test_partition.txt").unlink()
    (tmp_path / "sports1m_test.json").write_text('{"id": 1}')
    with pytest.raises(UserError, match="no list of records"):
        sets.load(VideoSet(kind="sports1m"), tmp_path, "test")


# Something-Something ------------------------------------------------------------------------------------------------

TEMPLATES = ["Holding something", "Pulling something from left to right, slowly", "Approaching something with your camera"]
TEMPLATES += [f"Putting something {i:03d} onto something" for i in range(171)]


def test_something_v1_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "something-something-v1-labels.csv").write_text("\n".join(TEMPLATES) + "\n")
    (tmp_path / "something-something-v1-train.csv").write_text(f"100218;{TEMPLATES[1]}\r\n7;{TEMPLATES[2]}\r\n9;{TEMPLATES[0]}\n")
    (tmp_path / "something-something-v1-validation.csv").write_text("7;Holding nothing\n")
    put(tmp_path, "20bn-something-something-v1/7/00001.jpg", "videos/100218.mp4")
    split = sets.load(VideoSet(kind="something-v1"), tmp_path, "train")
    assert split.classes == tuple(TEMPLATES) and split.classes != tuple(sorted(TEMPLATES))
    assert by_video(split) == {"100218": (1,), "7": (2,)} and split.missing == ("9",)
    assert split.samples[1].path == tmp_path / "20bn-something-something-v1/7"
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
    (tmp_path / f"{prefix}labels.json").write_text('{"a": "1"}')
    with pytest.raises(UserError, match="are not 0 to 0"):
        sets.load(VideoSet(kind="something-v2"), tmp_path, "validation")
    (tmp_path / f"{prefix}labels.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        sets.load(VideoSet(kind="something-v2"), tmp_path, "validation")


# UCF101 and HMDB51 --------------------------------------------------------------------------------------------------

UCF = sorted([*(f"Act{i:03d}" for i in range(96)), "Hammering", "HammerThrow", "JumpingJack", "JumpRope", "HandstandPushups"], key=str.lower)


def ucf_root(root: Path) -> Path:
    lists_ = root / "ucfTrainTestlist"
    lists_.mkdir()
    (lists_ / "classInd.txt").write_text("".join(f"{i + 1} {name}\r\n" for i, name in enumerate(UCF)), newline="")
    hand, throw = UCF.index("HandstandPushups") + 1, UCF.index("HammerThrow") + 1
    (lists_ / "trainlist01.txt").write_text(
        f"HandstandPushups/v_HandStandPushups_g08_c01.avi {hand}\r\nHammerThrow/v_HammerThrow_g08_c01.avi {throw}\r\nAct000/v_gone.avi 1\r\n", newline=""
    )
    (lists_ / "testlist01.txt").write_text("Hammering/v_Hammering_g01_c01.avi\r\n\r\n", newline="")
    (lists_ / "testlist02.txt").write_text("Act001/v_Act001_g01_c01.avi\n")
    put(root, "UCF-101/HandstandPushups/v_HandStandPushups_g08_c01.avi", "UCF-101/HammerThrow/v_HammerThrow_g08_c01.avi")
    put(root, "UCF-101/Hammering/v_Hammering_g01_c01.avi", "frames/Act001/v_Act001_g01_c01/img_00001.jpg")
    return root


def test_ucf101(tmp_path: Path) -> None:
    root, spec = ucf_root(tmp_path), VideoSet(kind="ucf101")
    train = sets.load(spec, root, "train")
    assert train.classes == tuple(UCF) and train.classes != tuple(sorted(UCF))
    assert by_video(train) == {"v_HandStandPushups_g08_c01": (UCF.index("HandstandPushups"),), "v_HammerThrow_g08_c01": (UCF.index("HammerThrow"),)}
    assert train.missing == ("Act000/v_gone.avi",)
    assert by_video(sets.load(spec, root, "test")) == {"v_Hammering_g01_c01": (UCF.index("Hammering"),)}
    second = sets.load(VideoSet(kind="ucf101", fold=2), root, "test")
    assert by_video(second) == {"v_Act001_g01_c01": (1,)} and second.samples[0].path.is_dir()
    assert train.fingerprint != second.fingerprint == sets.load(VideoSet(kind="ucf101", fold=2), root, "test").fingerprint


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
    odd = "#20_Rhythm_&_!_[x];(y)_brush_hair_u_nm.avi"
    names = sorted(["brush_hair", "draw_sword", *(f"walk_{i:02d}" for i in range(49))])
    folder = tmp_path / "testTrainMulti_7030_splits"
    folder.mkdir()
    for name in names:
        rows = f"{name}_1.avi 1 \n{name}_2.avi 2 \n{name}_3.avi 0 \n" + (f"{odd} 1 \ngone.avi 1 \n" if name == "brush_hair" else "")
        (folder / f"{name}_test_split1.txt").write_text(rows)
        (folder / f"{name}_test_split2.txt").write_text(f"{name}_3.avi 2 \n")
        put(tmp_path, *(f"hmdb51_org/{name}/{name}_{k}.avi" for k in (1, 2, 3)))
    put(tmp_path, f"hmdb51_org/brush_hair/{odd}")
    train, test = (sets.load(VideoSet(kind="hmdb51"), tmp_path, split) for split in ("train", "test"))
    assert train.classes == test.classes == tuple(names)
    assert len(train.samples) == 52 and len(test.samples) == 51 and train.missing == ("brush_hair/gone.avi",)
    assert by_video(train)[f"brush_hair/{odd[:-4]}"] == (0,) and by_video(train)["draw_sword/draw_sword_1"] == (1,)
    assert len(sets.load(VideoSet(kind="hmdb51", fold=2), tmp_path, "test").samples) == 51
    with pytest.raises(UserError, match="testTrainMulti_7030_splits"):
        sets.load(VideoSet(kind="hmdb51", fold=3), tmp_path, "test")
    (folder / "brush_hair_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(UserError, match="line 1"):
        sets.load(VideoSet(kind="hmdb51"), tmp_path, "train")


# DFDC ---------------------------------------------------------------------------------------------------------------


def dfdc_part(folder: Path, reals: int) -> None:
    """A part with two fakes of every real video, as metadata.json and empty files."""
    rows: dict[str, dict[str, object]] = {}
    for i in range(reals):
        real = f"_{folder.name.rpartition('_')[2]}real{i}.mp4"
        rows[real] = {"label": "REAL", "split": "train", "original": None} if i % 2 else {"label": "REAL", "split": "train"}
        for k in range(2):
            rows[f"{k}fake{real}"] = {"label": "FAKE", "split": "train", "original": real}
    put(folder, *rows)
    (folder / "metadata.json").write_text(json.dumps(rows))


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "filename,label\na.mp4,1\nb.mp4,0\nc.mp4,Fake\n"),
        ("labels.csv", "a.mp4,fake\nb.mp4,real\nc.mp4,1.0\n"),
        ("metadata.json", '{"a.mp4": {"is_fake": 1}, "b.mp4": {"is_fake": 0}, "c.mp4": {"label": "fake"}}'),
    ],
)
def test_dfdc_test_folder(tmp_path: Path, name: str, content: str) -> None:
    put(tmp_path, "test/a.mp4", "test/b.mp4")
    (tmp_path / "test" / name).write_text(content)
    split = sets.load(VideoSet(kind="dfdc"), tmp_path, "test")
    assert by_video(split) == {"test/a.mp4": (1,), "test/b.mp4": (0,)} and split.missing == ("test/c.mp4",)
    with pytest.raises(UserError, match="dfdc_train_part_0"):
        sets.load(VideoSet(kind="dfdc"), tmp_path, "train")


@pytest.mark.parametrize("content", ["a.mp4,2\n", "a.mp4,maybe\n", "a.mp4\n"])
def test_dfdc_malformed(tmp_path: Path, content: str) -> None:
    put(tmp_path, "test/a.mp4", "test/labels.csv")
    (tmp_path / "test/labels.csv").write_text(content)
    with pytest.raises(UserError, match="no list of DFDC"):
        sets.load(VideoSet(kind="dfdc"), tmp_path, "test")


# Plain folders and lists --------------------------------------------------------------------------------------------


def test_folders(tmp_path: Path) -> None:
    put(tmp_path, "b/1.mp4", "b/deep/2.avi", "A/3.MOV", "loose.mp4")
    (tmp_path / "c").mkdir()
    split = sets.load(VideoSet(kind="folder", classes=3), tmp_path, "train")
    assert split.classes == ("A", "b", "c") and split.missing == ("c/ (class without videos)",)
    assert by_video(split) == {"A/3.MOV": (0,), "b/1.mp4": (1,), "b/deep/2.avi": (1,)}
    (tmp_path / "classes.txt").write_text("c\nb\nA\n")
    assert by_video(sets.load(VideoSet(kind="folder", classes=3), tmp_path, "test"))["A/3.MOV"] == (2,)
    (tmp_path / "classes.txt").write_text("c\nb\n")
    with pytest.raises(UserError, match=r"'A' .* is not in classes"):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")


def test_folders_by_split(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/b/3.mp4")
    test = sets.load(VideoSet(kind="folder", classes=2), tmp_path, "test")
    assert by_video(test) == {"test/b/3.mp4": (1,)} and test.classes == ("a", "b")  # a keeps its number
    with pytest.raises(UserError, match=r"`split` .* is no folder"):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "validation")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        sets.load(VideoSet(kind="folder", classes=1), tmp_path / "empty", "train")


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("abseiling/0w_1.mp4 0\r\nriding a bike/b 2.mp4 2\n", {"abseiling/0w_1.mp4": (0,), "riding a bike/b 2.mp4": (2,)}),
        ("abseiling/0w_1.mp4 0 2 4\nriding a bike/b 2.mp4 2\n", {"abseiling/0w_1.mp4": (0, 2, 4), "riding a bike/b 2.mp4": (2,)}),
        ("abseiling/0w_1.mp4,3\n", {"abseiling/0w_1.mp4": (3,)}),
        ("some/dir 127 5\nother dir 3/7 90 1\n", {"some/dir": (5,), "other dir 3/7": (1,)}),
        ("some/dir 1 127 5\nother dir 3/7 1 90 1\n", {"some/dir": (5,), "other dir 3/7": (1,)}),
        ("org_video,label,start_frm\nabseiling/0w_1.mp4,4,0\n", {"abseiling/0w_1.mp4": (4,)}),
        ("org_video,label\nriding a bike/b 2.mp4,1\n", {"riding a bike/b 2.mp4": (1,)}),
    ],
)
def test_lists_of_other_tools(tmp_path: Path, content: str, labels: dict[str, tuple[int, ...]]) -> None:
    put(tmp_path, "abseiling/0w_1.mp4", "riding a bike/b 2.mp4", "some/dir/00001.jpg", "other dir 3/7/00001.jpg")
    (tmp_path / "train.txt").write_text(content + "", newline="")
    found = by_video(lists.load(tmp_path, tmp_path / "train.txt", listing(tmp_path)))
    assert found == labels
    count = max(max(value) for value in labels.values()) + 1
    assert by_video(sets.load(VideoSet(kind="folder", classes=count), tmp_path, "train")) == labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4 zero\n", "line 1"),
        ("5\n", "line 1"),
        ("", "is empty"),
        ("x,label\na.mp4,1\n", "no column org_video"),
        ("org_video,label\na.mp4,one\n", "line 2"),
        ("some/dir 30 90 1\n", "begins at picture 30"),
        ("a.mp4 9\n", "label 9 of 'a.mp4' is not among the 2 classes"),
    ],
)
def test_malformed_lists(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(content)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=message):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")


def test_lists_with_absent_files(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    (tmp_path / "train.txt").write_text(f"{tmp_path}/a.mp4 0\nb.mp4 1\n")
    split = sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")
    assert by_video(split) == {"a.mp4": (0,)} and split.missing == ("b.mp4",) and split.classes == ("0", "1")
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(UserError, match="None of the 2 videos of folder train is below"):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")


# The command --------------------------------------------------------------------------------------------------------


def test_every_set_of_the_specification_has_splits() -> None:
    assert set(sets.SPLITS) == {*CLASSES, "folder"}


def test_scan_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ucf_root(tmp_path)
    (root / "frames/Act001/v_Act001_g01_c01/img_00001.jpg").unlink()
    for name in ("Hammering/v_Hammering_g01_c01.avi", "HammerThrow/v_HammerThrow_g08_c01.avi"):
        write(root / "UCF-101" / name, 4, codec="mpeg4")
    assert main(["scan", "--dataset", "ucf101", "--root", str(root), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "3 videos, 1 damaged" in out and "0 read by decord" in out
    assert "train: 2 videos of 101 classes, 1 missing" in out and "missing: Act000/v_gone.avi" in out
    index = read_index(root)
    assert (root / "csn_index.damaged.txt").read_text().startswith("UCF-101/HandstandPushups/v_HandStandPushups_g08_c01.avi\t")
    files = sets.load(VideoSet(kind="ucf101"), root, "test", list(index.entries))
    assert [index.plan(sample.path).frames for sample in files.samples] == [4]


def test_scan_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--dataset", "hmdb51", "--root", str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().out
    assert main(["scan", "--dataset", "hmdb51", "--root", str(tmp_path), "--quick", "--index", str(tmp_path / "i.jsonl")]) == 2
    assert "The lists of HMDB51 not found" in capsys.readouterr().out
