"""A whole network from one file: whatever published format, or ours; and into ours, which carries all that goes with it.

    net = load("irCSN_152_ft_kinetics_from_ig65m_f126851907.pkl")      # eval mode; net.input, net.classes, net.facts
    logits = net(clips)                                                # clips normalised by net.input.mean and .std
    facts, state = read(path)                                          # what a file holds, in our names

What is no such file is refused with a sentence (UserError).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csn.checkpoints.facts import HEADER, Facts, from_metadata, metadata
from csn.checkpoints.reading import read
from csn.files import write_atomic
from csn.resnet3d import Head, ResNet3D, build, initialize
from csn.spec import Recipe, UserError, require


class WindowHead(nn.Module):
    """PyTorchVideo's head: the final map averaged over windows of 4 x 7 x 7, the logits of all windows averaged.

    Linear, so it is the classifier of the mean of the windows' means. Equal to Head where the map is one window; where it is
    smaller, the window is the map (PyTorchVideo raises there). (B, C, T, H, W) -> (B, K).
    """

    def __init__(self, fc: nn.Linear) -> None:
        super().__init__()
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        window = [min(size, most) for size, most in zip(x.shape[2:], (4, 7, 7), strict=True)]
        return self.fc(F.avg_pool3d(x, window, stride=1).mean((2, 3, 4)))


def load(path: str | Path, num_classes: int | None = None, statistics: str | None = None) -> ResNet3D:
    """The network of a checkpoint file, in eval mode, on the CPU, with attributes input (Input), classes (names, where
    known), facts (Facts).

    num_classes: another number than the file's gives a fresh classifier. statistics: see `read`. Raises UserError.
    """
    facts, state = read(Path(path), statistics)
    classes = facts.num_classes if num_classes is None else num_classes
    if not classes:
        raise UserError(f"The checkpoint {path} has no classifier; give num_classes for a fresh one.")
    with torch.device("meta"):
        net = build(facts.variant, classes, facts.input.frames)
    if classes != facts.num_classes:
        head = Head(net.head.fc.weight.shape[1], classes)
        initialize(head)
        state |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
        facts = replace(facts, num_classes=classes, classes=())
    net.load_state_dict(state, assign=True)
    set_eps(net, facts.eps)
    if facts.windows:
        net.head = WindowHead(net.head.fc)  # type: ignore[assignment,arg-type]
    net.facts, net.input, net.classes = facts, facts.input, facts.classes  # type: ignore[assignment]
    return net.eval()


def facts_of(net: nn.Module) -> Facts:
    """The facts of a network that came from `load`. Raises UserError for any other, which tells nothing of its input, and where its weights were
    brought to another type than theirs, float32."""
    facts = getattr(net, "facts", None)
    if not isinstance(facts, Facts):
        raise UserError("The network says nothing of its input; take it from csn.load(file).")
    for name, weight in net.named_parameters():
        require(weight.dtype == torch.float32, name, weight.dtype, "must be of torch.float32; call net.float() first")
    return facts


def start(net: ResNet3D, path: Path, recipe: Recipe, classes: Sequence[str]) -> str:
    """Fill net, as built for recipe, from a file, to fine-tune it: all but the classifier, and that too where its classes are
    the same. Returns the file's SHA-256. Raises UserError where the network or the input statistics are others, and where the
    classes are, but there is no step to learn them in."""
    facts, state = read(path)
    if facts.variant != net.variant:
        raise UserError(f"`pretrained` (={path.name}) is {facts.variant}, the run's network {net.variant}; they must be equal.")
    for name in ("mean", "std"):
        theirs, ours = getattr(facts.input, name), getattr(recipe, name)
        if max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) > 1e-4:
            raise UserError(f"`{name}` (={ours}) of the recipe must be that of `pretrained` {path.name}: {theirs}.")
    same = facts.num_classes == len(classes) and facts.classes in ((), tuple(classes))
    if not same and not recipe.clips_per_epoch:
        theirs = f"{facts.num_classes} classes" if facts.num_classes != len(classes) else "the same number of classes, of other names"
        raise UserError(f"`pretrained` (={path.name}) has {theirs}, the data set has {len(classes)}; a run of no steps tests it as it is: fine-tune it first.")
    kept = {name: tensor for name, tensor in state.items() if same or not name.startswith("head.")}
    net.load_state_dict({**net.state_dict(), **kept})
    set_eps(net, facts.eps)
    return facts.sha256


def set_eps(net: nn.Module, eps: float) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = eps


def write(path: str | Path, facts: Facts, state: Mapping[str, Tensor], **more: Any) -> None:
    """Write a network as our format, whole or not at all. more: plain values to tell beside the facts.

    Raises UserError where the disk refuses, and where `load` would refuse the file."""
    path, head = Path(path), state.get("head.fc.weight")
    try:
        from_metadata(metadata(facts)[HEADER], "")
    except UserError as error:
        raise UserError(f"{path} was not written, for the facts of the network are wrong: {error.__context__}.") from None
    has = 0 if head is None else len(head)
    require(has == facts.num_classes, "num_classes", facts.num_classes, f"of the facts must be that of the network, {has}")
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    write_atomic(path, safetensors.torch.save(tensors, metadata(facts, **more)))
