"""The scan names what is damaged, survives hangs and crashes, goes on where it stopped; its index reads quickly."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import pytest
from conftest import run
from made_videos import X264, picture_file, write, write_folder
from PIL import Image

from csn.data import probing, sets
from csn.data.media import listing, stem
from csn.data.scan import _examine as examine
from csn.data.scan import index_file, read_index, scan
from csn.data.video import VideoError, VideoPlan, decode, probe, read_frames
from csn.data.workers import Pool, Worker
from csn.spec import UserError, VideoSet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "a/safe.mp4", bf="0")
    write(tmp_path / "a/b.AVI", codec="mpeg4", bf="2", g="8")
    write_folder(tmp_path / "7", frames=5)
    (tmp_path / "a/page.mp4").write_text("<html>")
    (tmp_path / "a/notes.txt").write_text("no video")
    return tmp_path


def dies(name: str, path: str) -> VideoPlan:
    """A check whose decoder crashes on one file."""
    if path.endswith(name):
        os.kill(os.getpid(), signal.SIGSEGV)
    return probe(path)


def unforeseen(path: str) -> VideoPlan:
    raise ZeroDivisionError(path)


def test_scan_finds_what_the_door_finds(root: Path) -> None:
    paths = listing(root)
    assert paths == ["7", "a/b.AVI", "a/page.mp4", "a/safe.mp4"]
    seen: list[tuple[int, int, int]] = []
    index = scan(root, paths, progress=lambda *state: seen.append(state), workers=2)
    assert seen[0] == (0, 4, 0) and seen[-1] == (4, 4, 1)
    assert list(index.damaged) == ["a/page.mp4"] and "Invalid data" in index.damaged["a/page.mp4"]
    (root / "a" / "page.mp4").rename(root / "page.mp4")
    scan(root, listing(root)[:-1], progress=lambda *state: seen.append(state))
    assert seen[-1] == (3, 3, 0)  # what is gone, or checked again, does not count
    (root / "page.mp4").rename(root / "a" / "page.mp4")
    scan(root, paths, progress=lambda *state: seen.append(state))
    assert seen[-1] == (4, 4, 1)
    again = read_index(root)
    for path in ("7", "a/b.AVI", "a/safe.mp4"):
        plan = again.plan(root / path)
        assert plan == probe(root / path) == index.plan(root / path)
        assert np.array_equal(read_frames(root / path, [3, 0], plan), read_frames(root / path, [3, 0]))
        assert len(again.entries[path].digest) == 64
    with pytest.raises(VideoError, match=r"page\.mp4 cannot be read: Invalid data"):
        again.plan(root / "a/page.mp4")
    with pytest.raises(VideoError, match="not in the index"):
        again.plan(root / "other.mp4")
    with pytest.raises(VideoError, match="not in the index"):
        read_index(root / "a").plan(root / "a/safe.mp4")


def test_scan_goes_on_where_it_stopped(root: Path) -> None:
    scan(root, ["a/safe.mp4"])
    with index_file(root).open("a") as out:
        out.write('{"path": "a/b.AVI", "size"')  # power cut in the middle of a line
    assert list(read_index(root).entries) == ["a/safe.mp4"]
    scan(root, listing(root))
    lines = [json.loads(line)["path"] for line in index_file(root).read_text().splitlines()]
    assert lines[0] == "a/safe.mp4" and sorted(lines) == listing(root)
    write(root / "a/safe.mp4", frames=9)
    with pytest.raises(VideoError, match="changed since the scan"):
        read_index(root).plan(root / "a/safe.mp4")
    scan(root, listing(root))
    assert len(index_file(root).read_text().splitlines()) == 5  # the changed file, and no other, once more
    assert read_index(root).plan(root / "a/safe.mp4").frames == 9
    (root / "a/safe.mp4").unlink()
    assert "a/safe.mp4" not in scan(root, listing(root)).entries
    with pytest.raises(VideoError, match="not in the index"):
        read_index(root).plan(root / "a/safe.mp4")
    assert list(read_index(root).entries) == sorted(listing(root))


def test_what_was_checked_is_on_disk_before_the_next_file_is(root: Path) -> None:
    """However a scan of days ends, no answer it has told is lost."""
    seen: list[tuple[int, int]] = []
    scan(root, listing(root), progress=lambda done, *_: seen.append((done, len(read_index(root).entries))))
    assert seen == [(k, k) for k in range(5)]


def test_a_full_scan_checks_again_what_a_quick_one_saw(tmp_path: Path) -> None:
    """A quick scan lists packets and sees no damage."""
    path = write(tmp_path / "a.mp4", **X264)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    at = content.find(bytes(packets[5])) + 20
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    assert not scan(tmp_path, ["a.mp4"], check=partial(probe, quick=True), quick=True).damaged
    assert not scan(tmp_path, ["a.mp4"], check=unforeseen, quick=True).damaged  # known
    assert scan(tmp_path, ["a.mp4"]).damaged and read_index(tmp_path).damaged
    assert scan(tmp_path, ["a.mp4"], check=unforeseen, quick=True).damaged  # a quick scan leaves what a full one found


def test_a_file_that_could_not_be_read_to_its_end_is_checked_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", broken)
        entry = examine(probe, root, "a/safe.mp4")
    assert (entry.digest, entry.plan, entry.error) == ("", None, "Input/output error.")
    index_file(root).write_text(json.dumps(asdict(entry)) + "\n")
    assert not scan(root, ["a/safe.mp4"]).damaged


def test_what_took_too_long_is_checked_again(root: Path) -> None:
    assert scan(root, ["a/safe.mp4"], check=partial(dies, "safe.mp4")).damaged
    assert not scan(root, ["a/safe.mp4"]).damaged


def test_a_file_replaced_by_one_of_equal_size(tmp_path: Path) -> None:
    """Its time gives it away; a copy with another time is known by its bytes, one with the time in whole seconds by that alone."""
    path = write(tmp_path / "a.mp4", bf="0")
    index = scan(tmp_path, ["a.mp4"])
    content, entry = path.read_bytes(), index.entries["a.mp4"]
    os.utime(path, ns=(0, 0))
    assert index.plan(path) == entry.plan  # the same bytes
    path.write_bytes(content[:-1] + b"\0")
    with pytest.raises(VideoError, match="it has changed since the scan"):
        index.plan(path)
    for kept in (entry.mtime_ns, entry.mtime_ns // 10**9 * 10**9):
        os.utime(path, ns=(kept, kept))
        assert index.plan(path) == entry.plan  # not even opened


def dies_after(name: str, path: str) -> VideoPlan:
    """A check after which the process dies, with its answer sent: as when a decoder frees what it holds."""
    if path.endswith(name):
        send = Connection.send

        def last(pipe: Connection, answer: object) -> None:
            send(pipe, answer)
            os.kill(os.getpid(), signal.SIGSEGV)

        Connection.send = last  # type: ignore[method-assign]
    return probe(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_after_an_answer_costs_no_other_file(tmp_path: Path, workers: int) -> None:
    for i in range(5):
        write(tmp_path / f"{i}.mp4", 3)
    for name in ("1.mp4", ".mp4"):
        index_file(tmp_path).unlink(missing_ok=True)
        index = scan(tmp_path, listing(tmp_path), check=partial(dies_after, name), workers=workers)
        assert len(index.entries) == 5 and not index.damaged


def test_a_large_file_has_more_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {}

    class Noting(Pool):
        def hand(self, worker: Worker, path: str) -> Worker:
            limits[path] = self.limit(path)
            return super().hand(worker, path)

    monkeypatch.setattr("csn.data.scan.Pool", Noting)
    with (root / "a/page.mp4").open("ab") as out:
        out.truncate(20_000_000)
    scan(root, ["a/page.mp4", "7"], seconds=60)
    assert limits["a/page.mp4"] == 160 and 60 < limits["7"] < 61
    for seconds in (0, -1):
        with pytest.raises(UserError, match=rf"`seconds` \(={seconds}\) must be above 0"):
            scan(root, [], seconds=seconds)


def test_few_large_frames_are_compared_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Noting(decord.VideoReader):
        def get_batch(self, indices: list[int]) -> object:
            asked.append(len(indices))
            return super().get_batch(indices)

    monkeypatch.setattr(probing.decord, "VideoReader", Noting)
    monkeypatch.setattr(probing, "CHUNK_BYTES", 5 * 64 * 96 * 3 + 1)
    assert probe(write(tmp_path / "a.mp4", bf="0")).reader == "decord"
    assert asked[:5] == [5, 5, 5, 5, 4]


def test_a_hanging_decoder_is_killed(root: Path) -> None:
    os.mkfifo(root / "a/hang.mp4")  # opening it waits for a writer for ever
    index = scan(root, listing(root), workers=1, seconds=2.0)
    assert index.entries["a/hang.mp4"].error == "reading it took longer than the time limit."
    assert index.plan(root / "a/safe.mp4").frames == 24


def test_a_crashing_decoder_takes_one_worker(root: Path) -> None:
    index = scan(root, listing(root), check=partial(dies, "b.AVI"), workers=1)
    assert index.entries["a/b.AVI"].error == "reading it ended the process (exit code -11)."
    assert index.plan(root / "a/safe.mp4").frames == 24
    assert sorted(index.damaged) == ["a/b.AVI", "a/page.mp4"]


def test_an_unforeseen_error_is_recorded(root: Path) -> None:
    index = scan(root, ["a/safe.mp4"], check=unforeseen)
    assert "ZeroDivisionError" in index.damaged["a/safe.mp4"]


def test_damage_inside_a_readable_file_is_listed(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.mkv", 200, g="12").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    index = scan(tmp_path, listing(tmp_path))
    assert list(index.damaged) == ["cut.mkv"] and index.damaged["cut.mkv"].startswith("ends early")
    assert index.plan(tmp_path / "cut.mkv").frames == sum(1 for _ in decode(tmp_path / "cut.mkv"))


def test_a_script_without_a_main_block_is_told_of_it(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    work = f"scan(Path({str(root)!r}), ['a/safe.mp4', 'a/b.AVI'], workers=1, file=Path({str(tmp_path / 'index')!r}))"
    script.write_text(f"from pathlib import Path\nfrom csn.data.scan import scan\nprint(len({work}.entries))\n")
    refused = run(str(script))
    assert refused.returncode == 1 and f"UserError: {root} is scanned by several processes, which read your script anew" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("csn.rules.UserError: A process that reads videos ended before it began")
    script.write_text(script.read_text().replace("print(", "if __name__ == '__main__':\n    print("))
    assert run(str(script)).stdout == "2\n"


def test_what_a_person_can_get_wrong(root: Path) -> None:
    with index_file(root).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another scan is writing"):
            scan(root, listing(root))
    with pytest.raises(UserError, match="Cannot write the index"):
        scan(root, [], root / "absent/index.jsonl")
    index_file(root).write_text("[]\n")
    with pytest.raises(UserError, match="damaged"):
        read_index(root)
    with pytest.raises(UserError, match="is not a folder"):
        listing(root / "absent")


def test_a_file_that_is_no_index_is_left_as_it_is(root: Path) -> None:
    for content in (b"a.mp4 0\nb.mp4 1", b"\x00\x00\x00\x18ftypmp42\n\x01", b"[]"):
        (root / "other").write_bytes(content)
        with pytest.raises(UserError, match=r"`--index` \(=.*other\) is no index of a scan; give another file"):
            scan(root, listing(root), root / "other")
        assert (root / "other").read_bytes() == content
    (root / "other").write_bytes(b'{"pa')  # of a scan that was killed in its first line
    assert len(scan(root, listing(root), root / "other").entries) == 4


def test_the_frames_that_a_list_gives_a_video_are_counted(tmp_path: Path) -> None:
    for name in ("whole", "short", "none", "gone"):
        write_folder(tmp_path / name, frames=6)
    (tmp_path / "train.txt").write_text("whole 6 0\nshort 127 1\nnone 0 1\ngone 6 1\n")
    (tmp_path / "test.txt").write_text("whole 1 5 0\nshort 4 3 1\ngone 6 3 1\n")
    index = scan(tmp_path, listing(tmp_path))
    splits = [index.marked(sets.load(VideoSet(kind="folder", classes=2), tmp_path, name, list(index.entries))) for name in ("train", "test")]
    assert (splits[0].missing, splits[0].cut, splits[0].unreadable) == (("none",), ("short",), ())
    assert (splits[1].missing, splits[1].cut, splits[1].unreadable) == ((), ("short",), ("gone",))
    before = splits[0].fingerprint
    (tmp_path / "train.txt").write_text("whole 5 0\nshort 127 1\nnone 0 1\ngone 6 1\n")
    assert sets.load(VideoSet(kind="folder", classes=2), tmp_path, "train").fingerprint != before


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a/1.mp4", frames=1)
    write(tmp_path / "b/2.mp4", frames=1)
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"The folder .*/b cannot be read \(Permission denied\)"):
        listing(tmp_path)


def test_ctrl_c_is_for_the_process_that_has_the_workers(root: Path) -> None:
    """A terminal sends it to all of them: a worker prints no traceback of its own, not even while it starts."""
    worker = Worker(probe)
    try:
        os.kill(worker.process.pid or 0, signal.SIGINT)
        worker.give(str(root / "a/safe.mp4"), 60)
        os.kill(worker.process.pid or 0, signal.SIGINT)
        assert worker.pipe.poll(60) and isinstance(worker.take(), VideoPlan)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # here it is taken as before
    finally:
        worker.end()


def test_an_index_of_240000_videos_loads(tmp_path: Path) -> None:
    line = {
        "size": 1,
        "mtime_ns": 2,
        "digest": "0" * 64,
        "error": "",
        "plan": {"frames": 300, "height": 256, "width": 340, "fps": 30.0, "reader": "decord", "reason": "", "damage": ""},
    }
    with index_file(tmp_path).open("w") as out:
        for i in range(240_000):
            out.write(json.dumps({"path": f"train/{i:06d}.mp4", **line}) + "\n")
    index = read_index(tmp_path)
    assert len(index.entries) == 240_000 and not index.damaged
    (tmp_path / "train").mkdir()
    (tmp_path / "train/239999.mp4").write_bytes(b"x")
    os.utime(tmp_path / "train/239999.mp4", ns=(2, 2))
    assert index.plan(tmp_path / "train/239999.mp4").frames == 300


def test_an_index_costs_little_more_than_its_text(tmp_path: Path) -> None:
    """So that training on 240,000 videos starts in seconds: no file is touched, and no line is looked at twice."""
    plan = {"frames": 300, "height": 256, "width": 340, "fps": 30.0, "reader": "decord", "reason": "", "damage": ""}
    entry = {"size": 1, "mtime_ns": 2, "digest": "0" * 64, "error": "", "plan": plan}
    lines = [json.dumps({"path": f"train/{i % 40}/{i:06d}.mp4", **entry}) for i in range(24_000)]
    (tmp_path / "train.txt").write_text("".join(f"train/{i % 40}/{i:06d}.mp4 {i % 40}\n" for i in range(24_000)))
    index_file(tmp_path).write_text("".join(line + "\n" for line in lines))
    laps: dict[str, list[float]] = {"text": [], "index": [], "split": []}

    def lap(name: str, do: Callable[[], Any]) -> Any:
        began = time.process_time()
        found = do()
        laps[name].append(time.process_time() - began)
        return found

    for _ in range(3):
        lap("text", lambda: [json.loads(line) for line in lines])
        index = lap("index", lambda: read_index(tmp_path))
        split = lap("split", lambda index=index: index.marked(sets.load(VideoSet(kind="folder", classes=40), tmp_path, "train", list(index.entries))))
    assert len(split.samples) == 24_000
    assert min(laps["index"]) < 5 * min(laps["text"]) and min(laps["split"]) < 8 * min(laps["text"]), laps


def test_listing_follows_links_once(tmp_path: Path) -> None:
    write(tmp_path / "disk/v.mp4", frames=1)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/round").symlink_to(tmp_path / "root")
    assert listing(tmp_path / "root") == ["link/v.mp4"]
    assert [stem(p) for p in ("a/b.c.MP4", "a/20", "x#&!;[(.avi")] == ["b.c", "20", "x#&!;[("]


@pytest.mark.parametrize(("first", "digits"), [(0, 1), (1, 5), (7, 3)])
def test_folders_of_pictures(tmp_path: Path, first: int, digits: int) -> None:
    folder = write_folder(tmp_path / "v", frames=12, first=first, digits=digits)
    plan = probe(folder)
    assert (plan.frames, plan.height, plan.width, plan.reader) == (12, 40, 60, "pictures")
    assert probe(folder, quick=True) == plan
    levels = read_frames(folder, range(12))[:, :10].mean((1, 2, 3))
    assert np.abs(levels - [i * 37 % 256 for i in range(12)]).max() < 8  # in the order of the numbers: 2 before 10
    assert np.array_equal(read_frames(folder, [11, 0, 11])[1], read_frames(folder, [0])[0])


def test_a_folder_that_changes_after_the_scan(tmp_path: Path) -> None:
    """A picture less would shift all that follow; one written anew in its place leaves the folder's own time as it was."""
    folder = write_folder(tmp_path / "v", frames=12)
    plan, whole = scan(tmp_path, ["v"]).plan(folder), (folder / "00003.jpg").read_bytes()
    (folder / "00003.jpg").unlink()
    with pytest.raises(VideoError, match="it holds 11 pictures, 12 were expected; run the scan again"):
        read_frames(folder, [5], plan)
    (folder / "00003.jpg").write_bytes(whole)
    assert read_frames(folder, [5], plan).shape == (1, 40, 60, 3)
    (folder / "00003.jpg").write_bytes(b"no picture")
    assert "cannot identify image file" in scan(tmp_path, ["v"]).damaged["v"]


