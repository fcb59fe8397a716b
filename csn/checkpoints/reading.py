"""From a file to facts and tensors in our names: every tensor used once, every one of the network filled, or both lists told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csn.checkpoints import containers
from csn.checkpoints.facts import HEADER, Facts, Input, from_metadata
from csn.checkpoints.formats import STATISTICS, Triple, recognise, skeleton
from csn.data.media import lines
from csn.spec import UserError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NO_STATISTICS = (
    "the file does not tell its input statistics: those of Kinetics are taken; MMAction2's networks from IG-65M have those of ImageNet (--statistics imagenet)"
)


def read(path: Path, statistics: str | None = None) -> tuple[Facts, dict[str, Tensor]]:
    """What a file holds: facts, and its tensors in our names, float32.

    Every tensor of the file is used once and every one of the network filled, or a UserError lists both. statistics: the name
    of a row of formats.STATISTICS, in place of what the file or its format says.
    """
    if statistics is not None and statistics not in STATISTICS:
        raise UserError(f"`statistics` (={statistics}) must be one of {', '.join(STATISTICS)}.")
    content = containers.read(path)
    try:
        facts, names = own_facts(content) if HEADER in content.told else foreign_facts(content)
    except UserError as error:
        raise UserError(f"The checkpoint {path} is refused: {str(error).rstrip('.')}.") from None
    if statistics is not None:
        mean, std = STATISTICS[statistics]
        notes = tuple(note for note in facts.notes if note != NO_STATISTICS)
        facts = replace(facts, input=replace(facts.input, mean=mean, std=std), notes=notes)
    return facts, matched(path, facts, names, content.tensors)


def own_facts(content: containers.Content) -> tuple[Facts, dict[str, str]]:
    """Facts of our own format. Raises UserError."""
    facts = from_metadata(content.told[HEADER], content.sha256)
    names = skeleton(facts.variant, facts.num_classes).state_dict()
    return facts, {name: name for name in names if facts.num_classes or not name.startswith("head.")}


def foreign_facts(content: containers.Content) -> tuple[Facts, dict[str, str]]:
    """Facts of a published format. Raises UserError."""
    kind, variant, num_classes = recognise(content.tensors)
    (mean, std), notes = kind.statistics, []
    meta = content.beside.get("meta")
    if kind.name.startswith("mmaction2"):
        found = statistics_in(meta)
        mean, std = found or (mean, std)
        if not found:
            notes.append(NO_STATISTICS)
    classes = classes_in(meta, num_classes)
    if not classes and num_classes == 400:
        classes = kinetics400()
        notes.append("the file does not name its classes: 400 are taken for those of Kinetics-400, in alphabetical order")
    given = Input(mean, std, kind.frames, 2, kind.crop, kind.short, kind.fps)
    facts = Facts(variant, num_classes, classes, given, kind.eps, kind.windows, kind.name, content.sha256, notes=tuple(notes))
    return facts, kind.names(variant, num_classes)


def statistics_in(meta: Any) -> tuple[Triple, Triple] | None:
    """Mean and standard deviation, of values 0..1, in the configuration text of an MMAction2 file; None where there are none to use."""
    text = "\n".join(str(value) for value in meta.values() if isinstance(value, str)) if isinstance(meta, Mapping) else ""
    found = [re.search(rf"\b{name}['\"]?\s*[=:]\s*[\[(]([\d.,\s]+)[\])]", text) for name in ("mean", "std")]
    try:
        rows = [tuple(float(part) for part in match[1].split(",") if part.strip()) for match in found if match]
    except ValueError:
        return None
    if len(rows) != 2 or any(len(row) != 3 for row in rows) or min(rows[1]) <= 0:
        return None
    scale = 255.0 if max(*rows[0], *rows[1]) > 1 else 1.0
    (a, b, c), (d, e, f) = rows
    return (a / scale, b / scale, c / scale), (d / scale, e / scale, f / scale)


def classes_in(meta: Any, number: int) -> tuple[str, ...]:
    """Class names in the meta of an MMAction2 file, where they are there and as many as the classifier has."""
    meta = meta if isinstance(meta, Mapping) else {}
    inner = meta.get("dataset_meta")
    both = (meta.get("CLASSES"), inner.get("classes") if isinstance(inner, Mapping) else None)
    names = next((found for found in both if isinstance(found, Sequence) and found), ())
    good = len(names) == number and all(isinstance(name, str) for name in names)
    return tuple(names) if good else ()


def kinetics400() -> tuple[str, ...]:
    """The class names of Kinetics-400 in official order, as torchvision lists them."""
    from torchvision.models.video import R3D_18_Weights

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])


def matched(path: Path, facts: Facts, names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, once it is sure that they are those of the network. Raises UserError that lists what is not."""
    wanted = skeleton(facts.variant, facts.num_classes).state_dict()
    counters = {theirs for ours, theirs in names.items() if ours.endswith("num_batches_tracked")}  # some writers leave them out
    missing = [theirs for theirs in names.values() if theirs not in tensors and theirs not in counters]
    left = [name for name in tensors if name not in set(names.values())]
    wrong = [
        f"{theirs} ({shape_of(tensors[theirs])}, {shape_of(wanted[ours])} wanted)"
        for ours, theirs in names.items() if theirs in tensors and tensors[theirs].shape != wanted[ours].shape
    ]  # fmt: skip
    bad = []
    if not (missing or left or wrong):
        bad = [theirs for ours, theirs in names.items() if theirs in tensors and not sound(ours, tensors[theirs])]
    lists = (("missing", missing), ("left over", left), ("of another shape", wrong), ("without sensible numbers", bad))
    told = "; ".join(f"{what}: {some(found)}" for what, found in lists if found)
    if told:
        raise UserError(f"The checkpoint {path} is no {facts.variant.slug} of format {facts.format}: {told}.")
    state = {}
    for ours, like in wanted.items():
        if ours.startswith("head.") and not facts.num_classes:
            continue
        held = tensors.get(names.get(ours, ""))
        state[ours] = torch.zeros((), dtype=like.dtype) if held is None else held.to(like.dtype).contiguous()
    return state


def sound(name: str, tensor: Tensor) -> bool:
    """Whether a tensor can be what its name says: finite numbers, a variance of at least 0, a counter of whole numbers."""
    if name.endswith("num_batches_tracked"):
        return not tensor.is_floating_point()
    return tensor.dtype in FLOATS and bool(tensor.isfinite().all()) and not (name.endswith("running_var") and bool((tensor < 0).any()))


def shape_of(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def class_names(path: Path, number: int) -> tuple[str, ...]:
    """The names in a file, one a line, as many as the classifier has classes. Raises UserError."""
    names = tuple(line for _, line in lines(path))
    if len(names) != number:
        raise UserError(f"{path} names {len(names)} classes, the checkpoint has {number}; give one line a class.")
    return names
