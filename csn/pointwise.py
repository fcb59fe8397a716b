"""1x1x1 convolution, the other half of a channel-separated block: a matrix product at every position.

On a CPU, torch computes small batches of it with a kernel several times slower than the matrix product, and spreads few
positions with many channels badly over threads. In channels_last_3d the product needs no copy, so it is written as what
is fastest there: a matrix product for few positions, a two-dimensional convolution over all frames for many. With a stride
(the shortcut where a stage begins) torch's gradients take twice the time of the products they are: the positions kept are copied
first. The rule depends on sizes only: same inputs, same number of threads, same bits.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Stride = tuple[int, int, int]
NDHWC = torch.channels_last_3d
FEW = 2048  # positions: beyond, the two-dimensional convolution took 0.93 to 0.88 of the product's time with 1 and with 2 threads, 64 to 1024 channels
FEW_16BIT = 4096  # with bfloat16 it took 1.05 to 1.08 of the time at 2048 positions, 1.03 here
FRAMES = 16  # below, torch's convolution too takes the slow kernel, when it has one thread
WORTH = 2**26  # multiply-adds of a strided layer: below, copying first saves under two milliseconds, and torch's convolution stays, whose bits results rest on


class Subsample(torch.autograd.Function):
    """Every stride-th frame, row and column, (B, C, T, H, W) -> (B, C, T/s, H/s, W/s), sizes rounded up, channels_last_3d."""

    @staticmethod
    def forward(x: Tensor, stride: Stride) -> Tensor:
        return _kept(x, stride).contiguous(memory_format=NDHWC)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Stride], output: Tensor) -> None:
        ctx.sizes, ctx.stride = inputs[0].shape, inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # one pass of zeros; torch's own gradient of three slices makes three
        [g] = gradients
        whole = torch.empty(ctx.sizes, dtype=g.dtype, device=g.device, memory_format=NDHWC).zero_()
        _kept(whole, ctx.stride).copy_(g)
        return whole, None


def _kept(x: Tensor, stride: Stride) -> Tensor:
    """The view of x that a strided 1x1x1 convolution reads."""
    return x[:, :, :: stride[0], :: stride[1], :: stride[2]]


def pointwise_conv3d(x: Tensor, weight: Tensor, stride: Stride = (1, 1, 1)) -> Tensor:
    """(B, C_in, T, H, W), weight (C_out, C_in, 1, 1, 1) -> (B, C_out, T/s, H/s, W/s); a size that s does not divide is rounded up.

    On a CPU the result, of more than one input channel, is channels_last_3d; elsewhere this is torch.nn.functional.conv3d.
    """
    if x.device.type != "cpu":
        return F.conv3d(x, weight, None, stride)
    # below, the weight is viewed, not indexed: the gradient of an index fills a tensor of zeros first
    if stride != (1, 1, 1):
        if x.shape[0] * prod(_kept(x, stride).shape[2:]) * weight.numel() < WORTH:
            return F.conv3d(x, weight, None, stride)
        x = Subsample.apply(x, stride)
    b, _, t, h, w = x.shape
    x = x.contiguous(memory_format=NDHWC)
    few = FEW_16BIT if x.dtype in (torch.bfloat16, torch.float16) else FEW
    if b * t * h * w <= few or b * t < FRAMES:
        return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1)).permute(0, 4, 1, 2, 3)
    frames = x.transpose(1, 2).reshape(b * t, -1, h, w)  # channels_last, a view
    y = F.conv2d(frames, weight.squeeze(2))
    return y.view(b, t, -1, h, w).transpose(1, 2)


class PointwiseConv3d(nn.Module):
    """pointwise_conv3d, C_in -> C_out; its state dict is that of nn.Conv3d(c_in, c_out, 1, stride, bias=False).

    Attributes: weight (C_out, C_in, 1, 1, 1), initialised as nn.Conv3d does; stride.
    """

    def __init__(self, c_in: int, c_out: int, stride: Stride = (1, 1, 1)) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 1, 1, 1))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_conv3d(x, self.weight, self.stride)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, stride={self.stride}"
