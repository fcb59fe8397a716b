"""The one test loop: every view of every video, mean of softmax over the views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from csn.data import Split
from csn.data.loader import MOST_DAMAGED, Reader, normalise, test_videos, too_many
from csn.metrics import top_k
from csn.spec import Recipe, UserError


@dataclass(frozen=True)
class Scores:
    """probs (V, K): mean of softmax over the views, NaN for a damaged video. clip (V,): share of a video's views that are
    right. labels (V,). videos: their ids. damaged: the ids of those that could not be read (misses)."""

    probs: NDArray[np.float32]
    clip: NDArray[np.float32]
    labels: NDArray[np.int64]
    videos: tuple[str, ...]
    damaged: tuple[str, ...]

    @property
    def clip_top1(self) -> float:
        """clip@1, per cent: single views."""
        return 100 * float(self.clip.mean())

    def video_top(self, k: int) -> float:
        """video@k, per cent: views averaged."""
        return 100 * float(top_k(self.probs, self.labels, k).mean())


def evaluate(
    net: nn.Module,
    split: Split,
    recipe: Recipe,
    reader: Reader,
    device: torch.device,
    workers: int = 0,
    views_per_batch: int = 32,
    tick: Callable[[int, int], None] = lambda done, total: None,
    rank: int = 0,
    size: int = 1,
) -> Scores:
    """Scores of net on this rank's videos of split. At most views_per_batch views are on the device at once (more only
    where one video's views are asked for together would change nothing but memory). tick(done, total) counts videos.

    With size processes each takes every size-th video, and all return the scores of the whole split, in its order.
    Raises UserError when more than 5 % of the videos are damaged.
    """
    net.eval()
    total = len(range(rank, len(split.samples), size))
    classes = len(split.classes)
    probs = np.full((total, classes), np.nan, np.float32)
    clip = np.zeros(total, np.float32)
    labels = np.array([split.samples[i].labels[0] for i in range(rank, len(split.samples), size)], np.int64)
    damaged: list[str] = []
    pending: list[torch.Tensor] = []
    owners: list[int] = []

    def flush() -> None:
        if not owners:
            return
        views = torch.cat(pending)
        out = np.concatenate([forward(net, views[i : i + views_per_batch], recipe, device) for i in range(0, len(views), views_per_batch)])
        at = 0
        for owner, views_of in zip(owners, pending, strict=True):
            rows = out[at : at + len(views_of)]
            at += len(views_of)
            probs[owner] = rows.mean(0)
            clip[owner] = top_k(rows, np.full(len(rows), labels[owner])).mean()
        pending.clear()
        owners.clear()

    with torch.inference_mode():
        for k, (views, index, readable) in enumerate(test_videos(split, recipe, reader, rank, size, workers)):
            if readable:
                pending.append(views)
                owners.append(k)
            else:
                damaged.append(split.samples[index].video)
                if len(damaged) > MOST_DAMAGED * total:
                    raise UserError(too_many(len(damaged), total))
            if sum(map(len, pending)) >= views_per_batch:
                flush()
            tick(k + 1, total)
        flush()
    videos = tuple(split.samples[i].video for i in range(rank, len(split.samples), size))
    own = Scores(probs, clip, labels, videos, tuple(damaged))
    return own if size == 1 else gathered(own, size)


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


def forward(net: nn.Module, views: torch.Tensor, recipe: Recipe, device: torch.device) -> NDArray[np.float32]:
    """Probabilities (n, K) of uint8 views (n, T, H, W, 3); a dense head's positions are averaged after the softmax."""
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits = net(normalise(views.to(device), recipe))
    probs = logits.float().softmax(1)
    return (probs.flatten(2).mean(2) if probs.ndim > 2 else probs).cpu().numpy()
