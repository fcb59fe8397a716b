"""What is turned, cut, renamed or broken: upright and exact, or a VideoError that names file and reason."""

from __future__ import annotations

import json
import os
import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from made_videos import X264, picture, read_at_random, reference, write
from PIL import Image

from csn.data import Split
from csn.data.video import VideoError, decode, probe, read_frames
from csn.spec import UserError


@pytest.mark.parametrize(("size", "ending"), [((64, 96), ".mp4"), ((64, 96), ".mkv"), ((64, 64), ".mkv")])
def test_rotation_is_applied(tmp_path: Path, size: tuple[int, int], ending: str) -> None:
    """Also by a quick look: decord turns what is in an mp4 file only, and square frames would hide it."""
    plain, turned = write(tmp_path / "plain.mp4", size=size, bf="0"), tmp_path / f"turned{ending}"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert (probe(turned).height, probe(turned).width) == size[::-1]
    assert probe(turned, quick=True) == probe(turned) and (probe(turned).reader == "decord") == (ending == ".mp4")
    expected = np.rot90(read_frames(plain, [0, 5]), 1, (1, 2))
    got = read_frames(turned, [0, 5])
    assert np.array_equal(got, expected) or np.array_equal(got, np.rot90(expected, 2, (1, 2)))
    read_at_random(turned, reference(turned))


