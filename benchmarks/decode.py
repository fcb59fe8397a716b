"""How fast and how right are the readers of video: the door, plain decord, PyAV from frame 0, torchcodec.

    python benchmarks/decode.py FILE_OR_FOLDER.. --name decode     speed and exactness, results/benchmarks/decode.csv
    python benchmarks/decode.py FOLDER --soak 600 --processes 8    random reads for ten minutes: exactness, and memory over time

A clip is --frames frames, every --stride-th, from a random start; all readers get the same clips, in turn and in a random
order, so that other work on the machine, and what the one before left in the caches, meets them alike. Speed is clips per
second of CPU time, of all threads: clips per second and core. exact: share of clips equal bit for bit to a full decode by
FFmpeg (PyAV). close: at most 2 of 255 levels from it on average in every frame: right frames, other colour arithmetic. The
door reads with the plan of a scan, as in training.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import decord
import numpy as np
from machine import describe, script, show, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from csn.data.media import listing
from csn.data.video import VideoError, VideoPlan, decode, probe, read_frames
from csn.flags import Parser, file_name, positive
from csn.spec import require

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, RuntimeError, OSError):  # it needs shared libraries of FFmpeg besides its wheel
    VideoDecoder = None

LINES = 20  # of the soak, for each process
Frames = np.ndarray  # (n, H, W, 3)


def by_decord(path: Path, indices: list[int], plan: VideoPlan) -> Frames:
    frames: Frames = decord.VideoReader(str(path), num_threads=1).get_batch(indices).asnumpy()
    return frames


def reference(path: Path, wanted: Iterable[int], end: int | None = None) -> dict[int, Frames]:
    """The wanted frames of a full decode, or of one up to frame `end`, upright."""
    keep = set(wanted)
    frames = islice(decode(path), end)
    return {i: np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for i, f in enumerate(frames) if i in keep}


def by_pyav(path: Path, indices: list[int], plan: VideoPlan) -> Frames:
    found = reference(path, indices, max(indices) + 1)
    return np.stack([found[i] for i in indices])


def by_torchcodec(path: Path, indices: list[int], plan: VideoPlan) -> Frames:
    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    frames: Frames = decoder.get_frames_at(indices).data.numpy()
    return frames


READERS: dict[str, Callable[[Path, list[int], VideoPlan], Frames]] = {"door": read_frames, "decord": by_decord, "pyav": by_pyav}
if VideoDecoder is not None:
    READERS["torchcodec"] = by_torchcodec


def measure(path: Path, plan: VideoPlan, clips: int, frames: int, stride: int) -> list[dict[str, Any]]:
    """One row a reader."""
    draw = random.Random(0)
    room = max(plan.frames - (frames - 1) * stride, 1)
    starts = [draw.randrange(room) for _ in range(clips)]
    jobs = [[(start + k * stride) % plan.frames for k in range(frames)] for start in starts]
    truth = reference(path, (i for job in jobs for i in job))
    rows = []
    state: dict[str, dict[str, Any]] = {name: {"cpu": 0.0, "wall": 0.0, "exact": 0, "close": 0, "error": ""} for name in READERS}
    for job in jobs:
        expected = np.stack([truth[i] for i in job])
        for name in draw.sample(list(READERS), len(READERS)):  # none always goes first, or after the same other one
            mine = state[name]
            cpu, wall = time.process_time(), time.perf_counter()
            try:
                got = READERS[name](path, job, plan)
            except Exception as error:  # whatever a reader raises is its result here
                mine["error"] = type(error).__name__
                continue
            mine["cpu"] += time.process_time() - cpu
            mine["wall"] += time.perf_counter() - wall
            if got.shape == expected.shape:
                mine["exact"] += bool(np.array_equal(got, expected))
                levels = np.abs(got.astype(np.int16) - expected).mean((1, 2, 3))
                mine["close"] += bool((levels <= 2).all())
    for name, mine in state.items():
        done = not mine["error"]
        rows.append(
            {
                "file": path.name, "reader": name, "plan": plan.reader, "frames": frames, "stride": stride, "clips": clips,
                "clips_per_core_second": clips / mine["cpu"] if done else None, "clips_per_second": clips / mine["wall"] if done else None,
                "exact": mine["exact"] / clips, "close": mine["close"] / clips, "error": mine["error"],
            }
        )  # fmt: skip
    return rows


def compare(paths: list[Path], clips: int, frames: int, stride: int, name: str) -> None:
    """Measure all files; write and print the CSV and its summary."""
    facts = describe("cpu") | {name: version(name) for name in ("decord", "av", "torchcodec") if name != "torchcodec" or VideoDecoder}
    facts["setting"] = f"clips of {frames} frames, every {stride}. one, {clips} a file, from random starts, one thread"
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            plan = probe(path)
        except VideoError as error:
            print(f"refused: {error}")
            continue
        rows += measure(path, plan, clips, frames, stride)
        write(name, rows, facts)
    require(bool(rows), "paths", ", ".join(map(str, paths[:3])), "must hold videos that can be read; none can")
    told: dict[str, dict[str, str]] = {row["file"]: {"file": row["file"], "plan": row["plan"]} for row in rows}
    for row in rows:
        told[row["file"]][row["reader"]] = row["error"] or f"{row['clips_per_core_second']:.1f} {row['exact']:.2f} {row['close']:.2f}"
    show("By reader: clips a second of one core, share exact, share close", list(told.values()))
    found = summary(rows)
    show("safe: files that decord was seen to read right; other: the rest", found)
    print(write(f"{name}_summary", found, facts))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a reader: how many files it reads exactly, and its median speed and speed over decord's on the seek-safe ones."""
    plain = {row["file"]: row for row in rows if row["reader"] == "decord"}
    found = []
    for reader in READERS:
        own = [row for row in rows if row["reader"] == reader]
        safe, other = [row for row in own if row["plan"] == "decord"], [row for row in own if row["plan"] != "decord"]
        speeds = [(row["clips_per_core_second"], plain[row["file"]]["clips_per_core_second"])
                  for row in safe if not row["error"] and not plain[row["file"]]["error"]]  # fmt: skip
        found.append(
            {
                "reader": reader, "safe_files": len(safe), "safe_exact": sum(row["exact"] == 1 for row in safe),
                "clips_per_core_second": median(speed for speed, _ in speeds) if speeds else None,
                "speed_over_decord": median(a / b for a, b in speeds) if speeds else None,
                "other_files": len(other), "other_exact": sum(row["exact"] == 1 for row in other),
            }
        )  # fmt: skip
    return found


