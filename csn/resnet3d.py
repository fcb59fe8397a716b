"""ResNet3D and its channel-separated variants (paper, Table 1): stem, four stages of blocks, head.

    net = csn.build(csn.Variant(depth=50, block="bottleneck-D"), num_classes=400)
    logits = net(clips)                 # (B, 3, T, H, W) -> (B, K)

T, H and W are free: the head averages what is left of them.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from csn.blocks import ConvBN, Residual, Stride
from csn.depthwise import DepthwiseConv3d
from csn.pointwise import PointwiseConv3d
from csn.spec import STAGES, UserError, Variant, require
from csn.stem import MaxPool1


def strides(frames: int) -> tuple[Stride, Stride, Stride, Stride]:
    """Strides of conv2_x .. conv5_x for clips of `frames` frames.

    Below 8 frames conv5_x keeps the time axis, below 4 conv4_x too (r3d_model.py of the authors' code).
    """
    return (1, 1, 1), (2, 2, 2), (2 if frames >= 4 else 1, 2, 2), (2 if frames >= 8 else 1, 2, 2)


class Stem(nn.Module):
    """conv1 3x7x7, stride 1x2x2, BN, ReLU; then pool1, max 1x3x3, stride 1x2x2, where the Variant has it."""

    def __init__(self, width: int, pool1: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, width, (3, 7, 7), (1, 2, 2))
        self.pool1 = MaxPool1() if pool1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool1(self.conv1(x))


class Head(nn.Module):
    """Global average over time and space, then the classifier: (B, C, T, H, W) -> (B, K)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3, 4)))


class DenseHead(nn.Module):
    """The same classifier as a 1x1x1 convolution, at every position of a window that slides over the map.

    (B, C, T, H, W) -> (B, K, H - window + 1, W - window + 1): the fully convolutional test of crops larger than the
    training crop (256 against 224; window 7). The time axis is averaged. Probabilities are averaged over positions.
    """

    def __init__(self, fc: nn.Linear, window: int) -> None:
        super().__init__()
        self.window = window
        self.fc = nn.Conv3d(fc.in_features, fc.out_features, 1, device=fc.weight.device, dtype=fc.weight.dtype)
        self.fc.weight = nn.Parameter(fc.weight.detach()[:, :, None, None, None])
        self.fc.bias = nn.Parameter(fc.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[3:]) < self.window:
            raise UserError(f"`window` (={self.window}) is larger than the final map ({x.shape[3]}x{x.shape[4]}); use larger crops.")
        return self.fc(F.avg_pool3d(x, (x.shape[2], self.window, self.window), stride=1))[:, :, 0]


class ResNet3D(nn.Module):
    """The network of a Variant. Attributes: stem, stages (conv2_x .. conv5_x), head, variant.

    Input (B, 3, T, H, W) normalised clips; output (B, K) logits.
    """

    def __init__(self, variant: Variant, num_classes: int, frames: int = 8) -> None:
        super().__init__()
        require(num_classes >= 1, "num_classes", num_classes, "must be at least 1")
        require(frames >= 2, "frames", frames, "must be at least 2")
        self.variant = variant
        self.stem = Stem(variant.width, variant.pool1)
        c_in, stages = variant.width, []
        for i, (blocks, stride) in enumerate(zip(STAGES[variant.depth], strides(frames), strict=True)):
            c_mid = variant.width * 2**i
            c_out = c_mid * variant.expansion
            stage = [Residual(variant, c_in, c_mid, c_out, stride)]
            stage += [Residual(variant, c_out, c_mid, c_out, (1, 1, 1)) for _ in range(blocks - 1)]
            stages.append((f"conv{i + 2}_x", nn.Sequential(*stage)))
            c_in = c_out
        self.stages = nn.Sequential(OrderedDict(stages))
        self.head: Head | DenseHead = Head(c_in, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # B, width, T, H/2, W/2 (/4 with pool1)
        x = self.stages(x)  # B, C, T/8, H/16, W/16 (/32 with pool1)
        return self.head(x)  # B, K


def initialize(net: nn.Module) -> None:
    """Convolutions: MSRA normal with fan-out; classifier: Xavier uniform, zero bias; BN: gamma 1, beta 0."""
    for module in net.modules():
        if isinstance(module, (nn.Conv3d, DepthwiseConv3d, PointwiseConv3d)):
            # fan-out is C_out k^3 for grouped filters too: the released code's fill does not divide by the groups
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def start_as_shortcuts(net: nn.Module) -> None:
    """Set gamma of the last batch norm of every residual branch to 0: each block begins as its shortcut (arXiv 1706.02677, section 5.1)."""
    for module in net.modules():
        if isinstance(module, Residual):
            last = module.body[-1]
            assert isinstance(last, ConvBN)
            nn.init.zeros_(last.bn.weight)


def build(variant: Variant, num_classes: int, frames: int = 8) -> ResNet3D:
    """The network of variant with num_classes outputs, for clips of `frames` frames, freshly initialised.

    frames sets which stages halve the time axis (see `strides`); longer and shorter clips still run. Raises UserError.
    """
    require(isinstance(variant, Variant), "variant", repr(variant), 'must be a csn.Variant, as csn.Variant(block="bottleneck-D", depth=50)')
    return ResNet3D(variant, num_classes, frames)


def fully_convolutional(net: ResNet3D, window: int = 7) -> ResNet3D:
    """Replace net's head by its dense form (see DenseHead), in place, weights kept; returns net. Raises UserError for a head with windows of
    its own (PyTorchVideo's)."""
    if isinstance(net.head, Head):
        net.head = DenseHead(net.head.fc, window)
    if not isinstance(net.head, DenseHead):
        raise UserError(f"The network's head, {type(net.head).__name__}, has no dense form.")
    return net
