"""What the processes that share a run tell each other, all of them at the same places."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from csn.train import Place


class Exchange:
    """What processes that share a run tell each other after every step, in one all-reduce: batch-norm running statistics,
    and who was asked to stop.

    One process would fold the n micro-batches of a step in order: r' = (1-m)^n r + m sum_i (1-m)^(n-i) s_i. Each process
    folds its own contiguous block; `merge` puts the blocks together, so all hold what one process would. Layers in
    evaluation mode, whose statistics stand still, are left out.
    """

    def __init__(self, net: nn.Module, place: Place, blocks: int) -> None:
        self.norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm3d) and m.training]
        self.place, self.blocks = place, blocks
        self.before = self.flat()

    def flat(self) -> Tensor:
        statistics = [t for m in self.norms for t in (m.running_mean, m.running_var) if t is not None]
        return torch.cat([torch.zeros(0, device=self.place.device), *statistics])

    def merge(self, stop: bool, due: bool) -> tuple[bool, bool]:
        """Whether any process was asked to stop, and whether the first one's clock says to save: the same answer on all."""
        rank, size = self.place.rank, self.place.size
        keep = (1 - float(self.norms[0].momentum or 0)) ** self.blocks if self.norms else 1.0
        own = (self.flat() - keep * self.before) * keep ** (size - 1 - rank)
        shared = torch.cat([own, own.new_tensor([stop, due and rank == 0])])
        dist.all_reduce(shared)
        merged = shared[:-2] + keep**size * self.before
        at = 0
        for norm in self.norms:
            for t in (norm.running_mean, norm.running_var):
                assert isinstance(t, Tensor)
                t.copy_(merged[at : at + len(t)])
                at += len(t)
            assert isinstance(norm.num_batches_tracked, Tensor)
            norm.num_batches_tracked += self.blocks * (size - 1)
        self.before = merged
        stops, dues = shared[-2:].tolist()
        return stops > 0, dues > 0


def strided_as(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook that gives a gradient the strides of its weight where they differ in dimensions of one element only.

    Such strides mean nothing, but DistributedDataParallel compares them: 1x1x1 weights in channels_last_3d have others
    than the kernels' gradients.
    """
    strides = weight.stride()

    def hook(grad: Tensor) -> Tensor:
        pairs = zip(grad.shape, grad.stride(), strides, strict=True)
        return grad.as_strided(grad.shape, strides) if all(n == 1 or own == wanted for n, own, wanted in pairs) else grad

    return hook


def reduced(sums: Tensor, place: Place) -> Tensor:
    """sums added up over the processes of the run."""
    if place.size == 1:
        return sums
    total = sums.clone()
    dist.all_reduce(total)
    return total


def any_asked(place: Place) -> bool:
    """Whether any process of the run was asked to stop; all must call it together."""
    asked = torch.tensor(float(place.stop()), device=place.device)
    return bool(reduced(asked, place) > 0)
