"""Every read equals the full decode by FFmpeg, or is a VideoError."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_videos import picture, write

from csn.data.video import VideoError, decode, probe, read_frames
from csn.spec import UserError


def reference(path: Path) -> np.ndarray:
    """All frames, upright, independent of the module's own conversion: (n, H, W, 3)."""
    return np.stack([np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in decode(path)])


def read_at_random(path: Path, truth: np.ndarray, reads: int = 6) -> None:
    """Sorted, unsorted, repeated and reversed reads of a file all equal the truth."""
    draw = random.Random(0)
    for k in range(reads):
        indices = [draw.randrange(len(truth)) for _ in range(5)]
        indices = sorted(indices) if k % 2 else indices
        assert np.array_equal(read_frames(path, indices), truth[indices]), indices
    assert np.array_equal(read_frames(path, [len(truth) - 1, 0, len(truth) - 1]), truth[[-1, 0, -1]])


X264 = {"preset": "veryfast"}
SAFE = {
    "no-b.mp4": {"g": "8", "bf": "0"},
    "b.mp4": {"g": "8", "bf": "3"},
    "b.mov": {"g": "8", "bf": "3"},
    "b.mkv": {"g": "8", "bf": "3"},
    "every-frame-key.mp4": {"g": "1"},
    "fragments.mp4": {"g": "8", "container": {"movflags": "frag_keyframe+empty_moov"}},
    "width-40.mp4": {"size": (64, 40)},
    "huge.mp4": {"size": (2160, 4096), "frames": 2},
    "one.mp4": {"frames": 1},
    "gray.mp4": {"pixels": "gray"},
    "one-pixel-pair.mp4": {"size": (36, 36)},
    "vfr.mp4": {"times": [i + 5 * (i > 9) + 30 * (i > 12) for i in range(24)]},
}
UNSAFE = {
    "open.mp4": {"g": "8", "bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"},
    "refresh.mkv": {"x264-params": "intra-refresh=1:keyint=8"},
    "b.avi": {"g": "8", "bf": "3"},
    "b.ts": {"g": "8", "bf": "3"},
    "b.flv": {"g": "8", "bf": "3"},
    "interlaced.mp4": {"x264-params": "interlaced=1:keyint=8", "size": (64, 96)},
    "odd.mp4": {"size": (65, 97), "pixels": "yuv444p"},
    "444.mp4": {"pixels": "yuv444p"},
    "10bit.mp4": {"pixels": "yuv420p10le"},
    "width-48.mp4": {"size": (64, 48)},
    "width-72.mp4": {"size": (64, 72)},
    "tiny.mp4": {"size": (2, 2)},
    "mpeg4.avi": {"codec": "mpeg4", "g": "8", "bf": "2"},
    "mpeg4.mp4": {"codec": "mpeg4", "g": "8", "bf": "2"},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "8", "bf": "2"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "keyint=8:log-level=none"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


@pytest.mark.parametrize("name", SAFE)
def test_decord_reads_what_it_reads_right(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, **{**X264, **SAFE[name]})
    plan = probe(path)
    assert (plan.reader, plan.reason, plan.damage) == ("decord", "", "")
    truth = reference(path)
    assert (plan.frames, plan.height, plan.width) == truth.shape[:3]
    assert probe(path, quick=True) == plan
    read_at_random(path, truth)


@pytest.mark.parametrize("name", UNSAFE)
def test_pyav_reads_the_rest(tmp_path: Path, name: str) -> None:
    options = UNSAFE[name] if "codec" in UNSAFE[name] else {**X264, **UNSAFE[name]}
    path = write(tmp_path / name, **options)
    plan = probe(path)
    assert plan.reader == "pyav" and plan.reason and not plan.damage
    truth = reference(path)
    assert (plan.frames, plan.height, plan.width) == truth.shape[:3] and plan.frames == 24
    read_at_random(path, truth)


@pytest.mark.parametrize(("codec", "name"), [("libvpx", "vp8.webm"), ("libvpx-vp9", "vp9.webm")])
def test_webm_with_hidden_frames(tmp_path: Path, codec: str, name: str) -> None:
    hidden = {"auto-alt-ref": "1", "lag-in-frames": "12", "g": "12", "deadline": "good", "cpu-used": "5", "b": "100k"}
    path = write(tmp_path / name, codec=codec, **hidden)
    truth = reference(path)
    assert probe(path).frames == len(truth) == 24
    read_at_random(path, truth)


def test_frames_are_the_pictures_written(tmp_path: Path) -> None:
    """The reference itself: order and colours, beside what was encoded (4:4:4, nearly lossless)."""
    path = write(tmp_path / "a.mp4", size=(64, 96), pixels="yuv444p", crf="1", g="6", **X264)
    for i, frame in zip((23, 3, 3, 11), read_frames(path, (23, 3, 3, 11)), strict=True):
        assert np.abs(frame.astype(int) - picture(i, 64, 96)).mean() < 3


def test_decord_alone_is_wrong_here(tmp_path: Path) -> None:
    """Why the door exists: decord's own seek into an open group of pictures gives other frames, without a word."""
    import decord

    path = write(tmp_path / "open.mp4", **X264, **UNSAFE["open.mp4"])
    truth = reference(path)
    alone = [decord.VideoReader(str(path)).get_batch([i]).asnumpy()[0] for i in range(len(truth))]
    assert any(not np.array_equal(a, b) for a, b in zip(alone, truth, strict=True))


def test_rotation_is_applied(tmp_path: Path) -> None:
    import av

    plain, turned = write(tmp_path / "plain.mp4", bf="0"), tmp_path / "turned.mp4"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert (probe(turned).height, probe(turned).width) == (96, 64)
    expected = np.rot90(read_frames(plain, [0, 5]), 1, (1, 2))
    got = read_frames(turned, [0, 5])
    assert np.array_equal(got, expected) or np.array_equal(got, np.rot90(expected, 2, (1, 2)))
    read_at_random(turned, reference(turned))


@pytest.mark.parametrize("mirror", [False, True])
def test_a_display_matrix_turns_but_does_not_mirror(tmp_path: Path, mirror: bool) -> None:
    import av

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
    from dataclasses import replace

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
LARGE = 30  # megapixels of a video beyond which the default tests leave it to the benchmark


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
    if expected["frames_ffmpeg"] * expected["coded_height"] * expected["coded_width"] > LARGE * 1e6:
        pytest.skip("large; benchmarks/decode.py reads it")
    plan = probe(path)
    assert plan.frames == expected["frames_ffmpeg"]
    read_at_random(path, reference(path))


READER = """
import random, sys, zlib
from csn.data.video import probe, read_frames
draw = random.Random(int(sys.argv[1]))
sums = {}
for turn in range(60):
    path = draw.choice(sys.argv[2:])
    i = draw.randrange(probe(path).frames)
    sums[path, i] = zlib.crc32(read_frames(path, [i]))
    if turn == 20:
        start = int(open("/proc/self/statm").read().split()[1])
print(sums)
grown = (int(open("/proc/self/statm").read().split()[1]) - start) * 4096 / 1e6
assert grown < 30, grown
"""


def test_eight_processes_read_at_once(tmp_path: Path) -> None:
    import zlib

    names = ("b.mp4", "b.avi", "b.mkv", "open.mp4")
    paths = [write(tmp_path / name, **{**X264, **SAFE.get(name, UNSAFE.get(name))}) for name in names]
    truth = {str(path): [zlib.crc32(np.ascontiguousarray(f)) for f in reference(path)] for path in paths}
    command = [sys.executable, "-c", READER]
    jobs = [
        subprocess.Popen([*command, str(k), *map(str, paths)], stdout=subprocess.PIPE, text=True) for k in range(8)
    ]
    for job in jobs:
        out, _ = job.communicate(timeout=120)
        assert job.returncode == 0
        for (path, i), crc in eval(out).items():
            assert truth[path][i] == crc
