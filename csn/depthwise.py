"""Depthwise k x k x k convolution, C -> C in C groups: the cheap half of a channel-separated block, made fast.

Frameworks spend on it far more than its arithmetic: it moves much memory for few multiply-adds, and its gradients
have no kernel of their own in three dimensions. Here all three directions run in channels_last_3d (NDHWC), where the
C products of one position are contiguous:

    forward             one direct convolution
    gradient of input   the same, of the output gradient, with the filter reversed (spread with zeros for stride 2)
    gradient of weight  k two-dimensional convolutions' gradients, one per time shift, with frames as the batch

Sums are kept in float32 (float64 for float64 inputs), whatever the type of the inputs: results and gradients of float32 lie within 2e-5 of the
largest from float64's (the gradient of the weight: of maps up to 512 x 512), and stored 16-bit results within their rounding; torch's own
convolutions, where they are taken, within TF32's where torch.backends.cudnn.allow_tf32 lets them. On CUDA the fastest of these, torch's own
convolution and our Triton kernels is used (csn.depthwise_tune); on a CPU the choice is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from csn import depthwise_tune
from csn.spec import require

Triple = tuple[int, int, int]
NDHWC = torch.channels_last_3d
ATEN = torch.ops.aten


def depthwise_conv3d(x: Tensor, weight: Tensor, stride: Triple = (1, 1, 1)) -> Tensor:
    """Convolve each channel with its own filter, zero padding k // 2: (B, C, T, H, W) -> (B, C, T/s, H/s, W/s).

    x: any memory layout; B may be 0. weight: (C, 1, kT, kH, kW), odd sizes. stride: 1 or 2 per axis; a size that it does not
    divide is rounded up. The result has the type of x (of autocast, inside an autocast region) and the layout
    channels_last_3d. Differentiable in x and weight backwards and, by torch's own convolutions, twice and forwards. Raises UserError where a
    size breaks its rule.
    """
    require(x.ndim == 5, "x.ndim", x.ndim, "must be 5: (B, C, T, H, W)")
    require(all(n > 0 for n in x.shape[1:]), "x.shape", tuple(x.shape), "must have a channel, a frame, a row and a column at least")
    size = tuple(weight.shape)
    require(len(size) == 5 and size[1] == 1, "weight.shape", size, "must be (C, 1, kT, kH, kW)")
    require(size[0] == x.shape[1], "weight.shape", size, f"must start with the {x.shape[1]} channels of x")
    require(all(k % 2 == 1 for k in size[2:]), "weight.shape", size, "must have odd filter sizes")
    require(len(stride) == 3 and all(s in (1, 2) for s in stride), "stride", stride, "must be 1 or 2 on each of 3 axes")
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))  # the weight stays as it is: it costs no bandwidth
    if _dual(x) or _dual(weight):
        return _plain(x, weight, stride)
    return FORWARD(x, weight, stride)


class DepthwiseConv3d(nn.Module):
    """depthwise_conv3d, one 3x3x3 filter per channel; state dict as nn.Conv3d(groups=channels, bias=False).

    Attributes: weight (C, 1, 3, 3, 3), initialised as nn.Conv3d does; channels; stride.
    """

    def __init__(self, channels: int, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv3d(x, self.weight, self.stride)

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}"


# ---- the operators: types, shapes, gradients --------------------------------------------------------------------
# Bound without torch.library.custom_op, whose checks at every call cost more than a small layer. None returns an input.


def _forward(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    if x.is_cuda:
        with torch.cuda.device(x.device):
            return depthwise_tune.convolve(x, weight, stride)
    return _plain(x, weight, stride)


def _plain(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """The forward in torch's own operators, on any device."""
    wide = _wide(x)
    return convolve(wide, weight.to(wide.dtype), stride).to(x.dtype, memory_format=NDHWC)


