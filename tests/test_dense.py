"""Convolutions of several channels and positions on a CPU: torch's own, and in float32 within autocast too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from csn.blocks import ConvBN
from csn.dense import DenseConv3d
from csn.stem import KERNEL, STRIDE, StemConv3d

LAYERS = {
    "dense": lambda: ConvBN(16, 16, (3, 3, 3)).conv,
    "grouped": lambda: ConvBN(16, 32, (3, 3, 3), (1, 1, 1), 4).conv,
    "strided": lambda: ConvBN(16, 16, (3, 3, 3), (2, 2, 2)).conv,
    "stem": lambda: ConvBN(3, 16, KERNEL, STRIDE).conv,
}


@pytest.mark.parametrize("kind", LAYERS)
def test_within_autocast_sums_are_float32(kind: str) -> None:
    """Of two frames, whose gradient of the weight torch leaves unwritten in part in 16 bits: the memory that it takes is filled before."""
    torch.manual_seed(0)
    conv = LAYERS[kind]()
    assert isinstance(conv, DenseConv3d | StemConv3d)
    x = torch.randn(2, conv.in_channels, 2, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    want = F.conv3d(x, conv.weight, None, conv.stride, conv.padding, 1, conv.groups)
    g = torch.randn_like(want).bfloat16()
    (gw,) = torch.autograd.grad(want, conv.weight, g.float())
    for _ in range(5):
        filled = [torch.full((conv.weight.numel(),), 1e30) for _ in range(20)]
        del filled
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        assert y.dtype == torch.bfloat16 and torch.equal(y, want.bfloat16())
        (got,) = torch.autograd.grad(y, conv.weight, g)
        assert (got - gw).abs().max() <= 1e-5 * gw.abs().max()


def test_sixty_four_bits_stay() -> None:
    conv = LAYERS["dense"]().double()
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(1, 16, 2, 4, 4).double()).dtype == torch.float64


def test_weights_of_sixteen_bits_are_taken() -> None:
    conv = LAYERS["stem"]().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(1, 3, 2, 9, 9)).dtype == torch.bfloat16


def test_without_autocast_it_is_torchs() -> None:
    torch.manual_seed(0)
    conv, x = LAYERS["grouped"](), torch.randn(1, 16, 2, 4, 4)
    assert torch.equal(conv(x), F.conv3d(x, conv.weight, None, 1, 1, 1, 4)) and list(conv.state_dict()) == ["weight"]