def test_damaged_folders_of_pictures(tmp_path: Path) -> None:
    holed = write_folder(tmp_path / "holed", frames=6)
    (holed / "00003.jpg").unlink()
    assert probe(holed).damage == "1 pictures missing" and probe(holed).frames == 5
    cut = write_folder(tmp_path / "cut", frames=3)
    (cut / "00002.jpg").write_bytes((cut / "00002.jpg").read_bytes()[:200])
    (tmp_path / "none").mkdir()
    for folder in (cut, tmp_path / "none"):
        with pytest.raises(VideoError):
            probe(folder)
    mixed = write_folder(tmp_path / "mixed", frames=2)
    write_folder(tmp_path / "other", frames=2, size=(44, 60))
    (tmp_path / "other/00002.jpg").replace(mixed / "00002.jpg")
    with pytest.raises(VideoError, match="differ in size"):
        probe(mixed)


def test_pictures_of_odd_kinds_are_read_or_named(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "1.png")
    assert np.array_equal(read_frames(tmp_path, [0])[0, ..., 1], (ramp >> 8).astype(np.uint8))
    (tmp_path / "1.png").unlink()
    Image.fromarray(np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)).save(tmp_path / "1.png", "tiff")
    with pytest.raises(VideoError, match=r"1\.png has pixels of 32 bits"):
        probe(tmp_path)
    (tmp_path / "1.png").unlink()
    jpeg = bytearray(picture_file_bytes(tmp_path))
    at = jpeg.index(b"\xff\xc0") + 5  # height and width
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "1.jpg").write_bytes(jpeg)
    with pytest.raises(VideoError, match="could be decompression bomb"):
        read_frames(tmp_path, [0], VideoPlan(1, 40, 60, 0.0, "pictures"))


