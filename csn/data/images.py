"""A folder of numbered pictures read as a video: frame i is the i-th file in the order of the numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PICTURES = (".jpg", ".jpeg", ".png")
NUMBER = re.compile(r"(\d+)\.\w+$")


def pictures(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the numbered pictures of a folder, from 0 or 1 or anywhere, with any padding. Raises OSError."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            number = NUMBER.search(entry.name)
            if number and entry.name.lower().endswith(PICTURES):
                found.append((int(number[1]), entry.path))
    return [path for _, path in sorted(found)]


def holes(paths: Sequence[str]) -> int:
    """How many numbers are missing between the first picture and the last."""
    numbers = [int(found[1]) for path in paths if (found := NUMBER.search(path))]
    return numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0


def read_picture(path: str) -> NDArray[np.uint8]:
    """One picture as RGB (H, W, 3). Raises OSError where the file is damaged (PIL.UnidentifiedImageError is one)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
