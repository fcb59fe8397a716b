"""The decoders behind the door: PyAV from the first frame on, decord by seeking, Pillow for folders of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import av
import decord
import numpy as np
from numpy.typing import NDArray

from csn.data.images import pictures, read_picture
from csn.spec import UserError

Frames = NDArray[np.uint8]  # (n, H, W, 3), one frame: (H, W, 3)
AnyPath = str | os.PathLike[str]

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


@contextmanager
def opened(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
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
    with opened(os.fspath(path)) as (container, stream):
        yield from container.decode(stream)


def by_pyav(path: AnyPath, unique: list[int]) -> Frames:
    out: Frames | None = None
    done = 0
    for i, frame in enumerate(decode(path)):
        if i == unique[done]:
            rgb = upright(path, frame)
            if out is None:
                out = np.empty((len(unique), *rgb.shape), np.uint8)
            if rgb.shape != out.shape[1:]:
                raise VideoError(path, f"frame {i} is {rgb.shape[:2]}, earlier ones are {out.shape[1:3]}.")
            out[done] = rgb
            done += 1
            if done == len(unique):
                return out
    raise VideoError(path, f"frame {unique[done]} was asked for, it ends before.")


def by_decord(path: AnyPath, unique: list[int]) -> Frames | None:
    """Frames by decord, or None where it gives up: PyAV then reads, or says what is wrong with the file."""
    try:
        frames: Frames = decord.VideoReader(os.fspath(path), num_threads=1).get_batch(unique).asnumpy()
    except (decord.DECORDError, RuntimeError, UnicodeError):  # it takes names in UTF-8 only
        return None
    return frames


def by_pictures(path: AnyPath, unique: Sequence[int], expected: int) -> Frames:
    """Pictures by their position in a folder of `expected` ones: one more or less, and the others are no longer where they were."""
    try:
        names = pictures(path)
        if len(names) != expected:
            raise VideoError(path, f"it holds {len(names)} pictures, {expected} were expected; run the scan again.")
        frames = [read_picture(names[i]) for i in unique]
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged pictures
        raise VideoError(path, f"{error}.") from None
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(path, "its pictures differ in size.")
    return np.stack(frames)


def upright(path: AnyPath, frame: av.VideoFrame) -> Frames:
    """One frame as RGB (H, W, 3), contiguous, turned by the rotation in its metadata."""
    quarters, rest = divmod(frame.rotation, 90)
    if rest:
        raise VideoError(path, f"it is rotated by {frame.rotation} degrees, not by quarter turns.")
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", threads=1), quarters))
