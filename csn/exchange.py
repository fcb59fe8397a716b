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
    evaluation mode, whose statistics stand still, are left out. On CUDA nobody waits for the answer: it is told one step later.
    """

    def __init__(self, net: nn.Module, place: Place, blocks: int) -> None:
        self.norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm3d) and m.training]
        self.place, self.blocks = place, blocks
        self.statistics = [t for m in self.norms for t in (m.running_mean, m.running_var) if t is not None]
        self.counts = [m.num_batches_tracked for m in self.norms if m.num_batches_tracked is not None]
        self.before = self.flat()
        pinned = place.device.type == "cuda"
        self.asked, self.told = torch.zeros(2, pin_memory=pinned), torch.zeros(2, pin_memory=pinned)
        self.copied = torch.cuda.Event() if pinned else None

    def flat(self) -> Tensor:
        return torch.cat([torch.zeros(0, device=self.place.device), *self.statistics])

    def merge(self, stop: bool, due: bool) -> tuple[bool, bool]:
        """Whether any process was asked to stop, and whether the first one's clock says to save: the same answer on all.

        On CUDA this is the answer to what was asked one step before, (False, False) in the first.
        """
        if self.copied is not None:
            self.copied.synchronize()  # of the step before: the GPU is busy with this one
        earlier = self.answer()
        rank, size = self.place.rank, self.place.size
        keep = (1 - float(self.norms[0].momentum or 0)) ** self.blocks if self.norms else 1.0
        own = (self.flat() - keep * self.before) * keep ** (size - 1 - rank)
        # a save that is about to happen is not asked for again
        self.asked[0], self.asked[1] = stop, due and rank == 0 and not (self.copied and earlier[1])
        shared = torch.cat([own, self.asked.to(own.device, non_blocking=True)])
        dist.all_reduce(shared)
        merged = shared[:-2] + keep**size * self.before
        if self.norms:
            torch._foreach_copy_(self.statistics, merged.split([len(t) for t in self.statistics]))
            torch._foreach_add_(self.counts, self.blocks * (size - 1))
        self.before = merged
        self.told.copy_(shared[-2:], non_blocking=True)
        if self.copied is None:
            return self.answer()
        self.copied.record()
        return earlier

    def answer(self) -> tuple[bool, bool]:
        return bool(self.told[0] > 0), bool(self.told[1] > 0)


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
