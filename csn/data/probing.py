"""What a video file holds and which decoder reads it right: looked at once a file, by the scan or on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal
from zlib import crc32

import av
import decord
import numpy as np

from csn.data.decoding import AnyPath, VideoError, by_pictures, decode, opened, upright
from csn.data.images import holes, pictures

CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # those that store display times
CODECS = ("h264", "vp8", "vp9")
PIXELS = ("yuv420p", "yuvj420p")
CHUNK = 32  # frames decord is asked for at a time where whole videos are compared, or fewer:
CHUNK_BYTES = 1 << 26  # of whole frames; 2 of 3840 x 2160


@dataclass(frozen=True)
class VideoPlan:
    """What a file holds and who may read it.

    frames: number of frames of a full decode. height, width: of the frames, upright. fps: average frames per second.
    reader: "decord", which may seek, "pyav", from frame 0, or "pictures", of a folder (fps 0). reason: why not decord.
    damage: what a full decode shows to be missing or concealed in a file that can still be read, "" where nothing is.
    """

    frames: int
    height: int
    width: int
    fps: float
    reader: Literal["decord", "pyav", "pictures"]
    reason: str = ""
    damage: str = ""


def probe(path: AnyPath, quick: bool = False) -> VideoPlan:
    """Decide how a video is read, once per process and file version: it is decoded whole, by decord too if need be.

    quick: list the packets of an H.264 file that decord is known to read right instead of decoding it (not where it is to be
    turned), read one picture of a folder; finds no damage, and trusts decord's pixels unseen.
    Raises VideoError where the file is missing, holds no video, or cannot be decoded to its end.
    """
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise VideoError(path, f"{error.strerror}.") from None
    return _probe(str(Path(path).absolute()), quick, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1 << 18)
def _probe(path: str, quick: bool, mtime_ns: int, size: int) -> VideoPlan:
    if Path(path).is_dir():
        return _probe_folder(path, quick)
    packets: list[_Packet] = []
    first: av.VideoFrame | None = None
    with opened(path) as (container, stream):
        codec, rate = stream.codec_context, float(stream.average_rate or stream.guessed_rate or 0)
        for packet in container.demux(stream):
            if packet.size:
                key = packet.is_keyframe
                refresh = key and (codec.name != "h264" or _has_idr(bytes(packet), codec.extradata or b""))
                packets.append(_Packet(packet.pts, packet.dts, key, refresh, packet.is_discard))
            if first is None:
                first = next(iter(packet.decode()), None)
        if first is None:
            raise VideoError(path, "it has no decodable frame.")
        if mirrored(first):
            raise VideoError(path, "it is to be shown mirrored, which is not supported.")
        height, width, _ = upright(path, first).shape
        reason = _doubt(container, stream, first, packets)
        seen = measured(packets, stream.time_base)
        rate = seen if seen and abs(seen - rate) > 0.02 * rate else rate  # less is the rounding of times to milliseconds
        seconds, promised = (container.duration or 0) / 1e6, max(stream.frames - sum(p.discard for p in packets), 0)
        # where sound may outlast the pictures, the container's duration tells little of theirs
        wanted = 0.95 * seconds - 2 / (rate or 25) if len(container.streams) == 1 else 0.8 * seconds - 1
        quick = quick and not reason and codec.name == "h264" and not first.rotation
    frames, damage = len(packets), ""
    if not quick:
        sums, damage = _reference(path, seconds, wanted, promised)
        frames = len(sums)
        if not reason:  # what FFmpeg 4 inside decord conceals, it conceals in another way
            reason = "damaged" if damage else _disagreement(path, sums, [i for i, p in enumerate(packets) if p.key], height * width * 3)
    return VideoPlan(frames, height, width, rate, "pyav" if reason else "decord", reason, damage)


def measured(packets: Sequence[_Packet], time_base: Fraction | None) -> float:
    """Frames a second by the packets' display times, their mean where it varies, pauses left out; 0 where not all have one.

    What a container announces may be the rate of its shortest step. A pause is a step of ten times the middle one: one frame shown for a
    minute does not make a film slow.
    """
    times = sorted(p.pts for p in packets if p.pts is not None)
    if time_base is None or len(times) < len(packets) or len(times) < 2 or times[-1] == times[0]:
        return 0.0
    steps = [after - before for before, after in pairwise(times)]
    moving = [step for step in steps if step <= 10 * median(steps)] if median(steps) else steps
    return len(moving) / float(sum(moving) * time_base)


def _probe_folder(path: str, quick: bool) -> VideoPlan:
    try:
        names = pictures(path)
    except (OSError, ValueError) as error:
        raise VideoError(path, f"{error}.") from None
    if not names:
        raise VideoError(path, "the folder holds no numbered pictures.")
    height, width, _ = by_pictures(path, [0] if quick else range(len(names)), len(names)).shape[1:]
    missing = holes(names)
    return VideoPlan(len(names), height, width, 0.0, "pictures", "", f"{missing} pictures missing" if missing else "")


@dataclass(frozen=True)
class _Packet:
    pts: int | None
    dts: int | None
    key: bool
    refresh: bool  # nothing from here on needs anything before
    discard: bool


def _doubt(container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame, packets: list[_Packet]) -> str:
    """The first reason why decord's seeks or pixels could be wrong for this stream, "" where there is none."""
    if container.format.name not in CONTAINERS:
        return f"container {container.format.name.split(',')[0]}"
    if container.duration is None:
        return "container without a duration"
    if len(container.streams.video) > 1:
        return "several video streams"
    if stream.codec_context.name not in CODECS:
        return f"codec {stream.codec_context.name}"
    if first.format.name not in PIXELS:
        return f"pixel format {first.format.name}"
    if first.height % 2 or first.width % 2:
        return f"odd size {first.height} x {first.width}"
    if first.rotation and container.format.name != CONTAINERS[0]:  # decord knows the rotation of an mp4 only
        return "rotated"
    if first.interlaced_frame or stream.codec_context.field_order > 1:  # 0 unknown, 1 progressive
        return "interlaced"
    times = [p.pts for p in packets if p.pts is not None]
    if len(times) != len(packets):
        return "packets without a display time"
    if len(set(times)) != len(times):
        return "two frames with one display time"
    if any(p.discard for p in packets):
        return "an edit list cuts frames"
    keys = [i for i, p in enumerate(packets) if p.key]
    if not keys or keys[0] != 0:
        return "does not begin with a key frame"
    if not all(packets[i].refresh for i in keys):
        return "a key frame that is no full refresh"
    shown = np.argsort(times, kind="stable")
    if any(shown[i] != i for i in keys):
        return "frames shown before the key frame they follow"
    for here, following in pairwise(keys):
        dts = packets[following].dts
        if dts is not None and dts <= times[here]:
            return "key frames closer than the reordering delay"
    return ""


