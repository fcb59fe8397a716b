"""What the processes that share a run tell each other, all of them at the same places.

Gradients are added up by an all-reduce of our own after the last micro-batch, in place of DistributedDataParallel's during it: the
micro-batches can then be CUDA graphs (csn.graph).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from csn.spec import UserError

if TYPE_CHECKING:
    from csn.train import Place


ALIGNED = 4  # values: kernels read them four at a time


@contextmanager
def process_group(backend: str, **options: Any) -> Iterator[None]:
    """torch.distributed with its group of all processes up, and down again with its threads; options are those of init_process_group.

    A thread of gloo that lets go of its last tensor while Python ends aborts the process (PyTorch issue 190489), whatever the run
    came to; destroying the group ends its threads, if nothing else holds it. An error takes down gloo's group at once, which the
    others notice; NCCL's would wait for them.
    """
    # whose functions hold, as defaults, the group that is up when it is first imported: the first optimizer imports it
    import torch.distributed.nn.functional  # noqa: F401

    dist.init_process_group(backend, **options)
    try:
        yield
    except BaseException as error:
        if backend == "gloo":
            traceback.clear_frames(error.__traceback__)  # a call that failed in the group holds it
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


class Exchange:
    """What processes that share a run tell each other in every step: gradients before it, and after it, in one all-reduce, batch-norm
    running statistics and who was asked to stop.

    Made at the start by all together: they begin with the weights and statistics of the first. From then on every gradient is
    part of one tensor, `gradients`, where it stays: zero_grad(set_to_none=False).

    One process would fold the n micro-batches of a step in order: r' = (1-m)^n r + m sum_i (1-m)^(n-i) s_i. Each process
    folds its own contiguous block; `merge` puts the blocks together, so all hold what one process would. Layers in
    evaluation mode, whose statistics stand still, are left out. On CUDA nobody waits for the answer: it is told one step later.
    """

    def __init__(self, net: nn.Module, place: Place, blocks: int) -> None:
        weights = [w for w in net.parameters() if w.requires_grad]
        starts = [0, *accumulate(-(-w.numel() // ALIGNED) * ALIGNED for w in weights)]
        self.gradients = torch.zeros(starts.pop(), device=place.device)
        for weight, start in zip(weights, starts, strict=True):
            weight.grad = self.gradients.as_strided(weight.shape, weight.stride(), start)
        begin_alike([*net.parameters(), *net.buffers()])
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

    def add_up(self) -> None:
        """Make every process's gradients their sum over the processes."""
        dist.all_reduce(self.gradients)

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
        self.copied.record(torch.cuda.current_stream(self.place.device))
        return earlier

    def answer(self) -> tuple[bool, bool]:
        return bool(self.told[0] > 0), bool(self.told[1] > 0)


def begin_alike(tensors: Sequence[Tensor]) -> None:
    """Give every process the first one's values of the tensors of floating point."""
    held = [t.detach() for t in tensors if t.is_floating_point()]
    flat = torch.cat([t.reshape(-1) for t in held])
    dist.broadcast(flat, 0)
    torch._foreach_copy_(held, [piece.view(t.shape) for piece, t in zip(flat.split([t.numel() for t in held]), held, strict=True)])


def meet(step: int, place: Place, folder: Path) -> None:
    """Go on together, from the same step. Raises UserError, on all, where the checkpoints that they found in folder are of different steps."""
    ends = torch.tensor([step, -step], dtype=torch.float64, device=place.device)
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    last, first = int(ends[0]), int(-ends[1])
    if first != last:
        what = f"shows a checkpoint of step {last} to one process and of step {first} to another"
        raise UserError(f"`{folder}` {what}; start the run again when its file system agrees.")


def reduced(sums: Tensor, place: Place) -> Tensor:
    """sums added up over the processes of the run."""
    if place.size == 1:
        return sums
    total = sums.clone()
    dist.all_reduce(total)
    return total


def united(names: set[str], place: Place) -> set[str]:
    """The names of all processes of the run; all must call it together."""
    parts: list[set[str]] = [set()] * place.size
    dist.all_gather_object(parts, names)
    return set().union(*parts)


def any_asked(place: Place) -> bool:
    """Whether any process of the run was asked to stop; all must call it together."""
    asked = torch.tensor(float(place.stop()), device=place.device)
    return bool(reduced(asked, place) > 0)
