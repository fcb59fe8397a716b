"""Photos: one of 8 camera motions over one of 10 photographs, as real H.264 files. 8 or 80 classes.

A class is a motion, whatever is filmed, or photograph x motion, as in MovingDigits a digit x motion; but the pictures have
the statistics of natural images: edges, textures and large smooth parts at every scale. Each photograph is cut into 3 x 3 tiles; the three of one
diagonal are for test, the other six for train, and a guard band around every tile belongs to neither. A video shows one
window inside one tile, so train and test share no pixel. It is grey with a random level, gain and tint: colour and brightness tell nothing.
Directions are those of the camera: "left" moves the picture to the right, "clockwise" turns it anticlockwise, "forward" enlarges it.

The photographs lie in packages that requirements.txt names; nothing is downloaded and none is copied into this package:

    name       file in package                                 author                   licence        source
    astronaut  skimage/data/astronaut.png                      NASA                     public domain  NASA Great Images, flic.kr/p/r9qvLn
    brick      skimage/data/brick.png                          CC0Textures              CC0            cc0textures.com, Bricks25
    camera     skimage/data/camera.png                         Lav Varshney             CC0            scikit-image issue 3927
    cat        skimage/data/chelsea.png                        Stefan van der Walt      CC0            scikit-image, "Chelsea"
    coffee     skimage/data/coffee.png                         Rachel Michetti          CC0            courtesy of Pikolo Espresso Bar
    grass      skimage/data/grass.png                          linolafett               CC0            deviantart.com, Grass-01-434853879
    gravel     skimage/data/gravel.png                         CC0Textures              CC0            cc0textures.com, Gravel04
    hopper     matplotlib/mpl-data/sample_data/grace_hopper.jpg  US Navy                public domain  Naval History, photograph NH 96919-K
    hubble     skimage/data/hubble_deep_field.jpg              NASA, ESA                public domain  HubbleSite, release 2012-37
    pagoda     sklearn/datasets/images/china.jpg               Daniel Büchele           CC BY 2.0      flickr.com/photos/danielbuechele/6061409035

The pagoda is shown here in crops, in grey, with other levels and a tint: that is the change that CC BY asks to name.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform

from csn.data.embedded import SPLITS, EmbeddedSet
from csn.spec import Photos, UserError

PHOTOS = {  # name: package, file in it, first 16 hex digits of its SHA-256
    "astronaut": ("skimage", "data/astronaut.png", "88431cd9653ccd53"),
    "brick": ("skimage", "data/brick.png", "7966caf324f6ba84"),
    "camera": ("skimage", "data/camera.png", "b0793d2adda0fa6a"),
    "cat": ("skimage", "data/chelsea.png", "596aa1e7cb875eb7"),
    "coffee": ("skimage", "data/coffee.png", "cc02f8ca188b167c"),
    "grass": ("skimage", "data/grass.png", "b6b6022426b38936"),
    "gravel": ("skimage", "data/gravel.png", "c48615b451bf1e60"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "a8ca6d734765703b"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg", "3a19c5dd8a927a93"),
    "pagoda": ("sklearn", "datasets/images/china.jpg", "8378025ad2519d64"),
}
MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "forward", "back")
CLASSES = tuple(f"{photo} {motion}" for photo in PHOTOS for motion in MOTIONS)
GUARD = 8  # pixels of each side of a tile; two tiles are 16 apart, the side of a coding block of a JPEG file
WINDOW = (0.35, 0.57)  # side of what a frame shows, as a share of the tile's short side: with every motion of 20 frames it stays inside
TILT = 8.0  # degrees either way, of the camera
SPEED = 1 / 40  # frame sides a frame
TURN = 4.0  # degrees a frame
ZOOM = 1.035  # factor a frame
PLACES = 3  # places drawn for a video, of which the one with the most contrast is filmed: few videos show nothing
CORNERS = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])


class Shot(NamedTuple):
    """Where a video is filmed. tile: grey (H, W). centre (2,), path (T, 2): (y, x) in it, path relative to centre.

    axes: (T, 2, 2), photograph pixels (y, x) of one frame side (down, right).
    """

    tile: NDArray[np.float64]
    centre: NDArray[np.float64]
    path: NDArray[np.float64]
    axes: NDArray[np.float64]


@cache
def picture(name: str) -> NDArray[np.uint8]:
    """A photograph in grey (H, W). Raises UserError where it is missing or another than the one named here."""
    package, path, sha = PHOTOS[name]
    found = find_spec(package)
    try:
        content = Path(found.submodule_search_locations[0], path).read_bytes() if found and found.submodule_search_locations else b""
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest()[:16] != sha:
        raise UserError(f"The photograph {path} of the package {package} is missing or another one; install the versions of requirements.txt.")
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("L"))


def tiles(grey: NDArray[np.uint8], split: str) -> list[NDArray[np.uint8]]:
    """The tiles of a picture (H, W) that belong to a split, six for train and three for test; views, not copies."""
    rows, columns = (np.linspace(0, side, 4).astype(int) for side in grey.shape)
    return [
        grey[rows[i] + GUARD : rows[i + 1] - GUARD, columns[j] + GUARD : columns[j + 1] - GUARD]
        for i in range(3)
        for j in range(3)
        if (i + j == 2) == (split == "test")
    ]


def camera(motion: str, frames: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One camera motion: path (T, 2) and axes (T, 2, 2) of a Shot whose window has side 1."""
    time = (np.arange(frames) - (frames - 1) / 2) * rng.uniform(0.8, 1.2)
    angle = np.full(frames, np.deg2rad(rng.uniform(-TILT, TILT)))
    zoom, moved = 0, np.zeros((frames, 2))
    match motion:
        case "left" | "right":
            moved[:, 1] = SPEED * time * (1 if motion == "right" else -1)
        case "up" | "down":
            moved[:, 0] = SPEED * time * (1 if motion == "down" else -1)
        case "clockwise" | "anticlockwise":
            angle += np.deg2rad(TURN) * time * (1 if motion == "clockwise" else -1)
        case _:
            zoom = 1 if motion == "back" else -1
    cos, sin = np.cos(angle), np.sin(angle)
    axes = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1) * (ZOOM ** (zoom * time))[:, None, None]
    return (axes @ moved[:, :, None])[:, :, 0], axes  # the camera moves along its own axes


