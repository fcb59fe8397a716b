"""Compile the Triton kernels of ir-CSN's and ResNet3D's training ahead of what needs them, side by side: python benchmarks/compile_ahead.py bf16 fp32

For the layers of depth 152 on crops of 224 pixels, which those of depth 50 are among. Triton keeps what it compiled on disk, so that
later programs only load it.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from depthwise import DTYPES, layers
from machine import on_cuda, script
from norm import maps

from csn import depthwise_tiles, norm_triton, stem, stem_triton
from csn.spec import require

NDHWC = torch.channels_last_3d
PROCESSES = 16
NETWORK = 152, 32, 224  # depth, frames, crop
Job = tuple[Any, ...]


def compile_some(jobs: list[Job]) -> list[str]:
    """Run each once, on one clip of two frames; what does not compile."""
    failed = []
    for job in jobs:
        try:
            {"norm": normalise, "stem": around_conv1}.get(job[0], convolve)(*job)
        except Exception as error:
            failed.append(f"{job} does not compile: {str(error).splitlines()[0]}")
    return failed


def convolve(direction: str, dtype: str, channels: int, h: int, w: int, stride: tuple[int, int, int], config: depthwise_tiles.Config) -> None:
    x = torch.zeros(1, channels, 2, h, w, device="cuda", dtype=DTYPES[dtype]).contiguous(memory_format=NDHWC)
    g = x[:, :, :: stride[0], :: stride[1], :: stride[2]].contiguous(memory_format=NDHWC)
    weight = torch.zeros(channels, 1, 3, 3, 3, device="cuda")
    if direction == "forward":
        depthwise_tiles.convolve(x, weight, stride, config)
    elif direction == "grad_input":
        depthwise_tiles.grad_input(g, weight, x.shape[2:], stride, config)
    else:
        depthwise_tiles.grad_weight(g, x, weight, stride, config)


def normalise(_: str, dtype: str, channels: int, mode: str) -> None:
    y = torch.zeros(1, channels, 2, 8, 8, device="cuda", dtype=DTYPES[dtype]).contiguous(memory_format=NDHWC)
    weight = torch.ones(channels, device="cuda")
    running = weight.clone(), weight.clone(), torch.zeros((), dtype=torch.long, device="cuda")
    z, moments = norm_triton.forward(y, y if mode == "sum" else None, weight, weight, running, 0.1, 1e-3, mode != "norm")
    norm_triton.backward(y, y, z if mode == "sum" else None, moments, weight, weight, mode != "norm")
    norm_triton.affine(y, y if mode == "sum" else None, weight, weight, weight, weight, 1e-3, mode != "norm")


def around_conv1(_: str, dtype: str) -> None:
    stem_triton.blocks(torch.zeros(1, 3, 2, 8, 8, device="cuda"), DTYPES[dtype], stem.BEFORE, stem.LANES)
    x = torch.zeros(1, 64, 2, 8, 8, device="cuda", dtype=DTYPES[dtype]).contiguous(memory_format=NDHWC)
    stem_triton.unpool(*stem_triton.pool(x), tuple(x.shape))


def jobs_of(dtypes: list[str]) -> list[Job]:
    found: set[Job] = set()
    for dtype in dtypes:
        found.add(("stem", dtype))
        for c, _, h, w, stride in layers(*NETWORK, 64):
            for direction in ("forward", "grad_weight") if stride == (1, 1, 1) else ("forward", "grad_input", "grad_weight"):
                found |= {(direction, dtype, c, h, w, stride, config) for config in depthwise_tiles.configs(direction, stride)}
        found |= {("norm", dtype, c, mode) for c, *_, mode in maps(*NETWORK)}
    return sorted(found, key=str)


def main() -> int:
    for dtype in sys.argv[1:]:
        require(dtype in DTYPES, "dtype", dtype, f"must be one of {', '.join(DTYPES)}")
    on_cuda(Namespace(device="cuda"))
    jobs = jobs_of(sys.argv[1:])
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        failed = [line for lines in pool.map(compile_some, [jobs[k::PROCESSES] for k in range(PROCESSES)]) for line in lines]
    print(*failed, f"{len(jobs) - len(failed)} of {len(jobs)} kernels compiled", sep="\n")
    return int(bool(failed))


if __name__ == "__main__":
    script(main)
