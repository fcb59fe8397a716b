"""What goes with a network and leaves no trace in its tensors: input statistics, class names, batch-norm epsilon, origin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import nn

from csn.blocks import BN_EPS
from csn.checkpoints.formats import FORMATS, Triple
from csn.spec import Run, UserError, Variant

OURS = "csn"  # the name of our own format


@dataclass(frozen=True)
class Input:
    """What a network was trained on. mean, std: of RGB values 0..1. frames: of a clip, every stride-th, of a video seen at
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


def metadata(facts: Facts) -> dict[str, str]:
    """The header of our files: facts as texts; `from_metadata` gives them back."""
    told = {
        "variant": json.dumps(asdict(facts.variant)), "num_classes": str(facts.num_classes), "classes": json.dumps(facts.classes),
        "input": json.dumps(asdict(facts.input)), "bn_eps": repr(facts.eps), "windows": str(int(facts.windows)),
    }  # fmt: skip
    source = facts.source or ((facts.format, facts.sha256) if facts.format != OURS else None)
    return told | ({"source_format": source[0], "source_sha256": source[1]} if source else {})


def from_metadata(told: Mapping[str, str], sha256: str) -> Facts:
    """The facts in a header that `metadata` wrote. Raises UserError."""
    try:
        given = json.loads(told["input"])
        given |= {name: tuple(given[name]) for name in ("mean", "std")}
        source = (told["source_format"], told["source_sha256"]) if "source_format" in told else None
        return Facts(
            variant=Variant(**json.loads(told["variant"])), num_classes=int(told["num_classes"]), classes=tuple(json.loads(told["classes"])),
            input=Input(**given), eps=float(told["bn_eps"]), windows=told["windows"] == "1", sha256=sha256, source=source,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"its header is damaged or of another version ({error!r})") from None
