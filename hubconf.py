"""Entry points of torch.hub: networks with fresh weights, and any checkpoint file.

    net = torch.hub.load(FOLDER, "ir_csn", source="local", depth=50, num_classes=101)
    net = torch.hub.load(FOLDER, "load", source="local", path="ip_csn_152.pkl")

FOLDER: a checkout of this repository.
"""

from csn.checkpoints.network import load as _load
from csn.resnet3d import ResNet3D, build
from csn.spec import Variant

dependencies = ["torch", "torchvision", "numpy", "PIL", "safetensors"]


def load(path: str, num_classes: int | None = None, statistics: str | None = None) -> ResNet3D:
    """The network of a checkpoint file in any format, in eval mode, with its input statistics; see csn.load."""
    return _load(path, num_classes, statistics)


def ir_csn(depth: int = 152, num_classes: int = 400) -> ResNet3D:
    """ir-CSN of depth 26, 50, 101 or 152, freshly initialised."""
    return build(Variant(block="bottleneck-D", depth=depth), num_classes)


def ip_csn(depth: int = 152, num_classes: int = 400) -> ResNet3D:
    """ip-CSN of depth 26, 50, 101 or 152, freshly initialised."""
    return build(Variant(block="ip", depth=depth), num_classes)


def resnet3d(depth: int = 50, num_classes: int = 400) -> ResNet3D:
    """ResNet3D of depth 18 or 34 (simple blocks), 26, 50, 101 or 152 (bottlenecks), freshly initialised."""
    return build(Variant(block="simple" if depth in (18, 34) else "bottleneck", depth=depth), num_classes)
