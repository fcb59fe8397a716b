"""How the published files name a network: values given to one description; and which of them a file is.

Facts of the code that wrote the files: VMZ (facebookresearch/VMZ, Caffe2 and PyTorch), MMAction2 (open-mmlab/mmaction2),
PyTorchVideo (facebookresearch/pytorchvideo), torchvision. Their weights have PyTorch's axis order, Caffe2's too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from csn.blocks import BN_EPS, ConvBN
from csn.resnet3d import ResNet3D, build
from csn.spec import SIMPLE_DEPTHS, STAGES, Block, UserError, Variant

Triple = tuple[float, float, float]
Names = tuple[str, str]  # of a convolution and of its batch norm
BN = {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var", "num_batches_tracked": "num_batches_tracked"}
KINETICS: tuple[Triple, Triple] = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
STATISTICS: dict[str, tuple[Triple, Triple]] = {
    "kinetics": KINETICS,  # VMZ; MMAction2 has them times 255
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # MMAction2, networks from IG-65M
    "half": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),  # PyTorchVideo
}


@lru_cache(maxsize=2)
def skeleton(variant: Variant, num_classes: int) -> ResNet3D:
    """The network without numbers, for its names and shapes: on the meta device. Raises UserError where no machine could hold it."""
    try:
        with torch.device("meta"):
            return build(variant, max(num_classes, 1))
    except (RuntimeError, TypeError) as error:  # a TypeError of numbers beyond 64 bits
        raise UserError(f"a network of width {variant.width} and {num_classes} classes cannot be built ({str(error).splitlines()[0]})") from None


@dataclass(frozen=True)
class Format:
    """Names and settings of one kind of file. S, B, I in names: stage 1 to 4, block in the stage, block in the network, from 0.

    stem, shortcut, boxes: names of the pairs of convolution and batch norm; boxes by block, in order. head: of the classifier,
    "" where a file has none; K is its number of classes. joint: between a name and what follows; weight and bn: those.
    eps: of batch norm; it leaves no trace in a file, nor does statistics, of the input. short, crop, frames, pool1, fps:
    of the input of its networks. windows: whether the final map is averaged over windows of 4 x 7 x 7.
    """

    name: str
    title: str
    stem: Names
    block: str
    shortcut: Names
    boxes: Mapping[Block, tuple[Names, ...]]
    head: str
    joint: str = "."
    bn: Mapping[str, str] | None = None
    weight: str = "weight"
    bias: str = "bias"
    eps: float = BN_EPS
    statistics: tuple[Triple, Triple] = KINETICS
    frames: int = 32
    crop: int = 224
    short: int = 256
    pool1: bool = True
    fps: float | None = None
    windows: bool = False

    def names(self, variant: Variant, num_classes: int) -> dict[str, str]:
        """{name in our state dict: name in the file} for every tensor of the network, the classifier only where there is one."""
        modules = [name for name, module in skeleton(variant, num_classes).named_modules() if isinstance(module, ConvBN)]
        found, index = {}, -1
        for ours in modules:
            pair, at = self.stem, {}
            if ours != "stem.conv1":
                _, stage, block, part, *box = ours.split(".")
                index += part == "body" and box == ["0"]
                at = {"S": str(int(stage[4]) - 1), "B": block, "I": str(index)}
                pair = self.shortcut if part == "shortcut" else self.boxes[variant.block][int(box[0])]
            conv, norm = (fill(name, at) for name in pair)
            found[f"{ours}.conv.weight"] = conv + self.joint + self.weight
            for mine, theirs in (self.bn or BN).items():
                found[f"{ours}.bn.{mine}"] = norm + self.joint + theirs
        if num_classes and self.head:
            head = fill(self.head, {"K": str(num_classes)})
            found |= {"head.fc.weight": head + self.joint + self.weight, "head.fc.bias": head + self.joint + self.bias}
        return found


def fill(name: str, values: Mapping[str, str]) -> str:
    """name with {S}, {B}, {I}, {K} replaced."""
    return re.sub(r"\{(\w)\}", lambda found: values[found[1]], name)


def pattern(name: str) -> re.Pattern[str]:
    """What matches name with any numbers in place of {S}, {B}, {I}, {K}, as groups of those names."""
    return re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d{1,4})", re.escape(name)))


def boxes(at: str, ip: str, other: str) -> dict[Block, tuple[Names, ...]]:
    """Boxes from texts of "conv,norm conv,norm" behind the block's prefix: of ip, and of the blocks of three convolutions."""

    def pairs(text: str) -> tuple[Names, ...]:
        return tuple((at + conv, at + norm) for conv, norm in (pair.split(",") for pair in text.split()))

    return {"ip": pairs(ip), "bottleneck-D": pairs(other), "bottleneck": pairs(other)} if ip else {"bottleneck-D": pairs(other)}


