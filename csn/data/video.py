"""The one door for reading video: the frames asked for, exactly, or a VideoError.

    plan = probe(path)                          # frames, height, width, fps, reader, reason, damage
    frames = read_frames(path, [0, 8, 4], plan)  # uint8 (n, H, W, 3), RGB, upright

Frame i is the i-th frame that FFmpeg gives when it decodes the best video stream of the file from the first packet to
the last (PyAV, one thread), turned by the rotation in the file's metadata, converted to RGB by swscale with its default
coefficients (a colour matrix named in the file is ignored, as by decord). Every value equals that reference, not only
the frame's number: a file goes to decord only if decord was seen to agree, every other one is decoded by PyAV from its
first frame to the last one asked for. A folder of numbered pictures is a video too, without a frame rate.

decord 0.6.0 counts key frames in decoding order and frames in display order, so it gives wrong frames without a word
wherever the two differ. Its pixels differ for odd sizes, more than 8 bits and interlaced pictures. `csn.data.probing`
lists these from the packets, then compares decord's frames, in order and by seeking, with the reference.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csn.data.decoding import AnyPath, Frames, VideoError, by_decord, by_pictures, by_pyav, decode
from csn.data.probing import VideoPlan, probe

__all__ = ["VideoError", "VideoPlan", "decode", "probe", "read_frames"]


def read_frames(path: AnyPath, indices: Sequence[int] | NDArray[np.integer], plan: VideoPlan | None = None) -> Frames:
    """Frames `indices` of a video, in the order asked, repeats included: uint8 (n, H, W, 3).

    plan: what `probe` or a scan said of this file; without it the file is probed, once per process. Raises
    VideoError where the file is missing, damaged before the last frame asked for, or has no such frame.
    """
    path = str(Path(path).absolute())  # FFmpeg takes a relative name with a colon for a protocol
    plan = plan or probe(path)
    wanted = [operator.index(i) for i in indices]
    for i in wanted:
        if not 0 <= i < plan.frames:
            raise VideoError(path, f"frame {i} was asked for, it has frames 0 to {plan.frames - 1}.")
    if not wanted:
        return np.empty((0, plan.height, plan.width, 3), np.uint8)
    unique, back = np.unique(np.array(wanted), return_inverse=True)
    frames = by_decord(path, unique.tolist()) if plan.reader == "decord" else None
    if plan.reader == "pictures":
        frames = by_pictures(path, unique.tolist(), plan.frames)
    elif frames is None:
        frames = by_pyav(path, unique.tolist())
    if frames.shape[1:] != (plan.height, plan.width, 3):
        raise VideoError(path, f"its frames are {frames.shape[1:3]}, {(plan.height, plan.width)} were expected.")
    return frames if bool((np.diff(back) == 1).all()) else frames[back]
