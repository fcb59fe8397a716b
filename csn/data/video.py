"""The one door for reading video: the frames asked for, exactly, or a VideoError.

    read_frames(path, indices, plan=None) -> uint8 (n, H, W, 3), RGB, display orientation
    probe(path) -> VideoPlan(frames, height, width, fps, reader, reason)

Frame i is the i-th frame that FFmpeg gives when it decodes the best video stream of the file from the first
packet to the last (PyAV, one thread), turned by the rotation in the file's metadata, converted to RGB by swscale
with its default coefficients (the colour matrix named in the file is ignored, as decord and PyAV both do).
Every pixel is equal to that reference, not only the frame number: decord is used only for files whose pixel
format and sizes it converts bit for bit alike (8 bit 4:2:0, even sizes) and whose packets show that its seeks
land on the right frame. Every other file is decoded by PyAV from its first frame up to the last one asked for.

decord 0.6.0 gives wrong frames without a word where its index (key frames counted in decoding order, frames in
display order) does not describe the stream. It is right where every key frame is an instantaneous refresh,
frames neither precede nor follow a key frame in one order only, time stamps are unique, and no other key
frame lies between the decoding and the display time of one; `_why_not_decord` checks just that.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import av
import decord
import numpy as np
from numpy.typing import NDArray

from csn.spec import UserError

Frames = NDArray[np.uint8]  # (n, H, W, 3)

SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # containers with real presentation times
CODECS = ("h264", "vp8", "vp9")
PIXELS = ("yuv420p", "yuvj420p")

# FFmpeg reports what it can mend on stderr, once a packet; what it cannot mend is an exception here.
av.logging.set_level(None)
decord.logging.set_level(decord.logging.QUIET)


class VideoError(UserError):
    """A video that cannot be read exactly: "video FILE cannot be read: reason"."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path, self.reason = os.fspath(path), reason
        super().__init__(f"video {self.path} cannot be read: {reason}")

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return VideoError, (self.path, self.reason)


@dataclass(frozen=True)
class VideoPlan:
    """What a file holds and who may read it.

    frames: number of frames of a full decode. height, width: of the frames returned, after rotation.
    fps: average frames per second. reader: "decord" (may seek) or "pyav" (decodes from frame 0).
    reason: why not decord, "" where decord reads.
    """

    frames: int
    height: int
    width: int
    fps: float
    reader: Literal["decord", "pyav"]
    reason: str = ""


def read_frames(
    path: str | os.PathLike[str], indices: Sequence[int] | NDArray[np.integer], plan: VideoPlan | None = None
) -> Frames:
    """Return frames `indices` of the video `path`, in the order asked, repeats included: uint8 (n, H, W, 3).

    plan: what `probe` or a scan said of this file; without it the file is probed once per process. Raises
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
    if frames is None:
        frames = _pyav_frames(path, unique.tolist())
    if frames.shape[1:] != (plan.height, plan.width, 3):
        raise VideoError(path, f"frames are {frames.shape[1:3]}, {(plan.height, plan.width)} were announced.")
    return frames if len(unique) == len(wanted) and (back[1:] > back[:-1]).all() else frames[back]


def probe(path: str | os.PathLike[str]) -> VideoPlan:
    """Decide how `path` is read, once per process and file version: its packets are listed, and decoded if need be.

    Raises VideoError where the file is missing, holds no video, or cannot be decoded to its end (files that
    decord may read are only listed here: damage inside one is found by a scan, or when it is read).
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise VideoError(path, f"{error.strerror}.") from None
    return _probe(os.fspath(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1 << 18)
def _probe(path: str, mtime_ns: int, size: int) -> VideoPlan:
    with _opened(path) as (container, stream):
        codec, rate = stream.codec_context, stream.average_rate or stream.guessed_rate
        name, extradata = codec.name, codec.extradata or b""
        first: av.VideoFrame | None = None
        packets: list[_Packet] = []
        for packet in container.demux(stream):
            if packet.size:
                key = packet.is_keyframe and (name != "h264" or _has_idr(bytes(packet), extradata))
                packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, key, packet.is_discard))
            if first is None:
                first = next(iter(packet.decode()), None)
        if first is None:
            raise VideoError(path, "it has no decodable frame.")
        height, width, _ = _rgb(path, first).shape
        reason = _why_not_decord(container, name, first.format.name, height, width, packets)
    frames = len(packets)
    if reason or name != "h264":
        # Packets without a picture (hidden reference frames) and pictures without a packet of their own exist here.
        frames = sum(1 for _ in decode(path))
        if not reason and frames != len(packets):
            reason = f"{len(packets)} packets give {frames} frames"
    return VideoPlan(frames, height, width, float(rate or 0), "pyav" if reason else "decord", reason)