VMZ = Format(
    name="vmz-pth", title="VMZ, PyTorch", stem=("stem.0", "stem.1"), block="layer{S}.{B}.",
    shortcut=("layer{S}.{B}.downsample.0", "layer{S}.{B}.downsample.1"),
    boxes=boxes("layer{S}.{B}.", "conv1.0,conv1.1 conv2.0.0,conv2.0.1 conv2.0.2,conv2.1 conv3.0,conv3.1", "conv1.0,conv1.1 conv2.0,conv2.1 conv3.0,conv3.1"),
    head="fc", fps=30.0,  # its test takes every frame at 15 a second: every second one at 30
)  # fmt: skip
# The same names; torchvision has blocks of two convolutions only, VMZ those of three.
TORCHVISION = replace(
    VMZ, name="torchvision", title="torchvision", eps=1e-5, pool1=False, frames=16, crop=112, short=128,
    boxes={"simple": tuple((f"layer{{S}}.{{B}}.conv{k}.0", f"layer{{S}}.{{B}}.conv{k}.1") for k in (1, 2))},
)  # fmt: skip
CAFFE2_BOXES = boxes(
    "comp_{I}_", "conv_1,spatbn_1 conv_2_middle,spatbn_2_middle conv_2,spatbn_2 conv_3,spatbn_3", "conv_1,spatbn_1 conv_2,spatbn_2 conv_3,spatbn_3"
)
CAFFE2 = Format(
    name="vmz-caffe2", title="VMZ, Caffe2", stem=("conv1", "conv1_spatbn_relu"), block="comp_{I}_",
    shortcut=("shortcut_projection_{I}", "shortcut_projection_{I}_spatbn"),
    # its channelwise convolution advances the running number twice: 1, 3, 4
    boxes={**CAFFE2_BOXES, **boxes("comp_{I}_", "", "conv_1,spatbn_1 conv_3,spatbn_3 conv_4,spatbn_4")},
    # riv holds the plain variance, whatever its name says
    head="last_out_L{K}", joint="_", weight="w", bias="b", bn={"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"},
    statistics=((110.201 / 255, 100.64 / 255, 95.9966 / 255), (58.1489 / 255, 56.4701 / 255, 55.3324 / 255)),
)  # fmt: skip
# R3D-18 and 34 of the same code: two convolutions a block, trained at 112 pixels without the pool.
CAFFE2_SIMPLE = replace(
    CAFFE2, pool1=False, crop=112, short=128,
    boxes={"simple": tuple((f"comp_{{I}}_conv_{k}", f"comp_{{I}}_spatbn_{k}") for k in (1, 2))},
)  # fmt: skip
MMACTION2 = Format(
    name="mmaction2", title="MMAction2", stem=("backbone.conv1.conv", "backbone.conv1.bn"), block="backbone.layer{S}.{B}.",
    shortcut=("backbone.layer{S}.{B}.downsample.conv", "backbone.layer{S}.{B}.downsample.bn"),
    boxes=boxes(
        "backbone.layer{S}.{B}.",
        "conv1.conv,conv1.bn conv2.0.conv,conv2.0.bn conv2.1.conv,conv2.1.bn conv3.conv,conv3.bn",
        "conv1.conv,conv1.bn conv2.0.conv,conv2.0.bn conv3.conv,conv3.bn",
    ),
    head="cls_head.fc_cls",
)  # fmt: skip
# Its files "from scratch" hold the backbone alone, under the same names without the first word.
MMACTION2_BACKBONE = replace(
    MMACTION2, name="mmaction2-backbone", title="MMAction2, backbone", stem=("conv1.conv", "conv1.bn"), block="layer{S}.{B}.", head="",
    shortcut=("layer{S}.{B}.downsample.conv", "layer{S}.{B}.downsample.bn"),
    boxes={block: tuple((a[9:], b[9:]) for a, b in pairs) for block, pairs in MMACTION2.boxes.items()},
)  # fmt: skip
PYTORCHVIDEO = Format(
    name="pytorchvideo", title="PyTorchVideo", stem=("blocks.0.conv", "blocks.0.norm"), block="blocks.{S}.res_blocks.{B}.",
    shortcut=("blocks.{S}.res_blocks.{B}.branch1_conv", "blocks.{S}.res_blocks.{B}.branch1_norm"),
    boxes=boxes("blocks.{S}.res_blocks.{B}.branch2.", "", "conv_a,norm_a conv_b,norm_b conv_c,norm_c"),
    head="blocks.5.proj", eps=1e-5, statistics=STATISTICS["half"], windows=True,
)  # fmt: skip
FORMATS = (VMZ, TORCHVISION, CAFFE2, CAFFE2_SIMPLE, MMACTION2, MMACTION2_BACKBONE, PYTORCHVIDEO)


