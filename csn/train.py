"""The one training loop: SGD with Nesterov momentum, warm-up then half a cosine, a fixed global batch, exact resume.

The global batch of the Recipe is reached as world size x accumulation x micro-batch. The micro-batch fixes the batch-norm
statistics, and the running statistics follow the order of the micro-batches in the step, so the mathematics of a step is
the same on any number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, isfinite, pi
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from csn import checkpoints
from csn.checkpoints.network import start
from csn.data import Split
from csn.data.loader import MOST_DAMAGED, Reader, normalise, too_many, train_batches
from csn.exchange import Exchange, meet, reduced, united
from csn.graph import Graphed
from csn.memory import Growth, keep_memory
from csn.resnet3d import build, start_as_shortcuts
from csn.spec import Recipe, Run, UserError, require


class Stopped(Exception):
    """Training was asked to stop and has saved its state; running it again goes on from there."""


class Diverged(Exception):
    """The loss is not a finite number any more. The same Run would diverge again."""


@dataclass
class Place:
    """Where a run computes: nothing here changes its result (beyond rounding).

    device; rank and size of this process among those that share the run; workers: loader processes; checkpoint_every:
    seconds between checkpoints; stop(): whether to save and leave; report(**facts): progress, about once a second, with
    the step at which this sitting's training began (first_step) and its seconds since then (training).
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1
    workers: int = 0
    checkpoint_every: float = 60.0
    stop: Callable[[], bool] = lambda: False
    report: Callable[..., None] = lambda **_: None


@dataclass
class Trained:
    """net: the final network. history: one dict an epoch (epoch, lr, loss, clip_top1 while training). damaged: videos that
    were replaced. broken: checkpoints found damaged at the start. seconds: of training, all sittings together. pretrained:
    SHA-256 of the file it began from, "" without one. compiling: seconds of this sitting's first micro-batch, where the recipe
    compiles. memory: bytes a clip of a micro-batch that the steps of this sitting added to what the process held with the network
    built: feature maps, gradients, momentum; None without a step, or where the process held as much before."""

    net: nn.Module
    history: list[dict[str, float]]
    damaged: list[str]
    broken: list[str]
    seconds: float
    pretrained: str = ""
    compiling: float | None = None
    memory: float | None = None


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear rise over the warm-up epochs, then half a cosine towards 0, which it would reach one step after the last."""
    warm, total = recipe.warmup * recipe.steps_per_epoch, recipe.epochs * recipe.steps_per_epoch
    if step < warm:
        return recipe.lr * (step + 1) / warm
    return recipe.lr * 0.5 * (1 + cos(pi * (step - warm) / (total - warm)))


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Nesterov SGD; decay on convolution and classifier weights and BN gamma, none on biases and BN beta."""
    decay = [p for name, p in net.named_parameters() if not name.endswith("bias")]
    free = [p for name, p in net.named_parameters() if name.endswith("bias")]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True, fused=True)


