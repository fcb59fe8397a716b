"""The residual blocks of the study: one function per box of the paper's block figures.

A block maps (B, C_in, T, H, W) to (B, C_out, T/s, H/s, W/s) for a stride s; the 3x3x3 convolution carries the stride.
Every convolution is followed by batch norm and ReLU, except where said; none has a bias.

Groups that do not divide: a convolution asked for G groups gets gcd(G, C_in, C_out) of them. Since `groups` divides
the width of a Variant, this differs from G in one place only: the depthwise 3x3x3 convolutions of simple-D that
change the number of channels, C_in -> 2 C_in, have C_in groups of one input and two output channels.
"""

from __future__ import annotations

from math import gcd
from typing import assert_never

from torch import Tensor, nn

from csn import stem
from csn.dense import DenseConv3d
from csn.depthwise import DepthwiseConv3d
from csn.norm import normalised
from csn.pointwise import PointwiseConv3d
from csn.spec import Variant

Stride = tuple[int, int, int]
BN_EPS = 1e-3  # the authors' code; PyTorch's default is 1e-5
BN_MOMENTUM = 0.1  # the weight of the new value; Caffe2's 0.9 is the weight of the old one


class ConvBN(nn.Module):
    """Convolution, batch norm and, where asked, ReLU: (B, C_in, T, H, W) -> (B, C_out, T/s, H/s, W/s)."""

    def __init__(self, c_in: int, c_out: int, kernel: tuple[int, int, int], stride: Stride = (1, 1, 1), groups: int = 1, relu: bool = True) -> None:
        super().__init__()
        groups = gcd(groups, c_in, c_out)
        self.conv: nn.Module
        if groups == c_in == c_out and kernel == (3, 3, 3):
            self.conv = DepthwiseConv3d(c_in, stride)
        elif groups == 1 and kernel == (1, 1, 1):
            self.conv = PointwiseConv3d(c_in, c_out, stride)
        elif groups == 1 and (kernel, stride) == (stem.KERNEL, stem.STRIDE):
            self.conv = stem.StemConv3d(c_in, c_out)
        else:
            padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
            self.conv = DenseConv3d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm3d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.relu = relu

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """other: of the result's shape, added to it, and the ReLU taken of the sum."""
        return normalised(self.bn, self.conv(x), self.relu, other)

    def extra_repr(self) -> str:
        return f"relu={self.relu}"


def pointwise(c_in: int, c_out: int, groups: int = 1, relu: bool = True, stride: Stride = (1, 1, 1)) -> ConvBN:
    """1x1x1: all the channel interaction of a CSN, no spatiotemporal interaction."""
    return ConvBN(c_in, c_out, (1, 1, 1), stride, groups, relu)


def spatiotemporal(c_in: int, c_out: int, stride: Stride, groups: int = 1, relu: bool = True) -> ConvBN:
    """3x3x3, in groups."""
    return ConvBN(c_in, c_out, (3, 3, 3), stride, groups, relu)


def depthwise(c_in: int, c_out: int, stride: Stride, relu: bool = True) -> ConvBN:
    """3x3x3 with one input channel per filter: spatiotemporal interaction only."""
    return ConvBN(c_in, c_out, (3, 3, 3), stride, c_in, relu)


def body(variant: Variant, c_in: int, c_mid: int, c_out: int, stride: Stride) -> nn.Sequential:
    """The residual branch of variant's block, up to the sum; its last convolution has no ReLU (it comes after the sum)."""
    g = variant.groups
    match variant.block:
        case "simple":
            boxes = [spatiotemporal(c_in, c_out, stride), spatiotemporal(c_out, c_out, (1, 1, 1), relu=False)]
        case "simple-G":
            boxes = [spatiotemporal(c_in, c_out, stride, g), spatiotemporal(c_out, c_out, (1, 1, 1), g, relu=False)]
        case "simple-D":
            boxes = [depthwise(c_in, c_out, stride), depthwise(c_out, c_out, (1, 1, 1), relu=False)]
        case "bottleneck":
            boxes = [pointwise(c_in, c_mid), spatiotemporal(c_mid, c_mid, stride), pointwise(c_mid, c_out, relu=False)]
        case "bottleneck-G":
            boxes = [pointwise(c_in, c_mid), spatiotemporal(c_mid, c_mid, stride, g), pointwise(c_mid, c_out, relu=False)]
        case "bottleneck-D":
            boxes = [pointwise(c_in, c_mid), depthwise(c_mid, c_mid, stride), pointwise(c_mid, c_out, relu=False)]
        case "bottleneck-DG":
            boxes = [pointwise(c_in, c_mid, g), depthwise(c_mid, c_mid, stride), pointwise(c_mid, c_out, g, relu=False)]
        case "ip":
            extra = pointwise(c_mid, c_mid, relu=variant.interior_relu)
            boxes = [pointwise(c_in, c_mid), extra, depthwise(c_mid, c_mid, stride), pointwise(c_mid, c_out, relu=False)]
        case _:
            assert_never(variant.block)
    return nn.Sequential(*boxes)


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is the identity, or a strided 1x1x1 projection where the shape changes."""

    def __init__(self, variant: Variant, c_in: int, c_mid: int, c_out: int, stride: Stride) -> None:
        super().__init__()
        self.body = body(variant, c_in, c_mid, c_out, stride)
        same = c_in == c_out and stride == (1, 1, 1)
        self.shortcut = nn.Identity() if same else pointwise(c_in, c_out, relu=False, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self.body
        y = x
        for box in first:
            y = box(y)
        return last(y, self.shortcut(x))
