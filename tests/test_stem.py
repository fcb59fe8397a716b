"""conv1 by blocks of pixels: the same sums and gradients as the convolution it stands for; the kernels of ours beside it, pool1 one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import csn
from csn import norm, stem
from csn.norm import NDHWC

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("size", [(2, 3, 4, 24, 24), (1, 3, 2, 7, 9), (1, 3, 1, 1, 2), (2, 5, 3, 5, 8)], ids=str)
def test_by_blocks_equals_the_convolution(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(size, dtype=torch.float64, requires_grad=True), torch.randn(8, size[1], 3, 7, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(8, dtype=torch.float64)
    want, got = F.conv3d(x, weight, bias, stem.STRIDE, stem.PADDING), stem.by_blocks(x, weight, bias)
    assert got.shape == want.shape and got.is_contiguous(memory_format=torch.channels_last_3d)
    g = torch.randn_like(want)
    for a, b in zip((got, *torch.autograd.grad(got, (x, weight), g)), (want, *torch.autograd.grad(want, (x, weight), g)), strict=True):
        assert (a - b).abs().max() < 1e-11


INTERPRETED = """
import torch
import torch.nn.functional as F
from csn import stem, stem_triton

torch.manual_seed(0)
stem_triton.TILE = 256  # several tiles
for size, dtype in (((2, 3, 3, 6, 4), torch.float32), ((1, 3, 1, 1, 1), torch.bfloat16), ((1, 5, 2, 3, 7), torch.float32)):
    x = torch.randint(-99, 99, size).float()
    assert torch.equal(stem_triton.blocks(x, dtype, stem.BEFORE, 64), stem.in_blocks(x, dtype)), size
for size, dtype in (((2, 5, 2, 7, 4), torch.float32), ((1, 72, 1, 4, 3), torch.bfloat16), ((1, 8, 3, 1, 1), torch.float16), ((1, 2, 1, 1, 6), torch.float32)):
    x = torch.randint(-3, 3, size).to(dtype)  # many equal ones
    x.view(-1)[::7] = -torch.inf
    x[0, 1, 0, 0, 0] = torch.nan
    x = x.contiguous(memory_format=stem.NDHWC)
    y, place = stem_triton.pool(x)
    x32 = x.float().requires_grad_()  # in 16 bits torch's own loses the place of an infinity
    want = F.max_pool3d(x32, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    assert y.dtype == dtype and y.is_contiguous(memory_format=stem.NDHWC) and torch.allclose(y.float(), want, equal_nan=True), size
    g = torch.randint(-9, 9, want.shape).to(dtype).contiguous(memory_format=stem.NDHWC)
    want.backward(g.float())
    gx = stem_triton.unpool(g, place, size)
    assert gx.dtype == dtype and gx.is_contiguous(memory_format=stem.NDHWC) and torch.equal(gx.float(), x32.grad), size
print("equal")
"""


def test_the_kernels_under_the_interpreter() -> None:
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr


def test_on_a_cpu_pool1_is_torchs() -> None:
    x = torch.randn(2, 3, 2, 7, 8)
    with norm.fused():
        assert torch.equal(csn.build(csn.Variant(width=8), 3).stem.pool1(x), F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)))


@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_cuda_pool1_equals_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 64, 3, 57, 56, device="cuda").to(dtype).contiguous(memory_format=NDHWC).requires_grad_()
    pool1 = stem.MaxPool1()
    with norm.fused():
        y = pool1(x)
    assert y.grad_fn.name() == "PooledBackward" and torch.equal(y, pool1(x))  # type: ignore[union-attr]
    g = torch.randn_like(y)
    found, want = torch.autograd.grad(y, x, g)[0], torch.autograd.grad(pool1(x.float()), x, g.float())[0]
    assert (found.float() - want.float()).abs().max() <= (2**-6 if dtype == torch.bfloat16 else 1e-6)


@GPU
def test_on_cuda_blocks_are_written_in_one_pass() -> None:
    x = torch.randn(2, 3, 4, 33, 32, device="cuda")
    want = stem.in_blocks(x, torch.bfloat16)
    with norm.fused():
        assert torch.equal(stem.in_blocks(x, torch.bfloat16), want)
        assert torch.equal(stem.in_blocks(x.requires_grad_(), torch.bfloat16), want)  # whose gradient torch has


def test_by_blocks_of_nothing_is_nothing() -> None:
    x, weight = torch.zeros(0, 3, 4, 24, 23), torch.randn(8, 3, 3, 7, 7)
    assert stem.by_blocks(x, weight).shape == F.conv3d(x, weight, None, stem.STRIDE, stem.PADDING).shape == (0, 8, 4, 12, 12)


def test_on_a_cpu_it_is_torchs_convolution() -> None:
    conv1 = csn.build(csn.Variant(width=8), 3).stem.conv1.conv
    assert isinstance(conv1, stem.StemConv3d) and list(conv1.state_dict()) == ["weight"]
    x = torch.randn(1, 3, 2, 9, 9)
    assert torch.equal(conv1(x), F.conv3d(x, conv1.weight, None, (1, 2, 2), (1, 3, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        assert conv1(x).dtype == torch.bfloat16


@GPU
def test_on_cuda_sixteen_bits_go_by_blocks() -> None:
    torch.manual_seed(0)
    conv1 = csn.build(csn.Variant(width=16), 3).stem.conv1.conv.cuda()
    x = torch.randn(2, 3, 4, 33, 32, device="cuda")
    want = F.conv3d(x.double(), conv1.weight.double(), None, stem.STRIDE, stem.PADDING)
    assert torch.allclose(conv1(x).double(), want, atol=1e-2)  # TF32
    with torch.autocast("cuda", torch.bfloat16):
        short = conv1(x)
    assert short.dtype == torch.bfloat16 and short.is_contiguous(memory_format=torch.channels_last_3d)
    assert (short.double() - want).norm() < 1e-2 * want.norm()
