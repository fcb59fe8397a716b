"""CSN as the public packages build it: (B, 3, T, H, W) -> (B, 400), imported from an environment of their own; and ours with torch's depthwise
convolutions."""

from __future__ import annotations

import sys
import types
from pathlib import Path

from torch import Tensor, channels_last_3d, contiguous_format, nn


def pytorchvideo(depth: int) -> nn.Module:
    from pytorchvideo.models.csn import create_csn

    net = create_csn(model_depth=depth, model_num_class=400, dropout_rate=0, stem_pool=nn.MaxPool3d, head_pool=None)
    net.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)
    return net


def mmaction2(depth: int) -> nn.Module:
    """Its backbone module alone (1.2.0's package does not import: a file is missing from the wheel), with pool and classifier."""
    import site

    for name in ("mmaction", "mmaction.models", "mmaction.models.backbones"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(site.getsitepackages()[0], *name.split(".")))]
        sys.modules[name] = package
    from mmaction.models.backbones.resnet3d_csn import ResNet3dCSN

    backbone = ResNet3dCSN(pretrained=None, pretrained2d=False, depth=depth, with_pool2=False, bottleneck_mode="ir")
    backbone.norm_eval = backbone.bn_frozen = False
    return nn.Sequential(backbone, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2048, 400))


class TorchDepthwise(nn.Module):
    """A depthwise convolution of ours by torch in NCDHW, with the conversions to it and back."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        self.weight, self.stride = ours.weight, ours.stride

    def forward(self, x: Tensor) -> Tensor:
        # with a weight of the strides of channels_last_3d torch would go back to that layout, whatever that of x
        weight = self.weight.clone(memory_format=contiguous_format)
        y = nn.functional.conv3d(x.contiguous(), weight, None, self.stride, 1, groups=len(weight))
        return y.contiguous(memory_format=channels_last_3d)


def exchange_depthwise(net: nn.Module) -> None:
    """Put TorchDepthwise in the place of every DepthwiseConv3d of net."""
    from csn.depthwise import DepthwiseConv3d

    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, DepthwiseConv3d):
                setattr(module, name, TorchDepthwise(child))


if __name__ == "__main__":
    pytorchvideo(50)
    mmaction2(50)
