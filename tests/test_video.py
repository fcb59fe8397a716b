"""Every read equals the full decode by FFmpeg, or is a VideoError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_videos import X264, picture, read_at_random, reference, write

from csn.data.video import probe, read_frames

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
    jobs = [subprocess.Popen([*command, str(k), *map(str, paths)], stdout=subprocess.PIPE, text=True) for k in range(8)]
    for job in jobs:
        out, _ = job.communicate(timeout=120)
        assert job.returncode == 0
        for (path, i), crc in eval(out).items():
            assert truth[path][i] == crc
