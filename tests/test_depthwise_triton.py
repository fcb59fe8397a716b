"""Our Triton kernels under Triton's interpreter, which computes them on the CPU: values, strides, types, rows and columns of a group."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERPRETED = """
from itertools import product
import torch
from csn import depthwise as exact, depthwise_tiles as ours

torch.manual_seed(0)
wide, short, half = (torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 5e-4)  # the interpreter rounds to brain floats downward
for size, stride, types, groups in (
    ((2, 5, 3, 3, 4), (1, 1, 1), (wide, short), ((1, 1), (1, 2), (1, 4), (3, 1), (2, 7))),
    ((1, 3, 2, 9, 15), (1, 1, 1), (wide,), ((1, 14), (2, 4), (4, 2))),
    ((1, 16, 2, 4, 4), (1, 1, 1), (wide,), ((2, 2),)),
    ((1, 17, 1, 1, 1), (1, 1, 1), (wide,), ((1, 1), (2, 2))),
    ((1, 3, 3, 5, 3), (2, 1, 2), (wide,), ((1, 1), (1, 2))),
    ((2, 3, 2, 2, 3), (2, 2, 2), (wide,), ((1, 1),)),
    ((1, 3, 2, 3, 2), (1, 2, 2), (short,), ((1, 1),)),
    ((1, 2, 2, 8, 9), (1, 1, 2), (wide,), ((1, 1), (2, 4))),
    ((2, 16, 1, 1, 1), (1, 1, 1), (half,), ((2, 2),)),
):
    x, weight = torch.randn(size), torch.randn(size[1], 1, 3, 3, 3)
    for (dtype, bound), (rows, columns) in product(types, groups):
        x64, w64 = x.to(dtype).double(), weight.double()
        y64 = exact.convolve(x64, w64, stride)
        g = torch.randn(y64.shape).to(dtype)
        gx64 = exact.grad_input(g.double(), w64, size[2:], stride)
        gw64 = exact.grad_weight(g.double(), x64, (3, 3, 3), stride)
        config = ours.Config(8, rows, columns, 16, 4, 2)
        y = ours.convolve(x.to(dtype), weight, stride, config)
        gx = ours.grad_input(g, weight, size[2:], stride, config)
        gw = ours.grad_weight(g, x.to(dtype), weight, stride, config)
        assert y.is_contiguous(memory_format=ours.NDHWC) and gx.is_contiguous(memory_format=ours.NDHWC) and gw.is_contiguous()
        assert y.dtype == gx.dtype == dtype and gw.dtype == torch.float32
        for got, want, bound in (y, y64, bound), (gx, gx64, bound), (gw, gw64, 1e-5):
            assert got.shape == want.shape
            assert (got.double() - want).abs().max() <= bound * want.abs().max(), (size, stride, dtype, rows, columns)
print("equal")
"""


def test_triton_kernels_under_the_interpreter():
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr
