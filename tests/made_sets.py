"""The public data sets as they are distributed, small: annotation files in full, a few videos; and the same with real media."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
from made_videos import picture_file, write
from numpy.typing import NDArray

from csn.data import Split, moving_digits
from csn.spec import MovingDigits

TRAIN, TEST = 3, 2  # videos of a split that `real` makes, where a set lets it choose


def put(root: Path, *names: str) -> None:
    """Empty files of these names: loaders look at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def by_video(split: Split) -> dict[str, tuple[int, ...]]:
    return {sample.video: sample.labels for sample in split.samples}


# Kinetics-400

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


# Sports-1M


def sports_root(root: Path) -> Path:
    (root / "original").mkdir()
    (root / "labels.txt").write_text("\n".join(["fútbol", "скачки", *(f"sport {i}" for i in range(485))]) + "\n", encoding="utf-8")
    rows = "https://www.youtube.com/watch?v=-dqivjS_lpI 168,169\r\nhttp://www.youtube.com/watch?v=bbb&t=3 0\n\nhttps://www.youtube.com/watch?v=gone 5\n"
    with gzip.open(root / "original/train_partition.txt.gz", "wt") as out:
        out.write(rows)
    (root / "original/test_partition.txt").write_text("https://www.youtube.com/watch?feature=x&v=ccc 486\n")
    put(root, "videos/-dqivjS_lpI.mkv", "videos/bbb.FLV", "videos/ccc.webm")
    return root


# Something-Something

TEMPLATES = ["Holding something", "Pulling something from left to right, slowly", "Approaching something with your camera"]
TEMPLATES += [f"Putting something {i:03d} onto something" for i in range(171)]


# UCF101 and HMDB51

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


# class names one of which begins the other: their files sort the other way round (kick_ball_test_split1.txt, kick_test_split1.txt)
HMDB = sorted(["brush_hair", "draw_sword", "kick", "kick_ball", "sword", "sword_exercise", *(f"walk_{i:02d}" for i in range(45))])
ODD = "#20_Rhythm_&_!_[x];(y)_brush_hair_u_nm.avi"


def hmdb_root(root: Path) -> Path:
    """Lists of folds 1 and 2, one absent clip, one whose name is hard on tools."""
    folder = root / "testTrainMulti_7030_splits"
    folder.mkdir()
    for name in HMDB:
        rows = f"{name}_1.avi 1 \n{name}_2.avi 2 \n{name}_3.avi 0 \n" + (f"{ODD} 1 \ngone.avi 1 \n" if name == "brush_hair" else "")
        (folder / f"{name}_test_split1.txt").write_text(rows)
        (folder / f"{name}_test_split2.txt").write_text(f"{name}_3.avi 2 \n")
        put(root, *(f"hmdb51_org/{name}/{name}_{k}.avi" for k in (1, 2, 3)))
    put(root, f"hmdb51_org/brush_hair/{ODD}")
    return root


# DFDC


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


# The same with media that can be decoded


