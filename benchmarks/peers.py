"""CSN as the public packages build it: (B, 3, T, H, W) -> (B, 400). They are imported from an environment of their own."""

from __future__ import annotations

import sys
import types
from pathlib import Path

from torch import nn


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


if __name__ == "__main__":
    pytorchvideo(50)
    mmaction2(50)