def freeze(net: nn.Module) -> None:
    """Fix batch norm: its statistics, gamma and beta. Call it after net.train().

    The authors' released fine-tuning leaves batch norm in training (VMZ tools/train_net.py), so a Recipe does by default; the
    released fine-tuning of these networks from IG-65M by MMAction2 fixes all four (norm_eval and bn_frozen), as this does.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval().requires_grad_(False)


def compiled(net: nn.Module, device: torch.device) -> Callable[..., torch.Tensor]:
    """net through torch.compile: the first call of each input size takes a minute or more. Raises UserError without a compiler."""
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise UserError("`compile` (=True) needs a C++ compiler on a CPU; install g++, or train without it.") from None
    return torch.compile(net)


def train(run: Run, split: Split, reader: Reader, folder: Path, place: Place, pretrained: Path | None = None) -> Trained:
    """Train run on split, resuming from the newest whole checkpoint of folder, to the last epoch. pretrained: the file of a
    recipe that names one; it has to be there, unchanged, in every sitting.

    Raises Stopped after saving when place.stop() says so, Diverged when the loss is not finite, UserError for what a
    person can mend. On a CPU with the same number of threads, interrupted and resumed equals uninterrupted, bit for bit.
    """
    recipe, device = run.recipe, place.device
    blocks = recipe.batch // recipe.micro_batch
    require(blocks % place.size == 0, "processes", place.size, f"must divide the {blocks} micro-batches of a step")
    if device.type == "cpu":
        keep_memory()
    torch.manual_seed(run.seed)
    net = build(run.variant, len(split.classes), recipe.frames)
    if recipe.zero_gamma:
        start_as_shortcuts(net)
    sha256 = start(net, pretrained, recipe, split.classes) if pretrained else ""
    net = net.to(device).to(memory_format=torch.channels_last_3d).train()
    if recipe.freeze_bn:
        freeze(net)
    sgd = optimizer(net, recipe)
    step, history, damaged, seconds = 0, [], set[str](), 0.0
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, hits of this epoch, this rank's share
    state, broken = checkpoints.load(folder)
    if state is not None:
        if state.get("run", run.name) != run.name:
            raise UserError(f"{folder} holds a checkpoint of {state['run']}, not of {run.name}; give another folder, or delete this one.")
        if state.get("pretrained", "") != sha256:
            raise UserError(f"`pretrained` (={recipe.pretrained}) is not the file this run began from; bring that back, or delete {folder}.")
        if state.get("data", split.fingerprint) != split.fingerprint:
            raise UserError(f"The training videos of {recipe.data.kind} are not those that this run began with; bring those back, or delete {folder}.")
        net.load_state_dict(state["net"])
        sgd.load_state_dict(state["sgd"])
        step, history, damaged, seconds = state["step"], state["history"], set(state["damaged"]), state["seconds"]
        sums += state["sums"].to(device) if place.rank == 0 else 0
    forward = compiled(net, device) if recipe.compile else net

    def learn(clips: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a micro-batch to the gradients and to sums."""
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = forward(normalise(clips, recipe))
        loss = F.cross_entropy(logits.float(), labels)
        (loss * (1 / blocks)).backward()  # the sum over all micro-batches of all processes is the mean over the batch
        sums.add_(torch.stack([loss.detach().double() * len(labels), (logits.argmax(1) == labels).sum().double()]))

    work = Graphed(learn) if device.type == "cuda" and not recipe.compile else learn

    def save() -> None:
        total = reduced(sums, place)
        if place.rank == 0:
            spent = seconds + time.monotonic() - began
            state = {"run": run.name, "net": net.state_dict(), "sgd": sgd.state_dict(), "step": step, "history": history, "pretrained": sha256}
            state |= {"data": split.fingerprint, "damaged": sorted(damaged), "seconds": spent, "sums": total.cpu()}
            checkpoints.save(folder, state)

    growth = Growth(device)
    began = saved = reported = time.monotonic()
    batches = train_batches(split, recipe, run.seed, step, reader, place.rank, place.size, place.workers, device.type == "cuda")
    steps = recipe.epochs * recipe.steps_per_epoch
    if place.size > 1:
        meet(step, place, folder)
    exchange = Exchange(net, place, blocks // place.size) if place.size > 1 else None
    first_step, compiling = step, None
    fresh = exchange is None and (blocks == 1 or not isinstance(work, Graphed))  # gradients are made anew in every step, not added to
    if (recipe.compile or device.type == "cuda") and step < steps:  # on CUDA kernels of ours, at first use
        place.report(phase="compile")
    while step < steps:
        for group in sgd.param_groups:
            group["lr"] = learning_rate(recipe, step)
        if not (fresh and isinstance(work, Graphed) and work.graph):  # a graph that made them writes over them
            sgd.zero_grad(set_to_none=fresh)
        for _ in range(blocks // place.size):
            clips, labels, bad = next(batches)
            damaged.update(bad)
            if len(damaged) > MOST_DAMAGED * len(split.samples):
                raise UserError(too_many(len(damaged), len(split.samples)))
            clips, labels = clips.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            work(clips, labels)
            if recipe.compile and compiling is None:
                compiling = time.monotonic() - began
        if exchange is not None:
            exchange.add_up()
        sgd.step()
        step += 1
        now = time.monotonic()
        stop, due = place.stop(), now - saved > place.checkpoint_every
        if exchange is not None:
            stop, due = exchange.merge(stop, due)
        epoch_ends = step % recipe.steps_per_epoch == 0
        if exchange is not None and (epoch_ends or stop or due):
            damaged = united(damaged, place)
            if len(damaged) > MOST_DAMAGED * len(split.samples):
                raise UserError(too_many(len(damaged), len(split.samples)))
        if epoch_ends or now - reported > 1:
            loss_sum, hits = reduced(sums, place).tolist() if epoch_ends else (sums * place.size).tolist()
            seen = recipe.batch * ((step - 1) % recipe.steps_per_epoch + 1)
            # several processes look at the sum they share only, so that all leave together
            if not isfinite(loss_sum) and (epoch_ends or place.size == 1):
                epoch = (step - 1) // recipe.steps_per_epoch + 1
                raise Diverged(f"the loss is {loss_sum} in epoch {epoch} of {recipe.epochs}, by step {step} of {steps}")
            facts = {"loss": loss_sum / seen, "clip_top1": 100 * hits / seen}
            sitting = {"first_step": first_step, "training": now - began}
            place.report(phase="train", step=step, steps=steps, epoch=(step - 1) // recipe.steps_per_epoch + 1, epochs=recipe.epochs, **sitting, **facts)
            reported = now
        if epoch_ends:
            history.append({"epoch": step // recipe.steps_per_epoch, "lr": learning_rate(recipe, step - 1), **facts})
            sums.zero_()
        if stop or due or step == steps:
            save()
            saved = time.monotonic()
        if stop and step < steps:
            raise Stopped(f"stopped at step {step} of {steps}")
    memory = growth.bytes() / recipe.micro_batch if step > first_step else 0
    sgd.zero_grad()  # a graph's own would hold the memory of all its maps
    return Trained(net, history, sorted(damaged), broken, seconds + time.monotonic() - began, sha256, compiling, memory if memory > 0 else None)
