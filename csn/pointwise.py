"""1x1x1 convolution, the other half of a channel-separated block: a matrix product at every position.

On a CPU, torch computes small batches of it with a kernel several times slower than the matrix product, and spreads few
positions with many channels badly over threads. In channels_last_3d the product needs no copy, so it is written as what
is fastest there: a matrix product for few positions, a two-dimensional convolution over all frames for many. The rule
depends on sizes only: same inputs, same number of threads, same bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NDHWC = torch.channels_last_3d
FEW = 4096  # positions: below, the matrix product was faster with 1 and with 2 threads, at 64 to 2048 channels
FRAMES = 16  # below, torch's convolution too takes the slow kernel, when it has one thread


def pointwise_conv3d(x: Tensor, weight: Tensor) -> Tensor:
    """(B, C_in, T, H, W), weight (C_out, C_in, 1, 1, 1) -> (B, C_out, T, H, W).

    On a CPU the result is channels_last_3d; elsewhere this is torch.nn.functional.conv3d.
    """
    if x.device.type != "cpu":
        return F.conv3d(x, weight)
    b, _, t, h, w = x.shape
    x = x.contiguous(memory_format=NDHWC)
    if b * t * h * w < FEW or b * t < FRAMES:
        return F.linear(x.permute(0, 2, 3, 4, 1), weight[:, :, 0, 0, 0]).permute(0, 4, 1, 2, 3)
    frames = x.transpose(1, 2).reshape(b * t, -1, h, w)  # channels_last, a view
    y = F.conv2d(frames, weight[:, :, 0])
    return y.view(b, t, -1, h, w).transpose(1, 2)


class PointwiseConv3d(nn.Module):
    """pointwise_conv3d, C_in -> C_out; its state dict is that of nn.Conv3d(c_in, c_out, 1, bias=False).

    Attributes: weight (C_out, C_in, 1, 1, 1), initialised as nn.Conv3d does.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 1, 1, 1))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_conv3d(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"
