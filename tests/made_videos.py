"""Small videos and frame folders, written by the tests that read them."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from csn.data.video import decode, read_frames

X264 = {"preset": "veryfast"}


def picture(index: int, height: int, width: int) -> np.ndarray:
    """Frame `index` of every made video: blocks that move, brightness that tells the frames apart; (H, W, 3)."""
    blocks = np.random.default_rng(0).integers(0, 200, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    image = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    image = np.roll(image, (index * 3, index * 5), (0, 1))
    image[: height // 4] = index * 37 % 256
    return image


def write(
    path: Path,
    frames: int = 24,
    size: tuple[int, int] = (64, 96),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    fps: int = 25,
    times: list[int] | None = None,
    container: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write a video of `frames` pictures (H, W) = size; times: display time of each frame in 1 / fps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.options = {"threads": "1", **options}
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24")
            frame.pts, frame.time_base = (times[i] if times else i), Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def write_folder(folder: Path, frames: int, first: int = 1, digits: int = 5, size: tuple[int, int] = (40, 60)) -> Path:
    """Write numbered JPEG pictures, as Something-Something V1 has them."""
    folder.mkdir(parents=True)
    for i in range(frames):
        picture_file(folder / f"{first + i:0{digits}d}.jpg", i, size)
    return folder


def picture_file(path: Path, index: int, size: tuple[int, int] = (40, 60)) -> None:
    """Write frame `index` of every made video as a JPEG picture."""
    av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24").save(path)


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
