"""Compile the depthwise Triton kernels ahead of what needs them, a process a kernel: python benchmarks/compile_ahead.py bf16 fp32

Triton keeps what it compiled on disk, so that later programs only load it.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn import depthwise_triton as ours

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STRIDES = ((1, 1, 1), (2, 2, 2))  # of the networks
Job = tuple[str, str, tuple[int, int, int], ours.Config]


def compile_one(job: Job) -> None:
    """Run one kernel on the least channels whose count is a multiple of 16, as the networks' are: sizes are not compiled in."""
    direction, dtype, stride, config = job
    x = torch.zeros(1, 16, 2, 2, 2, device="cuda", dtype=DTYPES[dtype])
    g = x[:, :, :: stride[0], :: stride[1], :: stride[2]].contiguous(memory_format=ours.NDHWC)
    weight = torch.zeros(16, 1, 3, 3, 3, device="cuda")
    if direction == "forward":
        ours.convolve(x, weight, stride, config)
    elif direction == "grad_input":
        ours.grad_input(g, weight, x.shape[2:], stride, config)
    else:
        ours.grad_weight(g, x, weight, stride, config)


def main() -> None:
    dtypes = sys.argv[1:]
    jobs: list[Job] = [
        (direction, dtype, stride, config)
        for direction in ("grad_weight", "forward", "grad_input")
        for dtype, stride in product(dtypes, STRIDES)
        for config in ours.configs(direction, stride)
    ]
    with ProcessPoolExecutor(16, get_context("spawn")) as pool:
        for job, done in [(job, pool.submit(compile_one, job)) for job in jobs]:
            if done.exception():
                print(*job, "does not compile:", done.exception())
    print(f"{len(jobs)} kernels compiled or tried")


if __name__ == "__main__":
    main()
