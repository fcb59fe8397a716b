"""A folder of numbered pictures read as a video: frame i is the i-th file in the order of the numbers.

Other tools put optical flow beside the pictures (flow_x_00001.jpg), which is left out: of several series of names the one of
pictures is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PICTURES = (".jpg", ".jpeg", ".png")
FLOW = "flow_"  # what optical flow saved as pictures is called
NUMBER = re.compile(r"(\d+)\.\w+$")
SERIES = ("", "img_", "image_", "frame_", "frame", "img", "image")  # what stands before the number, most likely first


def pictures(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the numbered pictures of a folder, from 0 or 1 or anywhere, with any padding.

    Raises OSError, and ValueError where it is not clear which pictures are the video's.
    """
    series: dict[str, list[tuple[int, str]]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            number = NUMBER.search(entry.name)
            if number and entry.name.lower().endswith(PICTURES) and not entry.name.lower().startswith((".", FLOW)):
                series.setdefault(entry.name[: number.start()].lower(), []).append((int(number[1]), entry.path))
    if not series:
        return []
    name = next((name for name in SERIES if name in series), None) if len(series) > 1 else next(iter(series))
    if name is None:
        raise ValueError(f"it holds several series of pictures ({', '.join(sorted(series))})")
    found = sorted(series[name])
    twice = next((number for (number, _), (after, _) in pairwise(found) if number == after), None)
    if twice is not None:
        raise ValueError(f"it holds two pictures of number {twice}")
    return [path for _, path in found]


def holes(paths: Sequence[str]) -> int:
    """How many numbers are missing between the first picture and the last."""
    numbers = [int(found[1]) for path in paths if (found := NUMBER.search(path))]
    return numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0


def read_picture(path: str) -> NDArray[np.uint8]:
    """One picture as RGB (H, W, 3), of 16 bits of grey the upper 8. Raises OSError where the file is damaged (PIL.UnidentifiedImageError is
    one), ValueError where its pixels are neither."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            if image.mode in ("I", "F"):  # converted, all above 255 would be white
                raise ValueError(f"{path} has pixels of 32 bits")
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:  # a damaged size
        raise OSError(str(error)) from None
