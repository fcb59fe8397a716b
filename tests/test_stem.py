"""conv1 by blocks of pixels: the same sums and gradients as the convolution it stands for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import csn
from csn import stem

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
