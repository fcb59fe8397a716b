"""The convolutions that are neither depthwise nor dense 1x1x1: torch's own, on a CPU in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int = 1) -> Tensor:
    """(B, C_in, T, H, W), weight (C_out, C_in / groups, kT, kH, kW) -> (B, C_out, T', H', W') as torch.nn.functional.conv3d.

    On a CPU in float32 within autocast too; the result has autocast's type.
    torch 2.14.1 leaves part of the gradient of the weight unwritten there where filters of three frames see two, in bfloat16 on
    processors that multiply it (AVX-512 BF16); its forward has a fault of its own in such numbers (pytorch issue 169688).
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        with torch.autocast("cpu", enabled=False):
            x, weight, bias = x.float(), weight.float(), None if bias is None else bias.float()
            return F.conv3d(x, weight, bias, stride, padding, 1, groups).to(torch.get_autocast_dtype("cpu"))
    return F.conv3d(x, weight, bias, stride, padding, 1, groups)


class DenseConv3d(nn.Conv3d):
    """conv3d as a layer, in groups or not; arguments and state dict of nn.Conv3d without dilation."""

    def forward(self, x: Tensor) -> Tensor:
        return conv3d(x, self.weight, self.bias, self.stride, self.padding, self.groups)  # type: ignore[arg-type]