def truth(paths: list[Path]) -> dict[Path, tuple[VideoPlan, list[int]]]:
    """Plan and checksums of all frames of every file that can be read."""
    found = {}
    for path in paths:
        try:
            frames = (np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in decode(path))
            found[path] = probe(path), [crc32(np.ascontiguousarray(frame).data) for frame in frames]
        except VideoError:
            continue
    return found


def soak(known: dict[Path, tuple[VideoPlan, list[int]]], seconds: float, seed: int) -> None:
    """Random reads until the time is over; prints a line each twentieth of it: process, second, reads, wrong reads, memory.

    Every file in turn first; then small ones more often, so that there are many reads: a reader leaks by the read, not by the pixel.
    """
    draw, paths = random.Random(seed), list(known)
    draw.shuffle(paths)
    weights = [1 / (plan.frames * plan.height * plan.width + 10**6) for plan, _ in (known[path] for path in paths)]
    begin, reads, wrong, told = time.monotonic(), 0, 0, 0
    while told < LINES:
        path = paths[reads] if reads < len(paths) else draw.choices(paths, weights)[0]
        plan, sums = known[path]
        indices = [draw.randrange(plan.frames) for _ in range(draw.choice((1, 4, 8)))]
        got = read_frames(path, indices, plan)
        wrong += any(crc32(frame.data) != sums[i] for i, frame in zip(indices, got, strict=True))
        reads += 1
        now = time.monotonic() - begin
        if now > seconds * (told + 1) / LINES:
            told = min(int(now / seconds * LINES), LINES)
            print(seed, f"{now:.0f}", reads, wrong, f"{memory():.1f}", sep=",", flush=True)


def quarters(rows: list[dict[str, float]]) -> list[dict[str, Any]]:
    """All processes' reads and wrong reads so far, and the mean and largest memory of one, at four moments of a soak."""
    steps = [[row for row in rows if row["process"] == process] for process in sorted({row["process"] for row in rows})]
    found = []
    for share in (0.1, 0.4, 0.7, 1.0):
        now = [own[round(share * LINES) - 1] for own in steps]
        found.append(
            {
                "minute": sum(row["second"] for row in now) / len(now) / 60, "processes": len(now), "reads": int(sum(row["reads"] for row in now)),
                "wrong": int(sum(row["wrong"] for row in now)), "mean_mb": sum(row["MB"] for row in now) / len(now), "most_mb": max(row["MB"] for row in now),
            }
        )  # fmt: skip
    return found


def memory() -> float:
    """Resident memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--clips", type=positive, default=20)
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--stride", type=positive, default=2)
    parser.add_argument("--name", type=file_name, default="my_decode", help="of the CSVs")
    parser.add_argument("--soak", type=float, help="seconds of random reads by every process, instead of the comparison")
    parser.add_argument("--processes", type=positive, default=1)
    parser.add_argument("--largest", type=float, default=30.0, help="MB of a file beyond which it is left out")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for top in args.paths:
        require(top.exists(), "paths", top, "must be a video or a folder of videos that is there")
    paths = [p for top in args.paths for p in ([top / name for name in listing(top)] if top.is_dir() else [top])]
    paths = [path for path in paths if path.is_file() and path.stat().st_size < args.largest * 1e6]
    require(bool(paths), "paths", ", ".join(map(str, args.paths)), f"must hold files of less than {args.largest:g} MB; none is")
    if args.soak and args.seed is not None:
        soak(pickle.loads(args.paths[0].read_bytes()), args.soak, args.seed)
    elif args.soak:
        with tempfile.NamedTemporaryFile(suffix=".pickle") as shared:
            known = truth(paths)
            require(bool(known), "paths", ", ".join(map(str, args.paths)), "must hold videos that can be read; none can")
            shared.write(pickle.dumps(known))
            shared.flush()
            command = [sys.executable, sys.argv[0], shared.name, "--soak", str(args.soak), "--seed"]
            jobs = [subprocess.Popen([*command, str(k)], stdout=subprocess.PIPE, text=True) for k in range(args.processes)]
            lines = [line for job in jobs for line in job.communicate()[0].splitlines()]
        names = ("process", "second", "reads", "wrong", "MB")
        rows = [dict(zip(names, line.split(","), strict=True)) for line in lines]
        facts = describe("cpu") | {"setting": f"{args.processes} processes for {args.soak:.0f} s, random frames of {len(known)} files"}
        write(f"{args.name}_soak", rows, facts)
        found = quarters([{name: float(cell) for name, cell in row.items()} for row in rows])
        show("Reads by all processes together, memory of one", found)
        print(write(f"{args.name}_soak_summary", found, facts))
    else:
        compare(paths, args.clips, args.frames, args.stride, args.name)


if __name__ == "__main__":
    script(main)
