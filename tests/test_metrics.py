"""Metrics against other people's, against pencil and paper, and with what a test set really brings: ties, sets, gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as theirs

from csn.data import Sample, Split
from csn.evaluate import Scores, labels_of
from csn.metrics import auc, bootstrap, log_loss, next_value, top_k

RNG = np.random.default_rng(0)
NAN = float("nan")


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_sklearns(k: int) -> None:
    scores, labels = RNG.random((200, 7)), RNG.integers(7, size=200)
    assert top_k(scores, labels, k).mean() == pytest.approx(theirs.top_k_accuracy_score(labels, scores, k=k, labels=range(7)))


def test_hit_at_k_takes_any_label_of_the_set() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [NAN, NAN, NAN]])
    sets = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1]], bool)
    assert top_k(scores, sets, 1).tolist() == [False, True, False, False]
    assert top_k(scores, sets, 2).tolist() == [True, True, False, False]
    assert top_k(scores[:, ::-1], sets, 1).tolist() == [True, True, True, False]
    first = sets.argmax(1)  # a loader that keeps only the first label gives another score
    assert top_k(scores[:, ::-1], first, 1).tolist() == [False, False, True, False]


def test_sets_of_one_label_are_labels() -> None:
    scores, labels = RNG.integers(4, size=(300, 6)).astype(float), RNG.integers(6, size=300)  # many ties
    for k in (1, 3, 6):
        assert np.array_equal(top_k(scores, labels, k), top_k(scores, np.eye(6, dtype=bool)[labels], k))


def test_ties_count_against_the_label_but_not_among_its_own() -> None:
    scores = np.array([[1.0, 1.0, 0.0]])
    assert not top_k(scores, np.array([0]), 1)[0] and top_k(scores, np.array([0]), 2)[0]
    assert top_k(scores, np.array([[True, True, False]]), 1)[0]
    assert not top_k(np.zeros((1, 5)), np.array([3]), 4)[0]  # a network that says nothing hits nothing


def test_auc_is_sklearns_and_a_gap_is_a_coin() -> None:
    scores, positive = RNG.integers(10, size=400) / 10, RNG.random(400) < 0.8
    assert auc(scores, positive) == pytest.approx(theirs.roc_auc_score(positive, scores))
    assert auc(np.array([0.1, 0.9]), np.array([False, True])) == 1.0
    assert auc(np.array([0.1, 0.9, NAN]), np.array([False, True, True])) == 0.75
    assert auc(np.full(4, NAN), np.array([False, True, True, False])) == 0.5
    assert np.isnan(auc(scores, np.ones(400, bool)))


def test_log_loss_is_sklearns() -> None:
    p, positive = RNG.random(300), RNG.random(300) < 0.5
    assert log_loss(p, positive).mean() == pytest.approx(theirs.log_loss(positive, np.stack([1 - p, p], 1)))
    assert log_loss(np.array([0.5, NAN]), np.array([True, False])) == pytest.approx(np.log(2))
    assert log_loss(np.array([0.0, 1.0], np.float32), np.array([True, True])) == pytest.approx([-np.log(1e-6), 0], abs=1e-5)


def test_the_next_value_lies_within_its_interval_as_often_as_told() -> None:
    draws = np.random.default_rng(0).normal(50, 3, size=(4000, 4))
    bounds = [next_value(values[:3]) for values in draws]
    within = np.mean([one.low <= values[3] <= one.high for one, values in zip(bounds, draws, strict=True)])
    assert 0.94 < within < 0.96
    assert bounds[0].mean == pytest.approx(draws[0, :3].mean()) and bounds[0].n == 3
    assert np.isnan(next_value([1.0]).low)


def test_bootstrap_is_scipys_percentile_interval() -> None:
    values = RNG.normal(3, 2, size=500)
    mine = bootstrap(lambda drawn: float(values[drawn].mean()), 500)
    other = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=1).confidence_interval
    assert mine.mean == pytest.approx(values.mean()) and mine.n == 500
    assert (mine.low, mine.high) == pytest.approx((other.low, other.high), abs=0.03)
    assert mine == bootstrap(lambda drawn: float(values[drawn].mean()), 500)  # the same draws every time
    assert mine != bootstrap(lambda drawn: float(values[drawn].mean()), 500, seed=1)
    half = bootstrap(lambda drawn: float(values[drawn].mean()), 500, level=0.5)
    assert mine.low < half.low < mine.mean < half.high < mine.high


def test_bootstrap_of_little() -> None:
    one = bootstrap(lambda drawn: float(drawn.mean()), 1)
    assert one.mean == 0 and np.isnan(one.low) and np.isnan(one.high) and one.n == 1
    positive = np.array([False, True])  # half of the draws hold one kind only: no AUC
    two = bootstrap(lambda drawn: auc(np.array([0.1, 0.9])[drawn], positive[drawn]), 2)
    assert (two.mean, two.low, two.high) == (1.0, 1.0, 1.0)
    none = bootstrap(lambda drawn: auc(np.array([0.1, 0.9])[drawn], np.ones(2, bool)[drawn]), 2)
    assert np.isnan(none.mean) and np.isnan(none.low)


def scores_of(probs: np.ndarray, labels: np.ndarray) -> Scores:
    videos = tuple(map(str, range(len(probs))))
    return Scores(probs.astype(np.float32), top_k(probs, labels).astype(np.float32), labels, videos, ())


def test_a_test_set_has_the_metrics_of_its_classes() -> None:
    many = torch.rand(50, 9).softmax(1).numpy()
    measures = scores_of(many, RNG.integers(9, size=50)).measures()
    assert set(measures) == {"clip_top1", "video_top1", "video_top5"}
    assert all(0 <= m.low <= m.mean <= m.high <= 100 and m.n == 50 for m in measures.values())
    assert set(scores_of(many[:, :5], RNG.integers(5, size=50)).measures()) == {"clip_top1", "video_top1"}  # top 5 of 5 says nothing
    fake = RNG.random(50)
    labels = (fake + RNG.normal(0, 0.3, 50) > 0.5).astype(np.int64)
    two = scores_of(np.stack([1 - fake, fake], 1), labels).measures()
    assert set(two) == {"clip_top1", "video_top1", "auc", "log_loss"}
    assert two["auc"].mean == pytest.approx(100 * theirs.roc_auc_score(labels, fake), abs=1e-3)
    assert two["auc"].low < two["auc"].mean < two["auc"].high and two["log_loss"].low < two["log_loss"].mean < two["log_loss"].high


def test_label_sets_of_a_split(tmp_path: Path) -> None:
    samples = [Sample(tmp_path, (2, 0), "a"), Sample(tmp_path, (1,), "b")]
    assert labels_of(Split(tuple(samples), ("x", "y", "z"))).tolist() == [[True, False, True], [False, True, False]]
    assert labels_of(Split(tuple(samples[1:]), ("x", "y", "z"))).tolist() == [1]