def picture_file_bytes(folder: Path) -> bytes:
    picture_file(folder / "1.jpg", 0)
    return (folder / "1.jpg").read_bytes()


def test_of_several_series_of_pictures_the_one_of_pictures_is_read(tmp_path: Path) -> None:
    """MMAction2's folders hold img_00001.jpg, flow_x_00001.jpg, flow_y_00001.jpg side by side."""
    folder = write_folder(tmp_path / "a", frames=4)
    wanted = read_frames(folder, range(4))
    for path in sorted(folder.iterdir()):
        for flow in ("flow_x_", "flow_y_"):
            (folder / f"{flow}{path.name}").write_bytes(path.read_bytes())
        path.rename(folder / f"img_{path.name}")
    (folder / "._img_00002.jpg").write_bytes(b"Mac OS")
    assert probe(folder).frames == 4 and not probe(folder).damage
    assert np.array_equal(read_frames(folder, range(4)), wanted)
    for number in (0, 2):
        twins = [folder / f"img_{number}.jpg", folder / f"img_0{number}.jpg"]
        for path in twins:
            path.write_bytes(b"")
        with pytest.raises(VideoError, match=f"it holds two pictures of number {number}"):
            read_frames(folder, [0])
        for path in twins:
            path.unlink()
    for path in folder.glob("*img_*"):
        path.unlink()
    with pytest.raises(VideoError, match="the folder holds no numbered pictures"):  # flow is no video
        read_frames(folder, [0])
    assert not listing(tmp_path)
    for name in ("left_1.jpg", "right_1.jpg"):
        picture_file(folder / name, 0)
    with pytest.raises(VideoError, match=r"it holds several series of pictures \(left_, right_\)"):
        read_frames(folder, [0])
    assert "several series" in scan(tmp_path, ["a"]).damaged["a"]