def recognise(tensors: Mapping[str, Tensor]) -> tuple[Format, Variant, int]:
    """Format, network and number of classes (0: no classifier) of foreign tensors, from their names and shapes.

    Raises UserError (without the file's name) where they are no network of these formats.
    """
    for kind in FORMATS:
        stem = kind.stem[0] + kind.joint + kind.weight
        block = block_of(kind, tensors) if stem in tensors else None
        if block is not None:
            variant = Variant(block=block, depth=depth_of(kind, block, tensors), width=rows(tensors[stem]), pool1=kind.pool1)
            return kind, variant, classes_of(kind, tensors)
    raise UserError(f"its tensors ({', '.join(list(tensors)[:3])}, ...) are none of {', '.join(dict.fromkeys(kind.title for kind in FORMATS))}")


def block_of(kind: Format, tensors: Mapping[str, Tensor]) -> Block | None:
    """The block of the network: the first whose convolutions are all there, depthwise or not as it wants; None where none is."""
    for block, pairs in kind.boxes.items():
        names = [fill(conv, {"S": "1", "B": "0", "I": "0"}) + kind.joint + kind.weight for conv, _ in pairs]
        depthwise = block in ("ip", "bottleneck-D")
        if all(name in tensors for name in names) and (tensors[names[-2]].shape[1:2] == (1,)) == depthwise:
            return block
    return None


def depth_of(kind: Format, block: Block, names: Iterable[str]) -> int:
    """The depth whose stages have as many blocks as there are. Raises UserError."""
    at = pattern(kind.block)
    found = {tuple(sorted(match.groupdict().items())) for match in map(at.match, names) if match}
    stages = [sum(("S", str(stage)) in block for block in found) for stage in (1, 2, 3, 4)] if "S" in at.groupindex else None
    for depth, blocks in STAGES.items():
        fits = tuple(stages) == blocks if stages is not None else len(found) == sum(blocks)
        if fits and (depth in SIMPLE_DEPTHS) == (block == "simple"):
            return depth
    told = f"stages of {', '.join(map(str, stages))}" if stages is not None else f"{len(found)}"
    raise UserError(f"it has {told} blocks, which is none of the depths {', '.join(map(str, STAGES))}")


def rows(tensor: Tensor) -> int:
    """The first size of a tensor, 0 where it has none."""
    return tensor.shape[0] if tensor.ndim else 0


def classes_of(kind: Format, tensors: Mapping[str, Tensor]) -> int:
    at = pattern(kind.head + kind.joint + kind.weight)
    return next((rows(tensors[name]) for name in tensors if kind.head and at.fullmatch(name)), 0)
