"""The one door for reading video: the frames asked for, exactly, or a VideoError.

    plan = probe(path)                          # frames, height, width, fps, reader, reason, damage
    frames = read_frames(path, [0, 8, 4], plan)  # uint8 (n, H, W, 3), RGB, upright

Frame i is the i-th frame that FFmpeg gives when it decodes the best video stream of the file from the first packet to
the last (PyAV, one thread), turned by the rotation in the file's metadata, converted to RGB by swscale with its default
coefficients (a colour matrix named in the file is ignored, as by decord). Every value equals that reference, not only
the frame's number: a file goes to decord only if decord was seen to agree, every other one is decoded by PyAV from its
first frame to the last one asked for. A folder of numbered pictures is a video too, without a frame rate.

decord 0.6.0 counts key frames in decoding order and frames in display order, so it gives wrong frames without a word
wherever the two differ. Its pixels differ for odd sizes, more than 8 bits and interlaced pictures. `_doubt` lists these
from the packets; `_disagreement` then compares decord's frames, in order and by seeking, with the reference.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal
from zlib import crc32

import av
import decord
import numpy as np
from numpy.typing import NDArray

from csn.data.images import holes, pictures, read_picture
from csn.spec import UserError

Frames = NDArray[np.uint8]  # (n, H, W, 3), one frame: (H, W, 3)
AnyPath = str | os.PathLike[str]

CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # those that store display times
CODECS = ("h264", "vp8", "vp9")
PIXELS = ("yuv420p", "yuvj420p")
CHUNK = 32  # frames decord is asked for at a time where whole videos are compared

# What FFmpeg can mend it reports on stderr, once a packet; what it cannot mend arrives here as an exception.
av.logging.set_level(None)
decord.logging.set_level(decord.logging.QUIET)


class VideoError(UserError):
    """A video that cannot be read exactly: "Video FILE cannot be read: reason"."""

    def __init__(self, path: AnyPath, reason: str) -> None:
        self.path, self.reason = os.fspath(path), reason
        super().__init__(f"Video {self.path} cannot be read: {reason}")

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return VideoError, (self.path, self.reason)  # the default would hand the whole message to __init__


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


def read_frames(path: AnyPath, indices: Sequence[int] | NDArray[np.integer], plan: VideoPlan | None = None) -> Frames:
    """Frames `indices` of a video, in the order asked, repeats included: uint8 (n, H, W, 3).

    plan: what `probe` or a scan said of this file; without it the file is probed, once per process. Raises
    VideoError where the file is missing, damaged before the last frame asked for, or has no such frame.
    """
    plan = plan or probe(path)
    wanted = [operator.index(i) for i in indices]
    for i in wanted:
        if not 0 <= i < plan.frames:
            raise VideoError(path, f"frame {i} was asked for, it has frames 0 to {plan.frames - 1}.")
    if not wanted:
        return np.empty((0, plan.height, plan.width, 3), np.uint8)
    unique, back = np.unique(np.array(wanted), return_inverse=True)
    frames = _decord_frames(path, unique.tolist()) if plan.reader == "decord" else None
    if plan.reader == "pictures":
        frames = _pictures(path, unique.tolist())
    elif frames is None:
        frames = _pyav_frames(path, unique.tolist())
    if frames.shape[1:] != (plan.height, plan.width, 3):
        raise VideoError(path, f"its frames are {frames.shape[1:3]}, {(plan.height, plan.width)} were expected.")
    return frames if bool((np.diff(back) == 1).all()) else frames[back]


def probe(path: AnyPath, quick: bool = False) -> VideoPlan:
    """Decide how a video is read, once per process and file version: it is decoded whole, by decord too if need be.

    quick: list the packets of an H.264 file instead of decoding it, read one picture of a folder: exact for intact
    files, finds no damage.
    Raises VideoError where the file is missing, holds no video, or cannot be decoded to its end.
    """
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise VideoError(path, f"{error.strerror}.") from None
    return _probe(os.fspath(path), quick, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1 << 18)
def _probe(path: str, quick: bool, mtime_ns: int, size: int) -> VideoPlan:
    if Path(path).is_dir():
        return _probe_folder(path, quick)
    packets: list[_Packet] = []
    first: av.VideoFrame | None = None
    with _opened(path) as (container, stream):
        codec, rate = stream.codec_context, stream.average_rate or stream.guessed_rate
        for packet in container.demux(stream):
            if packet.size:
                key = packet.is_keyframe
                refresh = key and (codec.name != "h264" or _has_idr(bytes(packet), codec.extradata or b""))
                packets.append(_Packet(packet.pts, packet.dts, key, refresh, packet.is_discard))
            if first is None:
                first = next(iter(packet.decode()), None)
        if first is None:
            raise VideoError(path, "it has no decodable frame.")
        height, width, _ = _rgb(path, first).shape
        reason = _doubt(container, stream, first, packets)
        seconds, promised = (container.duration or 0) / 1e6, stream.frames
        quick = quick and not reason and codec.name == "h264"
    frames, damage = len(packets), ""
    if not quick:
        sums, damage = _reference(path, seconds, promised)
        frames = len(sums)
        if not reason:  # what FFmpeg 4 inside decord conceals, it conceals in another way
            reason = "damaged" if damage else _disagreement(path, sums, [i for i, p in enumerate(packets) if p.key])
    return VideoPlan(frames, height, width, float(rate or 0), "pyav" if reason else "decord", reason, damage)


@dataclass(frozen=True)
class _Packet:
    pts: int | None
    dts: int | None
    key: bool
    refresh: bool  # nothing from here on needs anything before
    discard: bool


def _doubt(
    container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame, packets: list[_Packet]
) -> str:
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


def _reference(path: str, seconds: float, promised: int) -> tuple[list[int], str]:
    """Checksums of all frames of a full decode, and its damage: fewer frames than announced, or concealed ones."""
    sums, concealed, end = [], 0, 0.0
    for frame in decode(path):
        sums.append(crc32(_rgb(path, frame).data))
        concealed += frame.is_corrupt
        end = max(end, frame.time or 0.0)
    if not sums:
        raise VideoError(path, "it has no decodable frame.")
    if len(sums) < 0.9 * promised:
        return sums, f"ends early: {len(sums)} of {promised} frames"
    if end < 0.8 * seconds - 1:
        return sums, f"ends early: {end:.1f} of {seconds:.1f} seconds"
    return sums, f"{concealed} of {len(sums)} frames concealed" if concealed else ""


def _disagreement(path: str, sums: list[int], keys: list[int]) -> str:
    """Where decord's frames differ from the reference: all in order, then around every key frame, last first."""
    try:
        reader = decord.VideoReader(path, num_threads=1)
        if len(reader) != len(sums):
            return f"decord counts {len(reader)} frames of {len(sums)}"
        around = [i for key in reversed(keys) for i in (key + 1, key, key - 1) if 0 <= i < len(sums)]
        chunks = [list(range(at, min(at + CHUNK, len(sums)))) for at in range(0, len(sums), CHUNK)]
        for chunk in chunks + [[i] for i in around[: 3 * CHUNK]]:
            for i, frame in zip(chunk, reader.get_batch(chunk).asnumpy(), strict=True):
                if crc32(frame.data) != sums[i]:
                    return f"decord differs in frame {i}"
    except (decord.DECORDError, RuntimeError):
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


