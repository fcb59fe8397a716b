"""conv1, the 3x7x7 convolution of the three channels of a clip with stride 1x2x2, on a GPU written as one that its matrix units can do.

cuDNN has no kernel of the matrix units for three channels. What it takes with 16-bit numbers needs 8.0 ms for forward and gradient of the weight
of four clips of 32 x 224 x 224 on an H100, and with five channels of zeros added 8.5; this needs 1.6. The channels are made many: the 2x2
pixels of a block become channels (a stride of 2 over pixels is one of 1 over blocks, 7 taps of pixels are 4 of blocks), and so do the three
frames of a filter, which leaves a two-dimensional 4x4 convolution of 36 channels, filled up to 64. The sums are the same, in another order.

Within csn.norm.fused the blocks and pool1, the max pooling behind conv1, are kernels of ours on CUDA (csn.stem_triton).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csn.dense import conv3d
from csn.norm import NDHWC, with_triton

KERNEL, STRIDE, PADDING = (3, 7, 7), (1, 2, 2), (1, 3, 3)
LANES = 64  # channels: with fewer, cuDNN takes slower kernels (40: 2.4 ms)
BEFORE = 4  # rows and columns of zeros before the first: the padding, and one more to begin with a whole block


def in_blocks(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, C, T, H, W) -> (B T, 64, H/2 + 3, W/2 + 3) of that type, channels_last: around each frame the one before and after, 2x2 pixels of each, padded."""
    b, c, t, h, w = x.shape
    if with_triton(x) and x.numel() and 12 * c <= LANES and not (x.requires_grad and torch.is_grad_enabled()):
        from csn import stem_triton

        with torch.cuda.device(x.device):
            return stem_triton.blocks(x, dtype, BEFORE, LANES)
    x = x.to(dtype)
    ho, wo = (h + 1) // 2, (w + 1) // 2
    after = [2 * (out + 3) - BEFORE - n for out, n in ((wo, w), (ho, h))]
    pixels = F.pad(x.permute(0, 2, 3, 4, 1), (0, 0, BEFORE, after[0], BEFORE, after[1], 1, 1))
    blocks = pixels.view(b, t + 2, ho + 3, 2, wo + 3, 2, c).transpose(3, 4).reshape(b, t + 2, ho + 3, wo + 3, 4 * c)
    zeros = blocks.new_zeros(()).expand(b, t, ho + 3, wo + 3, -12 * c % LANES)
    stacked = torch.cat([blocks[:, :t], blocks[:, 1 : t + 1], blocks[:, 2:], zeros], 4)
    return stacked.view(b * t, ho + 3, wo + 3, stacked.shape[4]).permute(0, 3, 1, 2)


def weight_in_blocks(weight: Tensor) -> Tensor:
    """(C_out, C, 3, 7, 7) -> (C_out, 64, 4, 4), channels_last, for maps of in_blocks."""
    c_out, c = weight.shape[:2]
    taps = F.pad(weight, (1, 0, 1, 0)).view(c_out, c, 3, 4, 2, 4, 2).permute(0, 2, 4, 6, 1, 3, 5).reshape(c_out, 12 * c, 4, 4)
    return F.pad(taps, (0, 0, 0, 0, 0, -12 * c % LANES)).contiguous(memory_format=torch.channels_last)


def by_blocks(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv1 by blocks: (B, C, T, H, W), (C_out, C, 3, 7, 7) -> (B, C_out, T, H/2, W/2), sizes rounded up, channels_last_3d."""
    y = F.conv2d(in_blocks(x, weight.dtype), weight_in_blocks(weight), bias)
    return y.view(x.shape[0], x.shape[2], *y.shape[1:]).transpose(1, 2)


def stem_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv1: (B, C, T, H, W), weight (C_out, C, 3, 7, 7) -> (B, C_out, T, H/2, W/2), sizes rounded up; by blocks with 16 bits on CUDA."""
    if x.is_cuda:
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") and x.dtype != torch.float64 else x.dtype
        if dtype in (torch.bfloat16, torch.float16):
            return by_blocks(x, weight.to(dtype), bias)
    return conv3d(x, weight, bias, STRIDE, PADDING)


class StemConv3d(nn.Conv3d):
    """stem_conv3d, C_in -> C_out; weight and state dict of nn.Conv3d(c_in, c_out, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return stem_conv3d(x, self.weight)


class MaxPool1(nn.MaxPool3d):
    """pool1, max 1x3x3, stride 1x2x2: (B, C, T, H, W) -> (B, C, T, H/2, W/2), sizes rounded up."""

    def __init__(self) -> None:
        super().__init__((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if with_triton(x) and x.numel() and x.is_contiguous(memory_format=NDHWC):
            with torch.cuda.device(x.device):
                return Pooled.apply(x)  # type: ignore[no-untyped-call]
        return super().forward(x)


class Pooled(torch.autograd.Function):
    """MaxPool1 by our kernels. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        from csn import stem_triton

        y, place = stem_triton.pool(x)
        ctx.size = x.shape
        ctx.save_for_backward(place)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        from csn import stem_triton

        (place,) = ctx.saved_tensors
        with torch.cuda.device(g.device):
            return stem_triton.unpool(g.contiguous(memory_format=NDHWC), place, ctx.size)
