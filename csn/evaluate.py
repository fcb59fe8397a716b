"""The one test loop: every view of every video, mean of softmax over the views."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from csn.data import MOST_DAMAGED, Split
from csn.data.loader import Reader, normalise, test_videos, too_many
from csn.graph import Graphed
from csn.metrics import Interval, Labels, auc, bootstrap, log_loss, top_k
from csn.resnet3d import ResNet3D, fully_convolutional
from csn.spec import Recipe, UserError


@dataclass(frozen=True)
class Scores:
    """probs (V, K): mean of softmax over the views, NaN for a damaged video. clip (V,): share of a video's views that are
    right. labels: (V,), or (V, K) true at a video's labels, where some carry several. videos: their ids. damaged: the ids of
    those that could not be read (misses)."""

    probs: NDArray[np.float32]
    clip: NDArray[np.float32]
    labels: Labels
    videos: tuple[str, ...]
    damaged: tuple[str, ...]

    def measures(self) -> dict[str, Interval]:
        """Every metric that has a meaning here, with its bootstrap interval over the videos.

        clip_top1 (single views), video_top1, and with more than five classes video_top5, in per cent. With two classes auc,
        in per cent, and log_loss, in nats, of the second class.
        """
        hits = {"clip_top1": 100 * self.clip.astype(np.float64), "video_top1": 100.0 * top_k(self.probs, self.labels)}
        classes, n = self.probs.shape[1], len(self.videos)
        if classes > 5:
            hits["video_top5"] = 100.0 * top_k(self.probs, self.labels, 5)
        second, positive = self.probs[:, -1], self.labels == 1 if self.labels.ndim == 1 else self.labels[:, -1] > 0
        if classes == 2:
            hits["log_loss"] = log_loss(second, positive)
        found = {name: bootstrap(lambda drawn, values=values: float(values[drawn].mean()), n) for name, values in hits.items()}  # type: ignore[misc]
        if classes == 2:
            found["auc"] = bootstrap(lambda drawn: 100 * auc(second[drawn], positive[drawn]), n)
        return found


def evaluate(
    net: nn.Module,
    split: Split,
    recipe: Recipe,
    reader: Reader,
    device: torch.device,
    workers: int = 0,
    tick: Callable[[int, int], None] = lambda done, total: None,
    rank: int = 0,
    size: int = 1,
) -> Scores:
    """Scores of net on this rank's videos of split. At most recipe.views_per_batch views are on the device at once; the uint8
    views of the videos in hand wait in main memory, on CUDA until they fill a batch. tick(done, total) counts videos.

    With size processes each takes every size-th video, and all return the scores of the whole split, in its order.
    Raises UserError when more than 5 % of the videos are damaged.
    """
    if recipe.test_dense:  # a twin, so that the trained network stays as it is
        assert isinstance(net, ResNet3D)
        net = fully_convolutional(deepcopy(net), recipe.final_map)
    forward = Forward(net.eval(), recipe, device)
    total = len(range(rank, len(split.samples), size))
    classes = len(split.classes)
    probs = np.full((total, classes), np.nan, np.float32)
    clip = np.zeros(total, np.float32)
    labels = labels_of(split)[rank::size]
    damaged: list[str] = []
    pending: list[torch.Tensor] = []
    owners: list[int] = []  # of each view that is pending
    found: dict[int, list[NDArray[np.float32]]] = {}  # of videos some of whose views are scored

    def flush(last: bool = False) -> None:
        if not owners:
            return
        views = torch.cat(pending)
        scored = len(views) if last or not forward.filled else len(views) // forward.filled * forward.filled
        for part in views[:scored].split(recipe.views_per_batch):
            for row in forward(part):
                found.setdefault(owners.pop(0), []).append(row)
        pending[:] = [views[scored:].clone()] if owners else []  # a copy: the others' memory is not to wait with them
        for owner in set(found) - set(owners):
            rows = np.stack(found.pop(owner))
            probs[owner] = rows.mean(0)
            clip[owner] = top_k(rows, labels[[owner] * len(rows)]).mean()

    for k, (views, index, readable) in enumerate(test_videos(split, recipe, reader, rank, size, workers)):
        if readable:
            pending.append(views)
            owners += [k] * len(views)
        else:
            damaged.append(split.samples[index].video)
            if len(damaged) > MOST_DAMAGED * len(split.samples):  # of all: one process may have met more than its share
                raise UserError(too_many(len(damaged), len(split.samples)))
        if len(owners) >= recipe.views_per_batch:
            flush()
        tick(k + 1, total)
    flush(last=True)
    videos = tuple(split.samples[i].video for i in range(rank, len(split.samples), size))
    own = Scores(probs, clip, labels, videos, tuple(damaged))
    scores = own if size == 1 else gathered(own, size)
    if len(scores.damaged) > MOST_DAMAGED * len(split.samples):
        raise UserError(too_many(len(scores.damaged), len(split.samples)))
    return scores


def labels_of(split: Split) -> Labels:
    """(V,) class numbers; (V, K) label sets where some video of the split carries more than one."""
    if all(len(sample.labels) == 1 for sample in split.samples):
        return np.array([sample.labels[0] for sample in split.samples], np.int64)
    sets = np.zeros((len(split.samples), len(split.classes)), np.bool_)
    for row, sample in zip(sets, split.samples, strict=True):
        row[list(sample.labels)] = True
    return sets


def gathered(own: Scores, size: int) -> Scores:
    """The scores of all processes, rank r's videos at r, r + size, ...: the order of the split."""
    parts: list[Scores | None] = [None] * size
    dist.all_gather_object(parts, own)
    scores = [part for part in parts if part is not None]
    total = sum(len(part.videos) for part in scores)
    rank_of, place_of = np.arange(total) % size, np.arange(total) // size
    pairs = list(zip(rank_of, place_of, strict=True))
    return Scores(
        np.stack([scores[r].probs[k] for r, k in pairs]),
        np.stack([scores[r].clip[k] for r, k in pairs]),
        np.stack([scores[r].labels[k] for r, k in pairs]),
        tuple(scores[r].videos[k] for r, k in pairs),
        tuple(name for part in scores for name in part.damaged),
    )


class Forward:
    """Probabilities (n, K) of uint8 views (n, T, H, W, 3), n at most recipe.views_per_batch, by net in eval mode on device.

    On CUDA every batch is filled up to views_per_batch, and the forward is one CUDA graph from the fourth on.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.device = device
        self.filled = recipe.views_per_batch if device.type == "cuda" else 0
        work = partial(probabilities, net, recipe)  # nothing that leads back here: the graph goes when this goes, and its memory with it
        self.work = Graphed(work) if self.filled else work

    @torch.inference_mode()
    def __call__(self, views: torch.Tensor) -> NDArray[np.float32]:
        n = len(views)
        if n < self.filled:
            views = F.pad(views, (0, 0) * 4 + (0, self.filled - n))
        probs = self.work(views.to(self.device))
        assert probs is not None
        return probs[:n].cpu().numpy()


def probabilities(net: nn.Module, recipe: Recipe, views: torch.Tensor) -> torch.Tensor:
    """(n, K) of uint8 views (n, T, H, W, 3) on the device of net; a dense head's positions are averaged after the softmax."""
    with torch.autocast(views.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits = net(normalise(views, recipe))
    probs = logits.float().softmax(1)
    return probs.flatten(2).mean(2) if probs.ndim > 2 else probs
