"""What is run: Variant (the network), Recipe (everything else), Run (Variant x Recipe x seed).

Values only, standard library only: planning a study never imports torch. A wrong value is refused where it
is made, with its name, its value and the rule.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache, cached_property
from math import inf, isfinite
from operator import index
from typing import Any, Literal, get_args

from csn.rules import UserError as UserError
from csn.rules import require as require
from csn.rules import whole, yes_or_no
from csn.sources import CLASSES as CLASSES
from csn.sources import Embedded as Embedded
from csn.sources import MovingDigits as MovingDigits
from csn.sources import Photos as Photos
from csn.sources import VideoKind as VideoKind
from csn.sources import VideoSet as VideoSet

Block = Literal["simple", "simple-G", "simple-D", "bottleneck", "bottleneck-G", "bottleneck-D", "bottleneck-DG", "ip"]
BLOCKS: tuple[str, ...] = get_args(Block)
# Blocks per stage (paper, Table 1). Depths 18 and 34 stack simple blocks, the others bottlenecks.
STAGES: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
SIMPLE_DEPTHS = (18, 34)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of the study.

    block: the residual block; "bottleneck-D" is ir-CSN, "ip" is ip-CSN, "simple"/"bottleneck" are ResNet3D.
    depth: 18 or 34 for simple blocks, 26, 50, 101 or 152 for bottlenecks; 26 has no expansion, the deeper ones x4.
    groups: groups of the convolutions marked G ("-G": the 3x3x3; "-DG": both 1x1x1). Must divide width.
    width: channels of the stem and of stage conv2_x (64 in the paper); the stages have width x 1, 2, 4, 8.
    interior_relu: ip only: ReLU between the extra 1x1x1 and the depthwise convolution (released code: none).
    pool1: 1x3x3 max pooling, stride 1x2x2, after the stem (on in the paper's 224-pixel networks).

    Raises UserError where a value breaks its rule.
    """

    block: Block = "bottleneck"
    depth: int = 26
    groups: int = 1
    width: int = 64
    interior_relu: bool = False
    pool1: bool = True

    def __post_init__(self) -> None:
        require(self.block in BLOCKS, "block", self.block, f"must be one of {', '.join(BLOCKS)}")
        whole(self, "depth", "groups", "width")
        yes_or_no(self, "interior_relu", "pool1")
        require(self.depth in STAGES, "depth", self.depth, f"must be one of {', '.join(map(str, STAGES))}")
        depths = SIMPLE_DEPTHS if self.block.startswith("simple") else tuple(d for d in STAGES if d not in SIMPLE_DEPTHS)
        require(self.depth in depths, "depth", self.depth, f"must be one of {', '.join(map(str, depths))} for block {self.block!r}")
        require(self.width >= 1, "width", self.width, "must be at least 1")
        if self.block.endswith("G"):
            require(self.groups >= 2, "groups", self.groups, f"must be at least 2 for block {self.block!r}")
            require(self.width % self.groups == 0, "groups", self.groups, f"must divide `width` (={self.width})")
        else:
            require(self.groups == 1, "groups", self.groups, f"must be 1 for block {self.block!r}, which has no group convolution")
        require(not self.interior_relu or self.block == "ip", "interior_relu", self.interior_relu, "belongs to block 'ip' only")

    @property
    def expansion(self) -> int:
        """Output channels of a block over its inner channels: 4 for depths 50, 101, 152, else 1."""
        return 4 if self.depth in (50, 101, 152) else 1

    @property
    def slug(self) -> str:
        """Readable name: block (with its group count), depth, width, and what differs from the default."""
        block = self.block + (str(self.groups) if self.groups > 1 else "")
        return f"{block}-{self.depth}-w{self.width}" + ("-relu" if self.interior_relu else "") + ("" if self.pool1 else "-nopool")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything but the network: data, clip, augmentation, schedule, batch, test protocol.

    scale: name of the scale. data: the data set. width: channels that stand for the paper's 64. pool1: whether the maximum is taken
    after conv1. mean, std: of the three colours, in [0, 1]: what clips are normalised with.
    frames, stride: T frames, every stride-th. crop: side of the square crop, pixels. resize: (low, high) range of the short side
    drawn in training, its low end is the short side in test; None keeps the pixels. mirror: random left-right flip.
    epochs of clips_per_epoch clips (temporal jitter: a video may be drawn more than once an epoch, or not at all);
    warmup epochs of linear rise to lr, then half a cosine to 0.
    batch: global batch, clips; micro_batch: clips of one forward, whose batch-norm statistics are shared.
    lr: the peak. momentum (Nesterov); weight_decay: on weights and BN gamma, not on biases and BN beta.
    precision: of the forward and backward passes; weights and their steps are fp32.
    test_clips x test_crops views a video (crops 1: centre; 3: along the longer side) of test_crop pixels.
    test_dense: test fully convolutionally: the classifier at every position of the final map, probabilities averaged.
    views_per_batch: views of one forward of the test; bounds its memory.
    fps: frames per second at which every video is seen, by taking nearer or farther frames; None takes the frames as they are.
    pretrained: a file below DATA/checkpoints/ that training begins from, "" for none: the same network, with the classifier where
    its classes are the same, a fresh one otherwise. freeze_bn: batch norm keeps the file's statistics, gamma and beta.
    zero_gamma: the last batch norm of every residual branch starts at gamma 0, so that deep networks learn from the first steps.
    compile: train through torch.compile, which fuses batch norm, ReLU and addition; rounding differs, so results are not mixed.
    """

    scale: str
    data: Embedded | VideoSet
    width: int = 64
    pool1: bool = True
    frames: int = 8
    stride: int = 2
    crop: int = 224
    resize: tuple[int, int] | None = None
    mirror: bool = False
    mean: tuple[float, float, float] = (0.43216, 0.394666, 0.37645)
    std: tuple[float, float, float] = (0.22803, 0.22145, 0.216989)
    epochs: int = 45
    warmup: int = 10
    clips_per_epoch: int = 999_936
    lr: float = 0.64
    batch: int = 512
    micro_batch: int = 8
    momentum: float = 0.9
    weight_decay: float = 1e-4
    precision: Literal["fp32", "bf16"] = "fp32"
    test_clips: int = 10
    test_crops: Literal[1, 3] = 1
    test_crop: int = 224
    test_dense: bool = False
    views_per_batch: int = 32
    fps: float | None = None
    pretrained: str = ""
    freeze_bn: bool = False
    zero_gamma: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        plain = self.scale != "" and not self.scale.startswith(".") and "/" not in self.scale and self.scale.isprintable()
        require(plain, "scale", self.scale, "must be a name for files: without /, not beginning with a dot")
        whole(self, "width", "frames", "stride", "crop", "epochs", "warmup", "clips_per_epoch", "batch", "micro_batch")
        whole(self, "test_clips", "test_crops", "test_crop", "views_per_batch")
        yes_or_no(self, "pool1", "mirror", "test_dense", "freeze_bn", "zero_gamma", "compile")
        require(self.frames >= 2, "frames", self.frames, "must be at least 2")
        require(self.stride >= 1, "stride", self.stride, "must be at least 1")
        require(self.crop >= 32, "crop", self.crop, "must be at least 32")
        if self.resize is not None:
            try:
                low, high = (index(side) for side in self.resize)
            except (TypeError, ValueError):
                raise UserError(f"`resize` (={self.resize!r}) must be two whole numbers, or None.") from None
            object.__setattr__(self, "resize", (low, high))
            require(low <= high, "resize", self.resize, "must be (low, high) with low <= high")
            for name in ("crop", "test_crop"):
                require(getattr(self, name) <= low, name, getattr(self, name), f"must not exceed the low end of `resize` (={low})")
        sided = isinstance(self.data, Embedded) or self.data.kind.startswith("something")
        require(not (self.mirror and sided), "mirror", self.mirror, f"must be False for {self.data.kind}, whose classes tell left from right")
        for name in ("batch", "micro_batch", "test_clips", "views_per_batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.clips_per_epoch >= 0, "clips_per_epoch", self.clips_per_epoch, "must be at least 0")
        require(self.test_crop >= 1, "test_crop", self.test_crop, "must be at least 1")
        if isinstance(self.data, Embedded) and self.resize is None:
            for name in ("crop", "test_crop"):
                side = self.data.size
                require(getattr(self, name) <= side, name, getattr(self, name), f"must not exceed the {side} pixels of a video of {self.data.kind}")
        for name in ("mean", "std"):
            given = tuple(float(value) for value in getattr(self, name))
            require(len(given) == 3 and all(map(isfinite, given)), name, getattr(self, name), "must be three finite numbers")
            object.__setattr__(self, name, given)
        for name in ("lr", "momentum", "weight_decay", "fps"):  # equal numbers, equal names of runs: 1 is 1.0
            object.__setattr__(self, name, None if getattr(self, name) is None else float(getattr(self, name)))
        require(0 < self.lr < inf, "lr", self.lr, "must be above 0 and finite")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "must be at least 0 and below 1")
        require(0 <= self.weight_decay < inf, "weight_decay", self.weight_decay, "must be at least 0 and finite")
        require(all(0 < value < inf for value in self.std), "std", self.std, "must be above 0 and finite")
        require(self.precision in ("fp32", "bf16"), "precision", self.precision, "must be fp32 or bf16")
        require(self.batch % self.micro_batch == 0, "micro_batch", self.micro_batch, f"must divide `batch` (={self.batch})")
        require(0 <= self.warmup < self.epochs, "warmup", self.warmup, f"must lie below `epochs` (={self.epochs})")
        require(self.clips_per_epoch % self.batch == 0, "clips_per_epoch", self.clips_per_epoch, f"must be a multiple of `batch` (={self.batch})")
        require(self.test_crops in (1, 3), "test_crops", self.test_crops, "must be 1 or 3")
        require(not self.test_dense or self.test_crop >= self.crop, "test_crop", self.test_crop, f"must be at least `crop` (={self.crop}) with `test_dense`")
        require(self.fps is None or 0 < self.fps < inf, "fps", self.fps, "must be above 0 and finite, or None")
        require(self.fps is None or isinstance(self.data, VideoSet), "fps", self.fps, "belongs to sets of real video only")
        inside = not self.pretrained.startswith("/") and ".." not in self.pretrained.split("/")
        require(inside, "pretrained", self.pretrained, "must be the name of a file below DATA/checkpoints/")
        require(not self.freeze_bn or self.pretrained != "", "freeze_bn", self.freeze_bn, "belongs to a `pretrained` network")
        span = (self.frames - 1) * self.stride + 1
        if isinstance(self.data, Embedded):
            require(
                span <= self.data.frames, "frames", self.frames,
                f"at stride {self.stride} span {span} frames, more than the {self.data.frames} of a video of {self.data.kind}",
            )  # fmt: skip

    @property
    def steps_per_epoch(self) -> int:
        return self.clips_per_epoch // self.batch

    @property
    def final_map(self) -> int:
        """Side of the network's last feature map at the training crop: 7 at 224 pixels with pool1."""
        return -(-self.crop // (32 if self.pool1 else 16))


@dataclass(frozen=True, kw_only=True)
class Run:
    """Variant x Recipe x seed, identified by its content: equal content, equal name, trained once."""

    variant: Variant
    recipe: Recipe
    seed: int

    def __post_init__(self) -> None:
        whole(self, "seed")
        require(0 <= self.seed < 2**63, "seed", self.seed, "must be at least 0 and below 2**63")

    @cached_property
    def name(self) -> str:
        """Readable slug and the first 10 hex digits of the SHA-256 of the content.

        The digest covers the fields that differ from their defaults: a field added later leaves old names as they are,
        so a default, once released, never changes its value or its meaning.
        """
        content, data = told(self), self.recipe.data
        if isinstance(data, Photos) and data.classes == Photos.classes:  # the one that tells it from a MovingDigits of equal numbers
            content["recipe"]["data"]["kind"] = data.kind
        text = json.dumps(content, sort_keys=True)
        return f"{self.recipe.scale}-{self.variant.slug}-s{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `Run.from_dict` gives the Run back."""
        return json.loads(json.dumps(asdict(self)))

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Run:
        """The Run of `to_dict`; raises UserError naming the first field that is unknown or missing."""
        try:
            recipe = dict(content["recipe"])
            for name in ("resize", "mean", "std"):
                recipe[name] = tuple(recipe[name]) if recipe[name] is not None else None
            kinds: dict[str, Any] = {"moving-digits": MovingDigits, "photos": Photos}
            recipe["data"] = kinds.get(recipe["data"]["kind"], VideoSet)(**recipe["data"])
            return Run(variant=Variant(**content["variant"]), recipe=Recipe(**recipe), seed=content["seed"])
        except (KeyError, TypeError) as error:
            raise UserError(f"The run description is damaged or of another version ({error}); run the table's command again, which writes it anew.") from None


def told(value: Any) -> Any:
    """The fields of a spec that differ from their defaults, as plain JSON types."""
    if not is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    kind: Any = type(value)
    pairs = ((name, getattr(value, name), default) for name, default in defaults(kind))
    return {name: told(own) for name, own, default in pairs if default is MISSING or own != default}


@cache
def defaults(kind: type) -> tuple[tuple[str, Any], ...]:
    """(name, default) of the fields of a dataclass: asked once a class, for names of many runs are made at once."""
    return tuple((f.name, f.default) for f in fields(kind))
