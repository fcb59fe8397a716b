"""Batch norm of a convolution's result, with the ReLU and the residual sum that follow it: relu(norm(y) + other).

Commonly these are torch's own operators. Within `fused` they are, on CUDA, one operation of our kernels
(csn.norm_triton): a network spends more time on these maps than on the convolutions between them, and torch's operators read and
write each about twice as often as needed. In training they are more kernels, though, and a processor takes longer to start those than
they take: csn.graph, where that costs nothing, turns them on. torch.compile fuses the operators itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NDHWC = torch.channels_last_3d
_fused = ContextVar("fused", default=False)


@contextmanager
def fused() -> Iterator[None]:
    """Within it, batch norm on CUDA, in training or in eval mode without gradients, is computed by our kernels; so are pool1 and the blocks of
    pixels before conv1 (csn.stem)."""
    token = _fused.set(True)
    try:
        yield
    finally:
        _fused.reset(token)


def normalised(norm: nn.BatchNorm3d, y: Tensor, relu: bool, other: Tensor | None = None) -> Tensor:
    """norm(y) or, where relu, relu(norm(y)), or, where other is given, of y's shape, relu(norm(y) + other): (B, C, T, H, W).

    The running statistics follow as in norm's own call. y is given up: without gradients the result may lie in its memory.
    """
    if ours(norm, y):
        with torch.cuda.device(y.device):
            if not norm.training:
                return evaluated(norm, y, relu, other)
            return Fused.apply(y, norm.weight, norm.bias, other, relu or other is not None, norm)  # type: ignore[no-untyped-call]
    z = norm(y)
    if other is not None:
        z = z.add_(other)
    return torch.relu_(z) if relu or other is not None else z


def ours(norm: nn.BatchNorm3d, y: Tensor) -> bool:
    """Whether our kernels do it: within `fused`, on CUDA, channels_last_3d, in at most 32 bits, affine, with running statistics; in eval
    mode where no gradients are wanted.

    Of torch's own batch norm alone: another kind (SyncBatchNorm) computes something else, and one with hooks is to be called.
    """
    return (
        with_triton(y)
        and type(norm) is nn.BatchNorm3d
        and not norm._forward_hooks
        and not norm._forward_pre_hooks
        and (norm.training or not torch.is_grad_enabled())
        and y.is_contiguous(memory_format=NDHWC)
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and y.numel() > y.shape[1]  # of one value there is no variance: torch says so
    )


def with_triton(x: Tensor) -> bool:
    """Whether kernels of ours beside convolutions take x: within `fused`, on CUDA, in at most 32 bits, run now and not traced by torch.compile."""
    return not torch.compiler.is_compiling() and _fused.get() and _triton_there() and x.is_cuda and x.dtype in (torch.float32, torch.bfloat16, torch.float16)


@cache
def _triton_there() -> bool:
    return find_spec("triton") is not None


def evaluated(norm: nn.BatchNorm3d, y: Tensor, relu: bool, other: Tensor | None) -> Tensor:
    """normalised in eval mode by our kernel, in y's memory. No gradients."""
    from csn import norm_triton

    other = None if other is None else other.contiguous(memory_format=NDHWC)
    return norm_triton.affine(y, other, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, relu or other is not None)  # type: ignore[arg-type]


class Fused(torch.autograd.Function):
    """normalised by our kernels. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, relu: bool, norm: nn.BatchNorm3d) -> Tensor:
        from csn import norm_triton

        other = None if other is None else other.contiguous(memory_format=NDHWC)
        running = norm.running_mean, norm.running_var, norm.num_batches_tracked
        z, moments = norm_triton.forward(y, other, weight, bias, running, norm.momentum, norm.eps, relu)  # type: ignore[arg-type]
        ctx.relu = relu
        ctx.save_for_backward(y, z if other is not None else None, moments, weight, bias)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        from csn import norm_triton

        y, z, moments, weight, bias = ctx.saved_tensors
        with torch.cuda.device(y.device):
            gy, other, (gb, gw) = norm_triton.backward(g.contiguous(memory_format=NDHWC), y, z, moments, weight, bias, ctx.relu)
        return gy, gw, gb, other, None, None
