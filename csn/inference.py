"""Networks for inference: batch norm folded into the convolutions, on a CPU with bias, ReLU and sum in one pass.

In eval mode batch norm is an affine map of every channel: y = k conv(x) + (beta - k mean), k = gamma / sqrt(var + eps). The
factor goes into the filters and the rest becomes a bias, so a network reads and writes every feature map once less. The
result differs from the network's by rounding only: `folding_error` measures it.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csn.blocks import ConvBN
from csn.depthwise import DepthwiseConv3d
from csn.pointwise import FEW, FRAMES, PointwiseConv3d
from csn.resnet3d import ResNet3D

ONEDNN = torch.ops.mkldnn


class FoldedConv(nn.Module):
    """The convolution, batch norm and ReLU of a ConvBN as one convolution with a bias: shapes as there. No gradients."""

    def __init__(self, box: ConvBN) -> None:
        super().__init__()
        conv, bn = box.conv, box.bn
        assert isinstance(conv.weight, Tensor) and bn.running_mean is not None and bn.running_var is not None
        self.pointwise = isinstance(conv, PointwiseConv3d)
        if isinstance(conv, nn.Conv3d):
            assert not isinstance(conv.padding, str)
            self.padding, self.stride, self.groups = list(conv.padding), list(conv.stride), conv.groups
        elif isinstance(conv, DepthwiseConv3d):
            self.padding, self.stride, self.groups = [1, 1, 1], list(conv.stride), conv.channels
        else:
            self.padding, self.stride, self.groups = [0, 0, 0], [1, 1, 1], 1
        with torch.no_grad():  # in float64, so that folding rounds once
            k = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
            weight = (conv.weight.double() * k.view(-1, 1, 1, 1, 1)).to(conv.weight.dtype)
            bias = (bn.bias.double() - bn.running_mean.double() * k).to(conv.weight.dtype)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last_3d), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.relu = isinstance(box.relu, nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        if fast(x):
            return self.fused(x)
        y = F.conv3d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        return F.relu(y) if self.relu else y

    def fused(self, x: Tensor) -> Tensor:
        """The same by oneDNN's convolution that adds the bias and takes the ReLU as it writes."""
        after = "relu" if self.relu else "none"
        if not self.pointwise:
            return ONEDNN._convolution_pointwise(x, self.weight, self.bias, self.padding, self.stride, [1, 1, 1], self.groups, after, [], "")
        b, c, t, h, w = x.shape
        x = x.contiguous(memory_format=torch.channels_last_3d)
        if b * t * h * w < FEW or b * t < FRAMES:  # as in csn.pointwise
            rows = x.permute(0, 2, 3, 4, 1).reshape(-1, c)
            y = ONEDNN._linear_pointwise(rows, self.weight.view(-1, c), self.bias, after, [], "")
            return y.view(b, t, h, w, -1).permute(0, 4, 1, 2, 3)
        frames = x.transpose(1, 2).reshape(b * t, c, h, w)  # channels_last, a view
        y = ONEDNN._convolution_pointwise(frames, self.weight[:, :, 0], self.bias, [0, 0], [1, 1], [1, 1], 1, after, [], "")
        return y.view(b, t, -1, h, w).transpose(1, 2)


def fast(x: Tensor) -> bool:
    """Whether oneDNN's fused operators can take x: float32 on a CPU, run now and not traced for export."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available() and not torch.compiler.is_compiling()


def folded(net: ResNet3D) -> ResNet3D:
    """A copy of net for inference, in eval mode, every ConvBN a FoldedConv; net is left as it is. (B, 3, T, H, W) -> (B, K)."""
    copied = copy.deepcopy(net).eval().to(memory_format=torch.channels_last_3d)
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvBN):
                setattr(module, name, FoldedConv(child))
    return copied


@torch.inference_mode()
def folding_error(net: ResNet3D, clips: Tensor) -> float:
    """Largest difference of the logits of net and folded(net) on clips, over the largest logit."""
    was = net.training
    expected = net.eval()(clips)
    net.train(was)
    return float((folded(net)(clips) - expected).abs().max() / expected.abs().max())