@contextmanager
def _opened(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The best video stream of a file, decoded by one thread; every fault of FFmpeg becomes a VideoError."""
    try:
        with av.open(path) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise VideoError(path, "it has no video stream.")
            if stream.codec_context is None:
                raise VideoError(path, "there is no decoder for its video stream.")
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            yield container, stream
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise VideoError(path, f"{getattr(error, 'strerror', None) or error} ({type(error).__name__}).") from None


def decode(path: AnyPath) -> Iterator[av.VideoFrame]:
    """Every frame of the best video stream in display order: the reference. Raises VideoError at damage."""
    with _opened(os.fspath(path)) as (container, stream):
        yield from container.decode(stream)


def _probe_folder(path: str, quick: bool) -> VideoPlan:
    names = pictures(path)
    if not names:
        raise VideoError(path, "the folder holds no numbered pictures.")
    height, width, _ = _pictures(path, [0] if quick else range(len(names))).shape[1:]
    missing = holes(names)
    return VideoPlan(len(names), height, width, 0.0, "pictures", "", f"{missing} pictures missing" if missing else "")


def _pictures(path: AnyPath, unique: Sequence[int]) -> Frames:
    try:
        names = pictures(path)
        frames = [read_picture(names[i]) for i in unique if i < len(names)]
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged pictures
        raise VideoError(path, f"{error}.") from None
    if len(frames) < len(unique):
        raise VideoError(path, f"frame {unique[-1]} was asked for, it has {len(names)} pictures.")
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(path, "its pictures differ in size.")
    return np.stack(frames)


def _pyav_frames(path: AnyPath, unique: list[int]) -> Frames:
    out: Frames | None = None
    done = 0
    for i, frame in enumerate(decode(path)):
        if i == unique[done]:
            rgb = _rgb(path, frame)
            if out is None:
                out = np.empty((len(unique), *rgb.shape), np.uint8)
            if rgb.shape != out.shape[1:]:
                raise VideoError(path, f"frame {i} is {rgb.shape[:2]}, earlier ones are {out.shape[1:3]}.")
            out[done] = rgb
            done += 1
            if done == len(unique):
                return out
    raise VideoError(path, f"frame {unique[done]} was asked for, it ends before.")


def _decord_frames(path: AnyPath, unique: list[int]) -> Frames | None:
    """Frames by decord, or None where it gives up: PyAV then reads, or says what is wrong with the file."""
    try:
        frames: Frames = decord.VideoReader(os.fspath(path), num_threads=1).get_batch(unique).asnumpy()
    except (decord.DECORDError, RuntimeError):
        return None
    return frames


def _rgb(path: AnyPath, frame: av.VideoFrame) -> Frames:
    """One frame as RGB (H, W, 3), contiguous, turned by the rotation in its metadata."""
    quarters, rest = divmod(frame.rotation, 90)
    if rest:
        raise VideoError(path, f"it is rotated by {frame.rotation} degrees, not by quarter turns.")
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters))