def _reference(path: str, seconds: float, wanted: float, promised: int) -> tuple[list[int], str]:
    """Checksums of all frames of a full decode, and its damage: fewer frames than announced, concealed ones, or a last one gone before
    second `wanted` of the `seconds` that the container announces."""
    sums, concealed, end = [], 0, 0.0
    for frame in decode(path):
        sums.append(crc32(upright(path, frame).data))
        concealed += frame.is_corrupt
        end = max(end, (frame.time or 0.0) + float((frame.duration or 0) * (frame.time_base or 0)))  # it may be shown for long
    if not sums:
        raise VideoError(path, "it has no decodable frame.")
    if len(sums) < 0.9 * promised:
        return sums, f"ends early: {len(sums)} of {promised} frames"
    if end < wanted and (len(sums) < promised or not promised):  # with all frames there, it is the sound that lasts longer
        return sums, f"ends early: {end:.1f} of {seconds:.1f} seconds"
    return sums, f"{concealed} of {len(sums)} frames concealed" if concealed else ""


def _disagreement(path: str, sums: list[int], keys: list[int], size: int) -> str:
    """Where decord's frames, of `size` bytes, differ from the reference: all in order, then around every key frame, last first."""
    try:
        reader = decord.VideoReader(path, num_threads=1)
        if len(reader) != len(sums):
            return f"decord counts {len(reader)} frames of {len(sums)}"
        around = [i for key in reversed(keys) for i in (key + 1, key, key - 1) if 0 <= i < len(sums)]
        once = max(1, min(CHUNK, CHUNK_BYTES // size))
        chunks = [list(range(at, min(at + once, len(sums)))) for at in range(0, len(sums), once)]
        for chunk in chunks + [[i] for i in around[: 3 * CHUNK]]:
            for i, frame in zip(chunk, reader.get_batch(chunk).asnumpy(), strict=True):
                if crc32(frame.data) != sums[i]:
                    return f"decord differs in frame {i}"
    except (decord.DECORDError, RuntimeError, UnicodeError):
        return "decord cannot read it"
    return ""


def _has_idr(data: bytes, extradata: bytes) -> bool:
    """Whether an H.264 packet holds an instantaneous refresh (ISO/IEC 14496-10, table 7-1: unit type 5)."""
    if extradata[:1] != b"\x01":  # units parted by start codes; else each after its length (ISO/IEC 14496-15)
        return any(part[:1] and part[0] & 31 == 5 for part in data.split(b"\0\0\1")[1:])
    size, at = (extradata[4] & 3) + 1, 0
    while at + size < len(data):
        if data[at + size] & 31 == 5:
            return True
        at += size + int.from_bytes(data[at : at + size], "big")
    return False


def mirrored(frame: av.VideoFrame) -> bool:
    """Whether the display matrix of a frame (3 x 3, 16.16 fixed point) mirrors it besides turning it."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False
    a, b, _, c, d = np.frombuffer(bytes(data), "<i4")[:5].astype(float)
    return bool(a * d < b * c)
