"""Drawing depthwise filters: three planes in time, framed together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

GAP = 0.5  # pixels between the planes of a filter


def filters(weights: NDArray[np.floating], axes: Iterable[Axes]) -> list[Axes]:
    """Depthwise filters, one an axes (of axes.flat, say): weights (C, 1, T, H, W) or (C, T, H, W), drawn as T pictures in one frame.

    Blue is negative, red positive, each filter to its own largest weight. Axes beyond C are left blank.
    """
    cubes = np.asarray(weights, dtype=np.float64).reshape(len(weights), *np.shape(weights)[-3:])
    drawn = list(axes)
    for i, ax in enumerate(drawn):
        ax.set_axis_off()
        if i < len(cubes):
            frames, height, width = cubes[i].shape
            most = np.abs(cubes[i]).max() or 1.0
            for t, plane in enumerate(cubes[i]):
                left = t * (width + GAP)
                ax.imshow(plane, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest", extent=(left, left + width, height, 0))
                ax.add_patch(Rectangle((left, 0), width, height, fill=False, ec="0.5", lw=0.6))
            whole = frames * (width + GAP) - GAP
            ax.add_patch(Rectangle((-GAP, -GAP), whole + 2 * GAP, height + 2 * GAP, fill=False, ec="0.1", lw=1))
            ax.set_xlim(-2 * GAP, whole + 2 * GAP)
            ax.set_ylim(height + 2 * GAP, -2 * GAP)
    return drawn