def real(kind: str, root: Path, clips: Path | None = None) -> Path:
    """A root of the set with a few videos in both splits; every empty media file of its builder becomes a real one.

    clips: a folder of real films (see CLIPS) to take instead of generated ones, where it has the container.
    """
    root.mkdir(parents=True)
    match kind:
        case "kinetics400":
            kinetics_root(root)
            kinetics(root, "validate.csv", [(TRICKY[3], "valclip_001", 7, 17), (TRICKY[0], "-_b_cdefghi", 0, 10)])
            put(root, "train/--_a_bcdefg_000084_000094.mp4", "train/same_id_two_000021_000031.mp4", "train/class000007_000000_000010.mp4")
            put(root, "val/valclip_001_000007_000017.mp4", "val/-_b_cdefghi_000000_000010.mp4")
        case "sports1m":
            sports_root(root)
            with (root / "original/test_partition.txt").open("a") as out:
                out.write("https://www.youtube.com/watch?v=ddd 3,7\n")
            put(root, "videos/ddd.mp4")
        case "something-v1":
            (root / "something-something-v1-labels.csv").write_text("\n".join(TEMPLATES) + "\n")
            for split, first, count in (("train", 100, TRAIN), ("validation", 200, TEST)):
                ids = range(first, first + count)
                (root / f"something-something-v1-{split}.csv").write_text("".join(f"{i};{TEMPLATES[i % 174]}\n" for i in (*ids, first + 50)))
                put(root, *(f"20bn-something-something-v1/{i}/{frame:05d}.jpg" for i in ids for frame in range(1, 7)))
        case "something-v2":
            (root / "labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate(sorted(TEMPLATES))}))
            for split, first, count in (("train", 100, TRAIN), ("validation", 200, TEST)):
                rows = [{"id": str(i), "label": "x", "template": TEMPLATES[i % 174].replace("something", "[something]")} for i in range(first, first + count)]
                (root / f"{split}.json").write_text(json.dumps(rows))
                put(root, *(f"20bn-something-something-v2/{row['id']}.webm" for row in rows))
        case "ucf101":
            ucf_root(root)
            with (root / "ucfTrainTestlist/testlist01.txt").open("a") as out:
                out.write("Act001/v_Act001_g01_c01.avi\n")  # there as a folder of one picture
        case "hmdb51":
            hmdb_root(root)
            for path in (root / "hmdb51_org").glob("walk_[1-4]*/*"):  # most classes lose all their videos
                path.unlink()
        case "dfdc":
            for part in (0, 1):
                dfdc_part(root / f"dfdc_train_part_{part}", 2)
        case _:
            raise ValueError(kind)
    empty = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size == 0)
    for k, path in enumerate(empty):
        fill(path, k, clips)
    return root


CODECS = {".avi": "mpeg4", ".webm": "libvpx", ".flv": "flv", ".mkv": "libx264", ".mp4": "libx264"}
CLIPS = {  # real films, and real footage in the codecs and sizes of the sets; none in FLV
    ".avi": ("real/v_ApplyEyeMakeup_g01_c01.avi", "derived/mpeg4_nobframes_320x240.avi", "derived/h264_bframes_g12.avi", "derived/mjpeg_320x240.avi"),
    ".webm": ("derived/vp9_240p_12fps.webm", "derived/seven_frames.webm", "real/big_buck_bunny_432_433.webm"),
    ".mkv": ("real/flipping_a_pancake.mkv", "real/asl_again.mkv"),
    ".mp4": ("real/arm_wrestling_demo.mp4", "real/pool_part_0.mp4", "derived/vfr_320x240.mp4", "derived/h264_opengop_g12.mp4", "derived/one_frame.mp4"),
}  # fmt: skip


def fill(path: Path, k: int, clips: Path | None) -> None:
    """Make a file a video of 6 frames or a picture, by its ending; or the k-th of the real ones, over and over."""
    suffix = path.suffix.lower()
    if clips is not None and suffix in CLIPS:
        path.unlink()
        path.symlink_to(clips / CLIPS[suffix][k % len(CLIPS[suffix])])
    elif suffix == ".jpg":
        frame = int(path.stem.rpartition("_")[2])
        picture_file(path, frame) if clips is None else path.write_bytes((clips / f"frames_ssv1_like/{k % 3 + 1}/{frame:05d}.jpg").read_bytes())
    else:
        write(path, 6, (40, 56), codec=CODECS[suffix])


# A built-in set one film of which comes out otherwise once

FICKLE = 3


def fickle(spec: MovingDigits, split: str, index: int) -> NDArray[np.uint8]:
    """Draws as MovingDigits, but the first time another film in place of training video FICKLE, as the encoder's other answer would be."""
    flag, frames = Path(os.environ["CSN_TEST_FLAG"]), moving_digits.draw(spec, split, index)
    if (split, index) != ("train", FICKLE) or flag.exists():
        return frames
    flag.touch()
    return 255 - frames
