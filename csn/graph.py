"""A training step without its launches: thousands of small kernels, started by the GPU itself.

A step of CSN-152 is some two thousand kernels, most of which take less time than the processor needs to start the next one. A CUDA
graph records them once and starts them all with one call: 24 ms in place of 95 (H200, results/benchmarks/step_gpu_152.csv).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from csn.norm import fused

EAGER = 3  # calls before the graph is made: they choose kernels, compile them, and make what is kept, gradients above all


class Graphed:
    """work, a function of tensors on one CUDA device that returns nothing, as one CUDA graph from its call number EAGER + 1 on.

    Its arguments have the same shapes and types in every call. What it reads and writes beside them (weights, gradients, sums) has
    to stay where it is in memory: gradients are set to zero, not to None. It may not wait for the device. Batch norm in it is fused
    (csn.norm): many small kernels, which cost nothing to start here.
    """

    def __init__(self, work: Callable[..., None]) -> None:
        self.work, self.calls = work, 0
        self.graph = torch.cuda.CUDAGraph()
        self.inputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> None:
        if self.calls < EAGER:
            self.calls += 1
            with fused():
                self.work(*inputs)
            return
        if not self.inputs:
            self.inputs = tuple(one.clone() for one in inputs)
            with fused(), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # others load clips meanwhile
                self.work(*self.inputs)
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