def shoot(spec: Photos, split: str, index: int, rng: np.random.Generator) -> Shot:
    """Where video `index` of a split is filmed: of a few places inside tiles of its split the one with the most contrast."""
    photo, motion = divmod(index % len(CLASSES), len(MOTIONS))
    pool = tiles(picture(tuple(PHOTOS)[photo]), split)
    path, axes = camera(MOTIONS[motion], spec.frames, rng)
    corners = path[:, None] + (axes[:, None] @ CORNERS[:, :, None])[..., 0]  # (T, 4, 2)
    low, high = corners.min((0, 1)), corners.max((0, 1))
    best, most = None, -1.0
    for _ in range(PLACES):
        tile = pool[rng.integers(len(pool))].astype(np.float64)
        window = rng.uniform(*WINDOW) * min(tile.shape)
        centre = rng.uniform(-low * window, np.array(tile.shape) - 1 - high * window)
        (top, left), (bottom, right) = (centre - window / 3).astype(int), (centre + window / 3).astype(int)
        contrast = float(tile[top:bottom, left:right].std())
        if contrast > most:
            best, most = Shot(tile, centre, path * window, axes * window), contrast
    assert best is not None
    return best


def draw(spec: Photos, split: str, index: int) -> NDArray[np.uint8]:
    """Video `index` of a split: (frames, size, size, 3). Its class is index modulo 80, or modulo 8 where a class is a motion."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    shot = shoot(spec, split, index, rng)
    n, size, fine = spec.frames, spec.size, 2 * spec.size  # four samples a pixel, against aliasing
    grey = np.empty((n, size, size))
    for t in range(n):
        matrix = shot.axes[t] / fine
        start = shot.centre + shot.path[t] - matrix @ np.full(2, (fine - 1) / 2)
        view = affine_transform(shot.tile, matrix, start, (fine, fine), order=1, mode="nearest")
        grey[t] = view.reshape(size, 2, size, 2).mean((1, 3))
    level = rng.uniform(90, 165) + rng.normal(0, 12, size=3)
    gain = rng.uniform(0.7, 1.3) * (1 + rng.normal(0, 0.1, size=3))
    frames = level + (grey - grey.mean())[..., None] * gain + rng.normal(0, spec.noise, size=(n, size, size, 3))
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


SETS = {8: EmbeddedSet(MOTIONS, draw), 80: EmbeddedSet(CLASSES, draw)}  # by number of classes; the same films
