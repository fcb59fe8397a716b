"""Networks for inference: batch norm folded into the convolutions, on a CPU with bias, residual sum and ReLU in one pass.

In eval mode batch norm is an affine map of every channel: y = k conv(x) + (beta - k mean), k = gamma / sqrt(var + eps). The
factor goes into the filters and the rest becomes a bias, so a network reads and writes every feature map once less. The
result differs from the network's by rounding only: `folding_error` measures it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csn.blocks import ConvBN, Residual
from csn.depthwise import DepthwiseConv3d
from csn.pointwise import FRAMES, PointwiseConv3d
from csn.resnet3d import ResNet3D, Stem
from csn.spec import UserError

ONEDNN = torch.ops.mkldnn
NDHWC = torch.channels_last_3d
FEW = 4096  # positions: below, the product was as fast as the convolution or faster, with 1 and with 2 threads
RGB = 3  # channels that fill no vector: oneDNN reads them faster as planes


class FoldedConv(nn.Module):
    """The convolution, batch norm and ReLU of a ConvBN as one convolution with a bias: shapes as there. No gradients."""

    def __init__(self, box: ConvBN) -> None:
        super().__init__()
        conv, bn = box.conv, box.bn
        assert isinstance(conv.weight, Tensor) and bn.running_mean is not None and bn.running_var is not None
        assert isinstance(conv, nn.Conv3d | DepthwiseConv3d | PointwiseConv3d)
        self.padding, self.stride, self.groups = [k // 2 for k in conv.weight.shape[2:]], list(conv.stride), 1
        if isinstance(conv, nn.Conv3d):
            self.groups = conv.groups
        elif isinstance(conv, DepthwiseConv3d):
            self.groups = conv.channels
        self.pointwise = isinstance(conv, PointwiseConv3d) and conv.stride == (1, 1, 1)
        self.planes = self.groups == 1 and conv.weight.shape[1] == RGB
        with torch.no_grad():  # in float64, so that folding rounds once
            k = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
            weight = (conv.weight.double() * k.view(-1, 1, 1, 1, 1)).to(conv.weight.dtype)
            bias = (bn.bias.double() - bn.running_mean.double() * k).to(conv.weight.dtype)
        self.weight = nn.Parameter(weight.contiguous() if self.planes else weight.contiguous(memory_format=NDHWC), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.relu = box.relu

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """other: of the result's shape, added to it, and the ReLU taken of the sum."""
        if fast(x):
            return self.fused(x, other)
        y = F.conv3d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        if other is not None:
            return F.relu(y + other)
        return F.relu(y) if self.relu else y

    def fused(self, x: Tensor, other: Tensor | None) -> Tensor:
        """The same by oneDNN's convolution, which adds the bias and other and takes the ReLU as it writes."""
        layout = torch.contiguous_format if self.planes else NDHWC
        # of one layout, for two meet in a kernel that is a hundred times slower
        x, other = x.contiguous(memory_format=layout), None if other is None else other.contiguous(memory_format=layout)
        if self.planes:
            return self.written(x, other, self.weight, self.padding, self.stride).contiguous(memory_format=NDHWC)
        if not self.pointwise:
            return self.written(x, other, self.weight, self.padding, self.stride)
        b, c, t, h, w = x.shape
        if b * t * h * w < FEW or b * t < FRAMES:  # as in csn.pointwise, whose product is another library's
            rows = x.permute(0, 2, 3, 4, 1).reshape(-1, c)
            after = "relu" if self.relu and other is None else "none"
            y = ONEDNN._linear_pointwise(rows, self.weight.view(-1, c), self.bias, after, [], "").view(b, t, h, w, len(self.bias)).permute(0, 4, 1, 2, 3)
            return y if other is None else y.add_(other).clamp_min_(0)  # in cache; the operator that adds by itself is slower
        frames, others = (None if one is None else one.transpose(1, 2).reshape(b * t, -1, h, w) for one in (x, other))  # channels_last, views
        assert frames is not None
        return self.written(frames, others, self.weight[:, :, 0], [0, 0], [1, 1]).view(b, t, len(self.bias), h, w).transpose(1, 2)

    def written(self, x: Tensor, other: Tensor | None, weight: Tensor, padding: list[int], stride: list[int]) -> Tensor:
        """One call of oneDNN's convolution."""
        dilation = [1] * len(stride)
        if other is None:
            after = "relu" if self.relu else "none"
            return ONEDNN._convolution_pointwise(x, weight, self.bias, padding, stride, dilation, self.groups, after, [], "")
        return ONEDNN._convolution_pointwise.binary(x, other, weight, self.bias, padding, stride, dilation, self.groups, "add", 1.0, "relu", [], "")


class FoldedStem(nn.Module):
    """A Stem of a FoldedConv, on a CPU pooled in oneDNN's own layout, so that a quarter as much is brought to ours. No gradients."""

    conv1: FoldedConv
    pool1: nn.Module

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.conv1, self.pool1 = stem.conv1, stem.pool1  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        conv, pool = self.conv1, self.pool1
        if not (fast(x) and isinstance(pool, nn.MaxPool3d)):
            return pool(conv(x))
        y = conv.written(x.contiguous().to_mkldnn(), None, conv.weight, conv.padding, conv.stride)
        return torch.mkldnn_max_pool3d(y, pool.kernel_size, pool.stride, pool.padding).to_dense().contiguous(memory_format=NDHWC)


class FoldedResidual(nn.Module):
    """A Residual of FoldedConvs, the sum and its ReLU in the last of them: shapes as there. No gradients."""

    def __init__(self, block: Residual) -> None:
        super().__init__()
        *first, last = block.body
        assert isinstance(last, FoldedConv)
        self.body, self.last, self.shortcut = nn.Sequential(*first), last, block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x), self.shortcut(x))


def fast(x: Tensor) -> bool:
    """Whether oneDNN's fused operators can take x: float32 on a CPU, run now and not traced for export."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available() and not torch.compiler.is_compiling()


def folded(net: ResNet3D) -> ResNet3D:
    """A copy of net for inference, in eval mode, of folded parts; net is left as it is. (B, 3, T, H, W) -> (B, K).

    Raises UserError where a weight or a statistic is not finite: oneDNN's ReLU makes 0 of what is no number.
    """
    for what, values in net.state_dict().items():
        if not values.isfinite().all():
            raise UserError(f"`{what}` of the network holds what is not a finite number; take another checkpoint.")
    copied = copy.deepcopy(net).eval().to(memory_format=NDHWC)
    kinds: tuple[tuple[type[nn.Module], Callable[[Any], nn.Module]], ...] = (ConvBN, FoldedConv), (Stem, FoldedStem), (Residual, FoldedResidual)
    for kind, make in kinds:
        for module in list(copied.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, kind):
                    setattr(module, name, make(child))
    return copied


@torch.inference_mode()
def folding_error(net: ResNet3D, clips: Tensor) -> float:
    """Largest difference of the logits of net and folded(net) on clips, over the largest logit."""
    was = net.training
    expected = net.eval()(clips)
    net.train(was)
    return float((folded(net)(clips) - expected).abs().max() / expected.abs().max())
