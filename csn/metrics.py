"""Metrics: pure functions on arrays. V videos, N views, K classes, S seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.floating]
Labels = NDArray[np.integer] | NDArray[np.bool_]  # (V,) class numbers, or (V, K): the label set of each video
SURE = 1e-6  # log-loss takes no probability nearer to 0 or 1: one wrong video costs 13.8 at most
RESAMPLES = 1000


def top_k(scores: Floats, labels: Labels, k: int = 1) -> NDArray[np.bool_]:
    """(V,) whether the label is among the k highest of scores (V, K); with label sets, whether any of them is: hit@k.

    A row with NaN is a miss. Ties count against the label: fewer than k of the classes that are no label of the video may
    score as high as its best label.
    """
    own = labels if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
    best = np.where(own, scores, -np.inf).max(1, keepdims=True)
    return np.isfinite(scores).all(1) & (((scores >= best) & ~own).sum(1) < k)


def auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of scores (V,): the share of pairs (positive, negative) whose positive scores higher.

    A tie counts one half, and so does a pair with a score of NaN, a video nothing is known of. NaN where either kind is absent.
    """
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return float("nan")
    known = np.isfinite(scores)
    low, high = np.sort(scores[~positive & known]), scores[positive & known]
    wins = (np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")).sum() / 2
    return float((wins + (pairs - len(low) * len(high)) / 2) / pairs)


def log_loss(scores: Floats, positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(V,) -ln of the probability given to the truth, scores (V,) being those of "positive", kept in [SURE, 1 - SURE].

    A score of NaN is one half: ln 2. The mean over the videos is the log-loss of the Deepfake Detection Challenge.
    """
    p = np.clip(np.where(np.isfinite(scores), scores, 0.5).astype(np.float64), SURE, 1 - SURE)
    return -np.log(np.where(positive, p, 1 - p))


@dataclass(frozen=True)
class Interval:
    """mean: of n values (or another statistic of n videos). low, high: its two-sided 95 % interval, NaN for n < 2."""

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


def next_value(values: Sequence[float] | Floats, level: float = 0.95) -> Interval:
    """Student's prediction interval of one more value drawn as the values (S,) were, around their mean."""
    spread = interval(values, level)
    half = spread.half * np.sqrt(spread.n + 1)
    return Interval(spread.mean, spread.mean - half, spread.mean + half, spread.n)


def bootstrap(statistic: Callable[[NDArray[np.int64]], float], n: int, level: float = 0.95, seed: int = 0) -> Interval:
    """statistic of n videos with the percentile interval of RESAMPLES draws of n of them, with replacement.

    statistic takes positions (n,) of videos; draws for which it is NaN are left out. Equal seeds give equal intervals. It
    measures the choice of test videos, not that of the training seed.
    """
    rng, value = np.random.default_rng(seed), statistic(np.arange(n))
    drawn = np.array([statistic(rng.integers(n, size=n)) for _ in range(RESAMPLES if n > 1 else 0)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if len(drawn) else (float("nan"), float("nan"))
    return Interval(value, float(low), float(high), n)