@pytest.mark.parametrize("mirror", [False, True])
def test_a_display_matrix_turns_but_does_not_mirror(tmp_path: Path, mirror: bool) -> None:
    plain, turned = write(tmp_path / "plain.mp4", bf="0"), tmp_path / "turned.mp4"
    one = 1 << 16
    with av.open(str(plain)) as source, av.open(str(turned), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.set_display_matrix([-one, 0, 0, 0, one if mirror else -one, 0, 0, 0, 1 << 30])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    if mirror:
        with pytest.raises(VideoError, match="mirrored"):
            probe(turned)
    else:
        assert np.array_equal(read_frames(turned, [7]), read_frames(plain, [7])[:, ::-1, ::-1])


def test_a_size_that_changes_is_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.ts", **X264), write(tmp_path / "b.ts", size=(32, 48), **X264)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert np.array_equal(read_frames(path, [2, 9]), read_frames(first, [2, 9]))
    for indices in ([2, 40], [40]):
        with pytest.raises(VideoError, match="frame"):
            read_frames(path, indices)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """decord cannot open it, PyAV can; and it can be told where only UTF-8 can be printed."""
    path = write(tmp_path / "plain.mp4", bf="0").rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    assert probe(path).reader == "pyav"
    for plan in (probe(path), probe(path, quick=True)):
        assert np.array_equal(read_frames(path, [5], plan), reference(path)[[5]])
    told = Split((), (), (path.name,)).told("train")
    assert told[1] == r"warning: train: missing: caf\xe9.mp4" and all(line.encode() for line in told)


@pytest.mark.parametrize("name", ["#20 & [x];(y)!.mp4", "a:b.mp4", "-dash %03d.mp4", "плач é.mp4", "no_ending"])
def test_any_file_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plain.mp4", **X264).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert probe(name).reader == "decord"
    assert np.array_equal(read_frames(name, [5]), reference(tmp_path / name)[[5]])


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", 60, g="60", container={"movflags": "faststart"}, **X264)
    content = whole.read_bytes()
    bad = {
        "empty.mp4": b"",
        "page.mp4": b"<html>not found</html>",
        "header.mp4": content[:400],
        "cut.mp4": content[: len(content) * 2 // 3],
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    for name in (*bad, "absent.mp4"):
        with pytest.raises(VideoError, match=f"Video .*{name} cannot be read: .+"):
            read_frames(tmp_path / name, [0])
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError):
        probe(tmp_path / "folder.mp4")


@pytest.mark.parametrize("index", [-1, 24])
def test_frames_that_are_not_there(tmp_path: Path, index: int) -> None:
    path = write(tmp_path / "a.mp4", **X264)
    with pytest.raises(VideoError, match=f"frame {index} was asked for, it has frames 0 to 23"):
        read_frames(path, [0, index])
    with pytest.raises(TypeError):
        read_frames(path, [0.5])  # type: ignore[list-item]
    assert read_frames(path, []).shape == (0, 64, 96, 3)


def test_a_plan_that_lies_is_found_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", **X264)
    plan = probe(path)
    with pytest.raises(VideoError, match="were expected"):
        read_frames(path, [0], replace(plan, width=40))
    with pytest.raises(VideoError, match="ends before"):
        read_frames(path, [30], replace(plan, frames=40, reader="pyav"))


def test_truncated_matroska_is_a_shorter_video_with_a_note(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.mkv", 200, g="12", **X264).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(content[: len(content) // 2])
    plan = probe(path)
    assert 50 < plan.frames < 150 and plan.damage.startswith("ends early") and plan.reader == "pyav"
    read_at_random(path, reference(path))


def test_damage_inside_never_passes_for_the_truth(tmp_path: Path) -> None:
    """Bytes overwritten in a file decord may read: refused, or equal to the full decode."""
    content = write(tmp_path / "whole.mp4", 48, g="12", bf="2", crf="10", **X264).read_bytes()
    noted = 0
    for seed in range(12):
        draw, data = random.Random(seed), bytearray(content)
        for _ in range(3):
            data[draw.randrange(len(data) // 10, len(data) * 9 // 10)] = draw.randrange(256)
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(data)
        try:
            noted += bool(probe(path).damage)
            read_at_random(path, reference(path), reads=3)
        except VideoError:
            noted += 1
    assert noted >= 6


def test_a_file_that_changes_is_probed_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 24, **X264)
    assert probe(path).frames == 24
    write(path, 12, **X264)
    assert probe(path).frames == 12


def test_an_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "it is damaged.")))
    assert isinstance(error, UserError) and (error.path, error.reason) == ("a.mp4", "it is damaged.")


CLIPS = os.environ.get("CSN_TEST_CLIPS")
needs_clips = pytest.mark.skipif(CLIPS is None, reason="CSN_TEST_CLIPS names no folder of clips")
LARGE = 30  # megapixels of a video beyond which a few of its frames are compared, not all held in memory


def clips() -> list[str]:
    return sorted(json.loads((Path(CLIPS) / "expected.json").read_text())) if CLIPS else []


@needs_clips
@pytest.mark.parametrize("name", clips())
def test_real_clip(name: str) -> None:
    assert CLIPS is not None
    expected = json.loads((Path(CLIPS) / "expected.json").read_text())[name]
    path = Path(CLIPS) / name
    if "ffmpeg_error" in expected:
        with pytest.raises(VideoError):
            probe(path)
        return
    plan = probe(path)
    assert plan.frames == expected["frames_ffmpeg"]
    if plan.frames * expected["coded_height"] * expected["coded_width"] <= LARGE * 1e6:
        read_at_random(path, reference(path))
        return
    draw = random.Random(0)
    wanted = [plan.frames - 1, *(draw.randrange(plan.frames) for _ in range(9)), 0]
    truth = {i: np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for i, frame in enumerate(decode(path)) if i in wanted}
    for order in (wanted, sorted(wanted), [wanted[3]]):
        for i, frame in zip(order, read_frames(path, order), strict=True):
            assert np.array_equal(frame, truth[i]), i


@pytest.mark.parametrize(("ending", "codec"), [(".webm", "libvpx"), (".mkv", "libx264")])
@pytest.mark.parametrize("frames", [24, 48, 96])
def test_a_short_film_that_ends_early_is_named(frames: int, ending: str, codec: str, tmp_path: Path) -> None:
    """One to four seconds, as in Something-Something V2: a tolerance of a second would see nothing."""
    path = write(tmp_path / f"a{ending}", frames, codec=codec)
    assert not probe(path).damage and probe(path).frames == frames
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    plan = probe(path)
    assert plan.damage.startswith("ends early") and 0 < plan.frames < frames and plan.reader == "pyav"


@pytest.mark.parametrize("ending", [".mp4", ".gif"])
def test_a_last_frame_that_is_shown_long_is_no_early_end(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    if ending == ".gif":
        shown = [Image.fromarray(picture(i, 64, 96)) for i in range(10)]
        shown[0].save(path, save_all=True, append_images=shown[1:], duration=[40] * 9 + [3000])
    else:
        with av.open(str(write(tmp_path / "plain.mp4", 10, bf="0"))) as source, av.open(str(path), "w") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            packets = [packet for packet in source.demux(video=0) if packet.size]
            packets[-1].duration = int(3 / packets[-1].time_base)
            for packet in packets:
                packet.stream = stream
                out.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration > 3e6
    assert probe(path).damage == "" and probe(path).frames == 10


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("at", [12, 23])
def test_a_pause_does_not_make_a_film_slow(at: int, ending: str, tmp_path: Path) -> None:
    """One frame of 24, in the middle or the last but one, is shown for a minute."""
    path = write(tmp_path / f"a{ending}", 24, times=[i + (1500 if i >= at else 0) for i in range(24)], **X264)
    assert probe(path).fps == pytest.approx(25, rel=0.02) and probe(path).frames == 24


def with_sound(path: Path, frames: int, seconds: float, codecs: tuple[str, str]) -> Path:
    """Write a video of `frames` pictures, 25 a second, beside so many seconds of silence. codecs: of the pictures, of the sound."""
    with av.open(str(path), "w") as out:
        pictures: Any = out.add_stream(codecs[0], rate=25)
        sound: Any = out.add_stream(codecs[1], rate=16000)
        pictures.height, pictures.width, pictures.pix_fmt = 64, 96, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, 64, 96), format="rgb24")
            frame.pts = i
            out.mux(pictures.encode(frame))
        out.mux(pictures.encode())
        for i in range(round(seconds * 16000 / 1024)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 16000, 1024 * i
            out.mux(sound.encode(silence))
        out.mux(sound.encode())
    return path


def test_sound_that_outlasts_the_pictures_is_no_early_end(tmp_path: Path) -> None:
    path = with_sound(tmp_path / "a.mp4", 50, 10, ("libx264", "aac"))
    with av.open(str(path)) as container:
        assert container.duration > 9e6
    plan = probe(path)
    assert (plan.damage, plan.frames) == ("", 50)


def test_a_film_with_sound_that_ends_early_is_named_by_its_frames(tmp_path: Path) -> None:
    """As an AVI of UCF101 whose copy broke off: what is left of the sound ends with the pictures, the header still has their number."""
    path = with_sound(tmp_path / "a.avi", 100, 4, ("mpeg4", "mp2"))
    assert (probe(path).damage, probe(path).frames) == ("", 100)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    plan = probe(path)
    assert 60 < plan.frames < 90 and plan.damage == f"ends early: {plan.frames} of 100 frames"


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_the_rate_of_a_film_of_varying_rate_is_its_mean(ending: str, tmp_path: Path) -> None:
    """25 pictures a second for a moment, then one every 0.4 s: 23 steps in 7.04 s."""
    times = [*range(7), *(6 + 10 * k for k in range(1, 18))]
    path = write(tmp_path / f"a{ending}", 24, times=times, **X264)
    assert probe(path).frames == 24
    assert probe(path).fps == pytest.approx(23 / (176 / 25), rel=0.01)