@dataclass(frozen=True)
class _Packet:
    pts: int | None
    dts: int | None
    key: bool
    refresh: bool  # nothing after it needs anything before it
    discard: bool


def _why_not_decord(
    container: av.container.InputContainer, codec: str, pixels: str, height: int, width: int, packets: list[_Packet]
) -> str:
    """Return the first reason why decord's seeks or pixels could be wrong for this stream, "" where there is none."""
    if container.format.name not in SEEKABLE:
        return f"container {container.format.name.split(',')[0]}"
    if len(container.streams.video) > 1:
        return "several video streams"
    if container.duration is None:
        return "container without a duration"
    if codec not in CODECS:
        return f"codec {codec}"
    if pixels not in PIXELS:
        return f"pixel format {pixels}"
    if height % 2 or width % 2:
        return f"odd size {height}x{width}"
    times = [p.pts for p in packets if p.pts is not None]
    if len(times) != len(packets):
        return "packets without a time stamp"
    if len(set(times)) != len(times):
        return "two frames with one time stamp"
    if any(p.discard for p in packets):
        return "an edit list cuts frames"
    keys = [i for i, p in enumerate(packets) if p.key]
    if not keys or keys[0] != 0:
        return "does not begin with a key frame"
    if not all(packets[i].refresh for i in keys):
        return "a key frame that is no full refresh"
    latest = -(1 << 62)
    for i, packet in enumerate(packets):
        if packet.key and times[i] <= latest:
            return "frames shown before the key frame they follow"
        if not packet.key and times[i] < times[keys[0]]:
            return "frames shown before the first key frame"
        latest = max(latest, times[i])
    for here, following in zip(keys, keys[1:], strict=False):
        if min(times[here:following]) < times[here]:
            return "frames shown before the key frame they follow"
        dts = packets[following].dts
        if dts is not None and dts <= times[here]:
            return "key frames closer than the reordering delay"
    return ""


def _has_idr(data: bytes, extradata: bytes) -> bool:
    """Whether an H.264 packet holds an instantaneous refresh (NAL unit type 5; ISO 14496-10, table 7-1)."""
    if extradata[:1] != b"\x01":  # Annex B start codes instead of lengths
        return any(part[:1] and part[0] & 31 == 5 for part in data.split(b"\0\0\1")[1:])
    size, at = (extradata[4] & 3) + 1 if len(extradata) > 4 else 4, 0
    while at + size < len(data):
        if data[at + size] & 31 == 5:
            return True
        at += size + int.from_bytes(data[at : at + size], "big")
    return False


@contextmanager
def _opened(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open the best video stream of `path`, one decoding thread; every fault of FFmpeg becomes a VideoError."""
    try:
        with av.open(path) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise VideoError(path, "it has no video stream.")
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            yield container, stream
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise VideoError(path, f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}.") from None


def decode(path: str | os.PathLike[str]) -> Iterator[av.VideoFrame]:
    """Yield every frame of the best video stream in display order: the reference. Raises VideoError at damage."""
    with _opened(os.fspath(path)) as (container, stream):
        yield from container.decode(stream)


def _pyav_frames(path: str | os.PathLike[str], unique: list[int]) -> Frames:
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


def _decord_frames(path: str | os.PathLike[str], unique: list[int]) -> Frames | None:
    """Frames by decord, or None where decord gives up: PyAV then reads, or says what is wrong with the file."""
    try:
        reader = decord.VideoReader(os.fspath(path), num_threads=1)
        frames: Frames = reader.get_batch(unique).asnumpy()
    except (decord.DECORDError, RuntimeError):
        return None
    return frames


def _rgb(path: str | os.PathLike[str], frame: av.VideoFrame) -> Frames:
    """One frame as RGB (H, W, 3), turned by the rotation in its metadata."""
    quarter, rest = divmod(frame.rotation, 90)
    if rest:
        raise VideoError(path, f"it is rotated by {frame.rotation} degrees, not by quarter turns.")
    rgb: Frames = frame.to_ndarray(format="rgb24")
    return np.rot90(rgb, quarter) if quarter % 4 else rgb