def _grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> Tensor:
    if g.is_cuda:
        with torch.cuda.device(g.device):
            return depthwise_tune.grad_input(g, weight, sizes, stride)
    wide = _wide(g)
    return grad_input(wide, weight.to(wide.dtype), sizes, stride).to(g.dtype, memory_format=NDHWC)


def _grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    if g.is_cuda:
        with torch.cuda.device(g.device):
            return depthwise_tune.grad_weight(g, x, weight, stride)
    return grad_weight(_wide(g), _wide(x), weight.shape[2:], stride).to(weight.dtype)


def _fake_forward(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    size = [(n - 1) // s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    return x.new_empty((*x.shape[:2], *size)).to(memory_format=NDHWC)


def _fake_grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> Tensor:
    return g.new_empty((*g.shape[:2], *sizes)).to(memory_format=NDHWC)


def _fake_grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    return weight.new_empty(weight.shape)


def _define(name: str, schema: str, run: Callable[..., Tensor], fake: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch.library.define(f"csn::{name}", schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(f"csn::{name}", ("cpu", "cuda"), run)
    torch.library.register_fake(f"csn::{name}", fake)
    return getattr(torch.ops.csn, name).default


FORWARD = _define("depthwise_conv3d", "(Tensor x, Tensor weight, int[] stride) -> Tensor", _forward, _fake_forward)
GRAD_INPUT = _define("depthwise_conv3d_grad_input", "(Tensor g, Tensor weight, SymInt[] sizes, int[] stride) -> Tensor", _grad_input, _fake_grad_input)
GRAD_WEIGHT = _define("depthwise_conv3d_grad_weight", "(Tensor g, Tensor x, Tensor weight, int[] stride) -> Tensor", _grad_weight, _fake_grad_weight)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, ctx.stride = inputs
    ctx.sizes = x.shape[2:]
    ctx.save_for_backward(x if weight.requires_grad else None, weight)


def _backward(ctx, g: Tensor):  # type: ignore[no-untyped-def]
    x, weight = ctx.saved_tensors
    if torch.is_grad_enabled() or _dual(g):  # gradients are asked for that can be differentiated again
        again, (for_x, for_weight) = _wide(g), ctx.needs_input_grad[:2]
        gx = grad_input(again, weight.to(again.dtype), ctx.sizes, ctx.stride).to(g.dtype, memory_format=NDHWC) if for_x else None
        gw = grad_weight(again, _wide(x), weight.shape[2:], ctx.stride).to(weight.dtype) if for_weight else None
        return gx, gw, None
    gx = GRAD_INPUT(g, weight, ctx.sizes, ctx.stride) if ctx.needs_input_grad[0] else None
    gw = GRAD_WEIGHT(g, x, weight, ctx.stride) if ctx.needs_input_grad[1] else None
    return gx, gw, None


def _dual(t: Tensor) -> bool:
    """Whether t carries a derivative forwards, which an operator of one's own would drop without a word."""
    return unpack_dual(t).tangent is not None


torch.library.register_autograd("csn::depthwise_conv3d", _backward, setup_context=_save)


def _wide(t: Tensor) -> Tensor:
    """t in the type of the sums. (CPUs without 16-bit arithmetic emulate it, 25 times slower than this copy.)"""
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t


# ---- the arithmetic on a CPU, in torch's own operators ------------------------------------------------------------
# The choices are fixed: the best of eight ways (weight) and five (input), timed in turn on the
# layers of ir-CSN-50 with 1 and 2 threads (benchmarks/ways.py). Same inputs, same number of threads: same bits.

LONGEST = 2**18  # products that are added up one after the other in float32: after 1.6 million the error was seen to be 4e-5 of the sum


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """(B, C, T, H, W), (C, 1, kT, kH, kW) -> (B, C, T/s, H/s, W/s), channels_last_3d."""
    padding = [k // 2 for k in weight.shape[2:]]
    x = x.contiguous(memory_format=NDHWC)
    if x.shape[1] == 1:  # of one channel the strides of channels_last_3d make torch read beyond a map of one or two columns
        x = x.contiguous().view(-1).view(x.shape)
    return ATEN.convolution(x, weight, None, stride, padding, (1, 1, 1), False, (0, 0, 0), weight.shape[0])


def grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Output gradient (B, C, T/s, H/s, W/s) -> input gradient (B, C, *sizes)."""
    if tuple(stride) != (1, 1, 1):
        spread = torch.empty((*g.shape[:2], *sizes), dtype=g.dtype, device=g.device, memory_format=NDHWC).zero_()
        spread[:, :, :: stride[0], :: stride[1], :: stride[2]] = g
        g = spread
    return convolve(g, weight.flip((2, 3, 4)), (1, 1, 1))


def grad_weight(g: Tensor, x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Output gradient and input -> gradient of the weight, (C, 1, kT, kH, kW).

    The plane of time shift d is the weight gradient of a two-dimensional convolution over all pairs of frames
    (s t + d of x, t of g): many frames, one fast kernel.
    """
    frames_x = x.contiguous(memory_format=NDHWC).transpose(1, 2)  # B, T, C, H, W
    frames_g = g.contiguous(memory_format=NDHWC).transpose(1, 2)
    half = kernel[0] // 2
    planes = [_plane(frames_g, frames_x, d, kernel[1:], stride) for d in range(-half, half + 1)]
    return torch.stack(planes, 2)


def _plane(g: Tensor, x: Tensor, d: int, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Gradient of the filter's plane at time shift d, (C, 1, kH, kW), from frames (B, T, C, H, W)."""
    clips, frames = x.shape[:2]
    if clips > 1 and stride[0] == 1 and 0 < 2 * abs(d) < frames:
        # In memory the clips follow each other: shift them as one film, without a copy, and take away the pairs that
        # joined the end of one clip to the start of the next.
        n = clips * frames - abs(d)
        film_g = g.reshape(-1, *g.shape[2:]).narrow(0, max(-d, 0), n)
        film_x = x.reshape(-1, *x.shape[2:]).narrow(0, max(d, 0), n)
        ends, starts = slice(frames - abs(d), None), slice(abs(d))
        seam_g, seam_x = (g[:-1, ends], x[1:, starts]) if d > 0 else (g[1:, starts], x[:-1, ends])
        return _plane_of_pairs(film_g, film_x, kernel, stride) - _plane_of_pairs(seam_g, seam_x, kernel, stride)
    begin = (max(-d, 0) + stride[0] - 1) // stride[0]  # the first output frame whose input frame exists
    end = min(g.shape[1], (frames - 1 - d) // stride[0] + 1)
    if begin >= end:
        return g.new_zeros((g.shape[2], 1, *kernel))
    partners = slice(begin * stride[0] + d, (end - 1) * stride[0] + d + 1, stride[0])
    return _plane_of_pairs(g[:, begin:end], x[:, partners], kernel, stride)


def _plane_of_pairs(g: Tensor, x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Gradient of a two-dimensional depthwise filter, (C, 1, kH, kW), from pairs of frames (.., C, H, W)."""
    g, x = g.reshape(-1, *g.shape[-3:]), x.reshape(-1, *x.shape[-3:])
    frames = max(1, LONGEST // (g.shape[-2] * g.shape[-1]))
    if len(g) > frames:
        return sum(_plane_of_pairs(*pairs, kernel, stride) for pairs in zip(g.split(frames), x.split(frames), strict=True))  # type: ignore[return-value]
    channels = x.shape[1]
    weight = x.new_empty((channels, 1, *kernel))  # only its size is read
    padding, mask = [k // 2 for k in kernel], (False, True, False)
    args = (None, stride[1:], padding, (1, 1), False, (0, 0), channels, mask)
    return ATEN.convolution_backward(g, x, weight, *args)[1]
