"""Metrics: pure functions on arrays. V videos, N views, K classes, S seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.floating]


def top_k(scores: Floats, labels: NDArray[np.integer], k: int = 1) -> NDArray[np.bool_]:
    """(V,) whether the label is among the k highest of scores (V, K). A row with NaN is a miss; so is a tie that k cannot hold.

    Ties count against the label: it must beat all but k - 1 of the other classes strictly.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    return np.isfinite(scores).all(1) & ((scores >= own).sum(1) <= k)


@dataclass(frozen=True)
class Interval:
    """mean of n values and the two-sided 95 % interval of the mean; low and high are NaN for n < 2."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def interval(values: Sequence[float] | Floats, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of values (S,); for paired seeds give the differences."""
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), float(values.mean()) if len(values) else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)
