"""What goes with a network and leaves no trace in its tensors: input statistics, class names, batch-norm epsilon, origin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any

from torch import nn

from csn.blocks import BN_EPS
from csn.checkpoints.formats import FORMATS, Triple
from csn.spec import Run, UserError, Variant

OURS = "csn"  # the name of our own format
HEADER = "csn"  # and of its text in the header
TYPES = {name: type(own) for name, own in asdict(Variant()).items()}  # of a variant's fields


@dataclass(frozen=True)
class Input:
    """What a network sees in its test. mean, std: of RGB values 0..1. frames: of a clip, every stride-th, of a video seen at
    fps frames a second (None: as it is). crop: side of the square, pixels, after the short side became `short` (None: kept)."""

    mean: Triple
    std: Triple
    frames: int
    stride: int
    crop: int
    short: int | None
    fps: float | None = None


@dataclass(frozen=True)
class Facts:
    """What a file says, or its format implies. num_classes 0: no classifier. classes: names, () where unknown. eps: of batch
    norm. windows: average the final map over windows of 4 x 7 x 7. format, sha256: of this file; source: those of the file it
    was converted from, if it was. notes: what was assumed, sentences."""

    variant: Variant
    num_classes: int
    classes: tuple[str, ...]
    input: Input
    eps: float = BN_EPS
    windows: bool = False
    format: str = OURS
    sha256: str = ""
    source: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """What to tell a person: names and values."""
        variant, given = self.variant, self.input
        called = {"bottleneck-D": "ir-CSN", "ip": "ip-CSN"}.get(variant.block, "ResNet3D" if variant.block in ("simple", "bottleneck") else variant.block)
        titles = {kind.name: kind.title for kind in FORMATS} | {OURS: "ours"}
        rate = f" at {given.fps:g} a second" if given.fps else ""
        resized = f", short side {given.short}" if given.short else ""
        rows = [
            ("network", f"{called}-{variant.depth} (block {variant.block}, width {variant.width}{'' if variant.pool1 else ', no pool1'})"),
            ("classes", f"{self.num_classes}{'' if self.classes else ', names unknown'}" if self.num_classes else "no classifier"),
            ("format", f"{titles[self.format]}, sha256 {self.sha256[:16]}"),
            ("input", f"{given.frames} frames at stride {given.stride}{rate}{resized}, crop {given.crop}"),
            ("mean, std", f"{rounded(given.mean)}, {rounded(given.std)}"),
            ("batch norm eps", f"{self.eps:g}"),
        ]
        if self.source:
            rows.insert(3, ("converted from", f"{titles.get(self.source[0], self.source[0])}, sha256 {self.source[1][:16]}"))
        return rows + [("note", note) for note in self.notes]


def rounded(values: Triple) -> str:
    return " ".join(f"{value:.5g}" for value in values)


def of_run(run: Run, classes: Sequence[str], net: nn.Module) -> Facts:
    """The facts of the network a run has trained."""
    recipe = run.recipe
    given = Input(recipe.mean, recipe.std, recipe.frames, recipe.stride, recipe.test_crop, recipe.resize[0] if recipe.resize else None, recipe.fps)
    eps = next(module.eps for module in net.modules() if isinstance(module, nn.BatchNorm3d))
    return Facts(run.variant, len(classes), tuple(classes), given, eps)


def metadata(facts: Facts, **more: Any) -> dict[str, str]:
    """The header of our files: facts, and more beside them, as one JSON text; `from_metadata` gives the facts back.

    One text, for safetensors writes several in any order, and equal networks are to be equal files.
    """
    source = facts.source or ((facts.format, facts.sha256) if facts.format != OURS else None)
    told = {
        "variant": asdict(facts.variant), "num_classes": facts.num_classes, "classes": facts.classes, "input": asdict(facts.input),
        "bn_eps": facts.eps, "windows": facts.windows, "source": source and {"format": source[0], "sha256": source[1]},
    }  # fmt: skip
    return {HEADER: json.dumps(told | ({"notes": facts.notes} if facts.notes else {}) | more)}


def checked(num_classes: Any, classes: Any, given: Mapping[str, Any]) -> None:
    """Raise ValueError where a header's values are none that a network can have."""
    whole = {"num_classes": num_classes, **{name: given[name] for name in ("frames", "stride", "crop")}}
    if given["short"] is not None:
        whole["short"] = given["short"]
    for name, value in whole.items():
        if type(value) is not int or value < (name != "num_classes"):
            raise ValueError(f"{name} is {value!r}")
    if given["short"] is not None and given["crop"] > given["short"]:
        raise ValueError(f"crop {given['crop']} is larger than the short side, {given['short']}")
    if not isinstance(classes, list) or len(classes) not in (0, num_classes) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{num_classes} classes have {len(classes)} names")
    numbers = [*given["mean"], *given["std"], *filter(lambda fps: fps is not None, [given.get("fps")])]
    if len(given["mean"]) != 3 or len(given["std"]) != 3 or not all(isinstance(n, (int, float)) and isfinite(n) for n in numbers):
        raise ValueError(f"mean, std, fps are {numbers}")
    if min(numbers[3:]) <= 0:
        raise ValueError(f"std, fps are {numbers[3:]}")


def from_metadata(text: str, sha256: str) -> Facts:
    """The facts in a text that `metadata` wrote. Raises UserError."""
    try:
        told = json.loads(text)
        given = {**told["input"], **{name: tuple(told["input"][name]) for name in ("mean", "std")}}
        source = told["source"] and (told["source"]["format"], told["source"]["sha256"])
        checked(told["num_classes"], told["classes"], given)
        if not 0 < float(told["bn_eps"]) < inf or (source and not all(isinstance(text, str) for text in source)):
            raise ValueError(f"bn_eps, source are {told['bn_eps']!r}, {told['source']!r}")
        if any(type(own) is not TYPES.get(name) for name, own in told["variant"].items()):
            raise ValueError(f"variant is {told['variant']!r}")
        return Facts(
            variant=Variant(**told["variant"]), num_classes=int(told["num_classes"]), classes=tuple(told["classes"]),
            input=Input(**given), eps=float(told["bn_eps"]), windows=bool(told["windows"]), sha256=sha256, source=source,
            notes=tuple(str(note) for note in told.get("notes", ())),
        )  # fmt: skip
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"its header is damaged or of another version ({error!r})") from None
