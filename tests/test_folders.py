"""Plain class folders, the list formats of other tools, and the scan command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_sets import by_video, put, ucf_root
from made_videos import write, write_folder

from csn.data import lists, loader, sets
from csn.data.__main__ import main
from csn.data.loader import Reader, load, reader_of, train_batches
from csn.data.media import listing
from csn.data.scan import read_index, scan
from csn.data.video import VideoError, read_frames
from csn.recipes import SMOKE
from csn.spec import CLASSES, UserError, VideoSet

# Plain folders and lists


def test_folders(tmp_path: Path) -> None:
    put(tmp_path, "b/1.mp4", "b/deep/2.avi", "A/3.MOV", "loose.mp4")
    (tmp_path / "c").mkdir()
    split = sets.load(VideoSet(kind="folder", classes=3), tmp_path, "train")
    assert split.classes == ("A", "b", "c") and split.empty == ("c",) and not split.missing
    assert split.outside == ("loose.mp4",) and "warning: train: left out, in no class folder: loose.mp4" in split.told("train")
    assert by_video(split) == {"A/3.MOV": (0,), "b/1.mp4": (1,), "b/deep/2.avi": (1,)}
    (tmp_path / "classes.txt").write_text("c\nb\nA\n")
    assert by_video(sets.load(VideoSet(kind="folder", classes=3), tmp_path, "test"))["A/3.MOV"] == (2,)
    (tmp_path / "classes.txt").write_text("c\nb\n")
    with pytest.raises(UserError, match=r"'A' .* is not in classes.txt; add it there"):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")


def test_folders_by_split(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/b/3.mp4", "test/4.mp4", "train/5.mp4", "6.mp4")
    test = sets.load(VideoSet(kind="folder", classes=2), tmp_path, "test")
    assert by_video(test) == {"test/b/3.mp4": (1,)} and test.classes == ("a", "b")  # a keeps its number
    assert set(test.outside) == {"test/4.mp4", "6.mp4"}
    with pytest.raises(UserError, match=r"`split` \(=validation\) is neither a folder nor a list of .*, which has train; add validation/ or validation.txt"):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "validation")
    put(tmp_path, "test/c/7.mp4")
    with pytest.raises(UserError, match=r"The folder 'c' of .*/test is not among the class folders of .*/train; add it there, or move it away"):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        sets.load(VideoSet(kind="folder", classes=1), tmp_path / "empty", "train")


def test_a_video_smaller_than_the_crop_counts_as_damaged(tmp_path: Path) -> None:
    """It is replaced in training and a miss in the test; too many are an error before training."""
    for split, number in (("train", 24), ("test", 24)):
        for i in range(number):
            write(tmp_path / "folder" / split / "ab"[i % 2] / f"{i:02}.mp4", 12, (24, 32) if i == 5 else (32, 40))
    recipe = replace(SMOKE, scale="own", data=VideoSet(kind="folder", classes=2), batch=8, micro_batch=8, clips_per_epoch=24, epochs=2, warmup=0)
    scan(tmp_path / "folder", listing(tmp_path / "folder"))
    train, test = (load(recipe, tmp_path, split) for split in ("train", "test"))
    assert train.unreadable == ("train/b/05.mp4",) and "warning: test: of these smaller than the crop: test/b/05.mp4" in test.told("test")
    reader = reader_of(recipe, tmp_path, {"train": train, "test": test})
    found = list(train_batches(train, recipe, 0, 0, reader))
    assert len(found) == 6 and [name for *_, damaged in found for name in damaged] == ["train/b/05.mp4"] * 2  # once an epoch
    assert all(clips.shape == (8, 4, 32, 32, 3) for clips, *_ in found)
    assert [test.samples[index].video for _, index, readable in loader.test_videos(test, recipe, reader) if not readable] == ["test/b/05.mp4"]
    assert not load(replace(recipe, resize=(36, 40)), tmp_path, "train").unreadable
    write(tmp_path / "folder" / "train" / "a" / "small.mp4", 12, (30, 40))
    scan(tmp_path / "folder", listing(tmp_path / "folder"))
    why = r"`crop` \(=32\) of the recipe is larger than the frames of 2 of 25 videos of folder train \(train/.*\); give the recipe `resize`, crop less"
    with pytest.raises(UserError, match=why):
        load(recipe, tmp_path, "train")


@pytest.mark.parametrize("name", ["val", "validation"])
def test_other_names_of_the_test_videos(tmp_path: Path, name: str) -> None:
    put(tmp_path / "folders", "train/a/1.mp4", "train/b/2.mp4", f"{name}/b/3.mp4")
    assert by_video(sets.load(VideoSet(kind="folder", classes=2), tmp_path / "folders", "test")) == {f"{name}/b/3.mp4": (1,)}
    put(tmp_path / "lists", "z/1.mp4", "y/2.mp4", "y/3.mp4")
    (tmp_path / "lists/train.csv").write_text("z/1.mp4,0\ny/2.mp4,1\n")
    with pytest.raises(UserError, match=r"`split` \(=test\) is neither .*, which has train.csv"):  # never the training videos in its place
        sets.load(VideoSet(kind="folder", classes=2), tmp_path / "lists", "test")
    (tmp_path / f"lists/{name}.csv").write_text("y/3.mp4,1\n")
    assert by_video(sets.load(VideoSet(kind="folder", classes=2), tmp_path / "lists", "test")) == {"y/3.mp4": (1,)}


def test_what_editors_and_systems_leave_is_no_video(tmp_path: Path) -> None:
    put(tmp_path, "a/1.mp4", "a/._1.mp4", "a/.cache/2.mp4", ".Trash/3.mp4", "a/thumb_1.jpg", "b/flow_x_1.jpg")
    assert listing(tmp_path) == ["a/1.mp4"]


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("abseiling/0w_1.mp4 0\r\nriding a bike/b 2.mp4 2\n", {"abseiling/0w_1.mp4": (0,), "riding a bike/b 2.mp4": (2,)}),
        ("abseiling/0w_1.mp4 0 2 4\nriding a bike/b 2.mp4 2\n", {"abseiling/0w_1.mp4": (0, 2, 4), "riding a bike/b 2.mp4": (2,)}),
        ("abseiling/0w_1.mp4,3\n", {"abseiling/0w_1.mp4": (3,)}),
        ("abseiling/0w_1.mp4, 3\nriding a bike/b 2.mp4 , 2\n", {"abseiling/0w_1.mp4": (3,), "riding a bike/b 2.mp4": (2,)}),
        ("abseiling/0w_1.mp4 0, 4\n", {"abseiling/0w_1.mp4": (0, 4)}),
        ("some/dir, 127, 5\nother dir 3/7, 90, 1\n", {"some/dir": (5,), "other dir 3/7": (1,)}),
        ("some/dir 127 5\nother dir 3/7 90 1\n", {"some/dir": (5,), "other dir 3/7": (1,)}),
        ("some/dir 1 127 5\nother dir 3/7 1 90 1\n", {"some/dir": (5,), "other dir 3/7": (1,)}),
        ("film.mp4 127 5\ngone.mp4 30 1\n", {"film.mp4": (5,)}),  # a folder of pictures called like its film
        ("abseiling/0w_1.mp4\t3\nriding a bike/b 2.mp4\t2\n", {"abseiling/0w_1.mp4": (3,), "riding a bike/b 2.mp4": (2,)}),
        ("org_video, label\nabseiling/0w_1.mp4, 4\n", {"abseiling/0w_1.mp4": (4,)}),
        ("abseiling/0w_1.mp4 1\nabseiling/0w_1.mp4 1\n", {"abseiling/0w_1.mp4": (1,)}),
        ("org_video,label,start_frm\nabseiling/0w_1.mp4,4,0\n", {"abseiling/0w_1.mp4": (4,)}),
        ("org_video,label\nriding a bike/b 2.mp4,1\n", {"riding a bike/b 2.mp4": (1,)}),
    ],
)
def test_lists_of_other_tools(tmp_path: Path, content: str, labels: dict[str, tuple[int, ...]]) -> None:
    put(tmp_path, "abseiling/0w_1.mp4", "riding a bike/b 2.mp4", "some/dir/00001.jpg", "other dir 3/7/00001.jpg", "film.mp4/00001.jpg")
    (tmp_path / "train.txt").write_text(content + "", newline="")
    found = by_video(lists.load(tmp_path, tmp_path / "train.txt", listing(tmp_path)))
    assert found == labels
    count = max(max(value) for value in labels.values()) + 1
    assert by_video(sets.load(VideoSet(kind="folder", classes=count), tmp_path, "train")) == labels


def test_a_class_of_which_a_video_has_it_as_a_further_label_is_not_empty(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0 2 4\nb.mp4 2\n")
    assert sets.load(VideoSet(kind="folder", classes=5), tmp_path, "train").empty == ("1", "3")


def test_other_labels_or_class_names_are_another_set(tmp_path: Path) -> None:
    """By its fingerprint a run knows that its videos are still those it began with; how the root is called tells nothing."""
    seen = []
    for name, rows, classes in (("a", "a.mp4 0\nb.mp4 1\n", "x\ny\n"), ("b", "a.mp4 1\nb.mp4 0\n", "x\ny\n"), ("c", "a.mp4 0\nb.mp4 1\n", "y\nx\n")):
        for root in (tmp_path / name, tmp_path / "again" / name):
            put(root, "a.mp4", "b.mp4")
            (root / "train.txt").write_text(rows)
            (root / "classes.txt").write_text(classes)
            seen.append(sets.load(VideoSet(kind="folder", classes=2), root, "train").fingerprint)
    assert seen[::2] == seen[1::2] and len(set(seen)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4 zero\n", "line 1"),
        ("5\n", "line 1"),
        ("", "is empty"),
        ("x,label\na.mp4,1\n", "no column org_video"),
        ("org_video,label\na.mp4,one\n", "line 2"),
        ("org_video,label\n,1\n", "line 2: it names no video"),
        ("org_video,label,start_frm\na.mp4,1,-4\n", "line 2: .* a first frame below 0"),
        ("org_video,Label\na.mp4,1\n", "line 2: 'label'"),
        ("some/dir 5 \u00b2\n", "line 1"),
        (f"a.mp4 {'9' * 5000}\n", "line 1: not `path label`"),
        ("a.mp4 0\nb.mp4 1\na.mp4 1\n", "line 3: 'a.mp4' has label 1, in an earlier line 0; remove one of the two"),
        ("a.mp4 9\n", "line 1: label 9 of 'a.mp4' is not among the 2 classes"),
    ],
)
def test_malformed_lists(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(content)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=message):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")


def test_clips_of_a_list_are_parts_of_a_film(tmp_path: Path) -> None:
    """Frames 12 to 16 and 3 on of one folder, 20 on of a film: each a video of its own, read where the list says."""
    whole = read_frames(write_folder(tmp_path / "dir", 24), range(24))
    film = write(tmp_path / "film.mp4")
    (tmp_path / "train.txt").write_text("dir 12 5 0\ndir 3 99 1\ndir 12 5 0\ndir 24 5 0\n")
    (tmp_path / "test.csv").write_text("org_video,label,start_frm\nfilm.mp4,0,20\n")
    train, test = (sets.load(VideoSet(kind="folder", classes=2), tmp_path, split) for split in ("train", "test"))
    assert by_video(train) == {"dir:12+5": (0,), "dir:3+99": (1,), "dir:24+5": (0,)} and train.repeated == ("dir:12+5",)
    assert "warning: train: listed twice: dir:12+5" in train.told("train")
    reader = Reader()
    assert [reader.length(sample) for sample in (*train.samples[:2], *test.samples)] == [5, 21, 4]
    assert np.array_equal(reader.frames(train.samples[0], np.array([0, 4])), whole[[12, 16]])
    assert np.array_equal(reader.frames(test.samples[0], np.array([3])), read_frames(film, [23]))
    with pytest.raises(VideoError, match="it has 24 frames, the list begins after 24"):
        reader.length(train.samples[2])


def test_a_list_without_the_highest_class(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 2\n")
    (tmp_path / "val.csv").write_text("a.mp4,1\n")
    assert sets.load(VideoSet(kind="folder", classes=3), tmp_path, "test").classes == ("0", "1", "2")
    (tmp_path / "val.csv").write_text("a.mp4,999999999\n")  # some other number
    with pytest.raises(UserError, match=r"label 999999999 of 'a.mp4' is not among the 100000 classes"):
        sets.load(VideoSet(kind="folder", classes=3), tmp_path, "test")


def test_lists_with_absent_files(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    (tmp_path / "train.txt").write_text(f"{tmp_path}/a.mp4 0\nb.mp4 1\n")
    split = sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")
    assert by_video(split) == {"a.mp4": (0,)} and split.missing == ("b.mp4",) and split.classes == ("0", "1")
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(UserError, match="None of the 2 videos of folder train is below"):
        sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train")


# The command


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
    write(root / "UCF-101/Act001/v_Act001_g01_c01.avi", 4, codec="mpeg4")
    assert main(["scan", "--dataset", "ucf101", "--root", str(root), "--workers", "1", "--fold", "2"]) == 0
    assert "test: 1 videos of 101 classes, 0 missing" in capsys.readouterr().out  # Act001, which only the second fold tests


def test_a_scan_tells_the_same_however_its_root_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "[b] set"
    write(root / "a/1.mp4", 4)
    (root / "a/2.mp4").write_text("<html>")
    (root / "train.txt").write_text(f"{root}/a/1.mp4 0\n{root}/a/2.mp4 1\n")
    (root / "test.txt").write_text("a/1.mp4 0\na/2.mp4 1\n")
    for where, name in ((tmp_path, "[b] set"), (root, "."), (root, str(root)), (root, "../[b] set")):
        monkeypatch.chdir(where)
        assert main(["scan", "--dataset", "folder", "--root", name, "--workers", "1"]) == 0
        out = capsys.readouterr().out
        assert [f"{split}: 2 videos of 2 classes, 0 missing, 1 damaged" in out for split in ("train", "test")] == [True, True], out
        assert f"{root}/csn_index.damaged.txt" in out


def test_a_scan_warns_of_a_folder_that_is_not_parted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run" / "a.mp4")
    assert main(["scan", "--dataset", "folder", "--root", str(tmp_path)]) == 0
    assert "warning: there is no train/ and no test/: every split is all of it" in capsys.readouterr().out
    for split in ("train", "val"):
        (tmp_path / split / "run").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"folder train has no video below {tmp_path}; put them there, and scan again"):
        sets.load(VideoSet(kind="folder", classes=1), tmp_path, "train", ["run/a.mp4"])  # by an index of before


def test_scan_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--dataset", "hmdb51", "--root", str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["scan", "--dataset", "hmdb51", "--root", str(tmp_path), "--quick", "--index", str(tmp_path / "i.jsonl")]) == 2
    assert "The lists of HMDB51 not found" in capsys.readouterr().out
    assert main(["scan", "--dataset", "ucf101", "--root", str(tmp_path), "--seconds", "0"]) == 2
    assert "`seconds` (=0.0) must be above 0." in capsys.readouterr().err
    assert main(["scan", "--dataset", "ucf101", "--root", str(tmp_path), "--fold", "4"]) == 2
    assert "`--fold` (=4) must be 1, 2 or 3." in capsys.readouterr().err
    (tmp_path / "train.txt").write_text("gone.mp4 0\n")
    assert main(["scan", "--dataset", "folder", "--root", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "train: 0 videos of 1 classes, 1 missing" in out and "is one of folder to train or test on; check --root and --dataset." in err
    assert "every split is all of it" not in out
    assert main(["scan", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: The following arguments are required: --dataset; --help lists the flags.\n"
