"""A step of training, or a batch of the test, without its launches: thousands of small kernels, started by the GPU itself.

A step of CSN-152 is some two thousand kernels, most of which take less time than the processor needs to start the next one. A CUDA
graph records them once and starts them all with one call. With batch norm fused, which pays only then, a step of ir-CSN-152 takes 20 ms,
and 127 without either (H200, results/benchmarks/step_gpu_152.csv).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from csn.norm import fused

EAGER = 3  # calls before the graph is made: they choose kernels, compile them, and make what is kept, gradients above all


class Graphed:
    """work, a function of tensors on one CUDA device that returns a tensor or nothing, as one CUDA graph from its call number EAGER + 1 on.

    Its arguments have the same shapes, types and device in every call; what one returned, the next may write over. What it reads and
    writes beside them (weights, gradients, sums) has to stay where it is in memory: gradients are set to zero, not to None, and added to; those
    that are None when the graph is made are the graph's own from then on, written over in every call. A number that it reads, such as a
    momentum, stays what it was. It may not wait for the device, and nothing that leads back to its gradients, such as a loss that is not
    detached, may outlive it. Batch norm in it, pool1 and what stands before conv1 are kernels of ours (csn.norm.fused), many small ones, which
    cost nothing to start here. A call that raises counts for nothing. Raises ValueError where the arguments are not those of the graph, and
    within autocast that began outside of it: its copies of the weights are gone when it ends, and the graph would read them still.
    """

    def __init__(self, work: Callable[..., Tensor | None]) -> None:
        self.work, self.calls = work, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.result: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor | None:
        if torch.is_autocast_enabled("cuda") and torch.is_autocast_cache_enabled():
            raise ValueError("autocast belongs into the work of Graphed, not around its calls")
        with torch.cuda.device(inputs[0].device), fused():
            if self.calls < EAGER:
                result = self.work(*inputs)
                self.calls += 1
                return result
            if self.graph is None:
                self.inputs = tuple(one.clone() for one in inputs)
                graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(inputs[0].device)
                own_stream = torch.cuda.stream(torch.cuda.current_stream())  # back to it, which torch.cuda.graph alone does not where the work fails
                with own_stream, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):  # others load clips meanwhile
                    self.result = self.work(*self.inputs)
                self.graph = graph
            for own, given in zip(self.inputs, inputs, strict=True):
                if (own.shape, own.dtype, own.device) != (given.shape, given.dtype, given.device):
                    raise ValueError(f"the graph was made for {_told(own)}, not for {_told(given)}; such a batch needs a Graphed of its own")
                own.copy_(given, non_blocking=True)
            self.graph.replay()
            return self.result


def _told(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"
