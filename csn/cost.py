"""Cost of any nn.Module, counted from one forward on the meta device: no memory, no arithmetic.

For a k x k x k convolution, C_in -> C_out in G groups, output T x H x W (paper, section 3):
    parameters   = C_out (C_in / G) k^3
    FLOPs        = C_out (C_in / G) k^3 T H W      multiply-adds; convolutions and fully connected layers only
    interactions = C_out binom(C_in / G, 2)        pairs of input channels that an output filter connects
A fully connected layer has parameters and FLOPs; it counts interactions only when written as a convolution.
Operators are seen where they are dispatched, so functional calls count too; what cannot be counted is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import comb, prod
from operator import index
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from csn.spec import UserError

ATEN = torch.ops.aten
# Multiply-adds that are neither a convolution nor a fully connected layer: outside the convention, so reported.
UNCOUNTED = ("bmm", "baddbmm", "_scaled_dot_product", "_native_multi_head_attention", "_transformer_encoder", "lstm", "gru", "rnn")


@dataclass(frozen=True)
class Layer:
    """One convolution or fully connected layer. shape: of its output, without the batch axis."""

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    flops: int
    interactions: int


@dataclass(frozen=True)
class Cost:
    """params: weights only, as papers print them; params_all: with batch norm and biases. flops: multiply-adds for
    one input. interactions: of the convolutions. layers: in order of execution. uncounted: what was seen and not
    counted, a sentence each; empty when the count is complete.
    """

    input: tuple[int, ...]
    params: int
    params_all: int
    flops: int
    interactions: int
    layers: tuple[Layer, ...] = field(repr=False)
    uncounted: tuple[str, ...] = ()

    @property
    def gmacs(self) -> float:
        """FLOPs in 10^9 multiply-adds."""
        return self.flops / 1e9


class Counter(TorchDispatchMode):
    """Notes every convolution and matrix product, with the module that asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = [""]
        self.layers: list[Layer] = []
        self.uncounted: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet, name = func.overloadpacket, self.stack[-1]
        # one input has one item in its batch, unless a module folds frames into that axis, as TSN and TSM do
        if packet is ATEN.convolution:
            x, weight, transposed = args[0], args[1], args[6]
            if transposed:  # weight (C_in, C_out/G, k..): every input position meets every weight
                groups = args[8]
                flops, inter = weight.numel() * x.shape[0] * prod(x.shape[2:]), weight.shape[1] * groups * comb(weight.shape[0] // groups, 2)
            else:
                flops, inter = weight.numel() * out.shape[0] * prod(out.shape[2:]), weight.shape[0] * comb(weight.shape[1], 2)
            self.add(f"conv{x.ndim - 2}d", out, weight.numel(), flops, inter)
        elif str(packet) == "csn.depthwise_conv3d":
            self.add("conv3d", out, args[1].numel(), args[1].numel() * out.shape[0] * prod(out.shape[2:]), 0)
        elif packet in (ATEN.addmm, ATEN.mm):
            a, b = args[-2:] if packet is ATEN.mm else args[1:3]
            self.add("linear", out, b.numel(), a.shape[0] * b.numel(), 0)
        elif packet.__name__.startswith(UNCOUNTED):
            self.uncounted.append(f"{packet.__name__} in {name or 'the module itself'}")
        return out

    def add(self, kind: str, out: Tensor, params: int, flops: int, interactions: int) -> None:
        self.layers.append(Layer(self.stack[-1], kind, tuple(out.shape[1:]), params, flops, interactions))


def count(module: nn.Module, shape: Sequence[int]) -> Cost:
    """Cost of module on one input of `shape` without its batch axis, e.g. (3, 8, 224, 224).

    The module, of whatever type of floats, is left as it was. Raises UserError if it does not run on that shape.
    """
    try:
        shape = tuple(index(size) for size in shape)
    except TypeError:
        raise UserError(f"`shape` must be the sizes of one input, as (3, 8, 224, 224), and is a {type(shape).__name__}.") from None
    counter = Counter()

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: counter.stack.append(name)

    handles = []
    for name, child in module.named_modules():
        handles.append(child.register_forward_pre_hook(enter(name)))
        handles.append(child.register_forward_hook(lambda *_: counter.stack.pop() and None, always_call=True))
    training = {m: m.training for m in module.modules()}
    state = {
        n: torch.empty_like(t, device="meta", dtype=torch.get_default_dtype() if t.is_floating_point() else t.dtype)  # that of the input
        for n, t in [*module.named_parameters(), *module.named_buffers()]
    }
    try:
        module.eval()
        with torch.inference_mode(False), torch.no_grad(), counter:  # in inference mode some operators would not be seen
            functional_call(module, state, (torch.empty((1, *shape), device="meta"),))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"`shape` (={tuple(shape)}) does not run through {type(module).__name__}: {reason}") from None
    finally:
        for handle in handles:
            handle.remove()
        for m, mode in training.items():
            m.training = mode
    return Cost(
        input=tuple(shape),
        params=sum(p.numel() for p in module.parameters() if p.ndim > 1),
        params_all=sum(p.numel() for p in module.parameters()),
        flops=sum(layer.flops for layer in counter.layers),
        interactions=sum(layer.interactions for layer in counter.layers),
        layers=tuple(counter.layers),
        uncounted=(*counter.uncounted, *never_seen(module, counter)),
    )


def never_seen(module: nn.Module, counter: Counter) -> list[str]:
    """Modules with weights (two axes or more) whose work the counter did not see."""
    seen = {layer.name for layer in counter.layers}
    return [
        f"{type(m).__name__} {name or 'itself'}"
        for name, m in module.named_modules()
        if name not in seen and any(p.ndim > 1 for p in m.parameters(recurse=False))
    ]
