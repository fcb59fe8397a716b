"""Triton kernels for batch norm, with the ReLU and the residual sum beside it, on CUDA, channels_last_3d in memory.

A map is read as N = B T H W rows of C channels. torch has a kernel for each of statistics, scaling, sum and ReLU, and the same
backwards, and takes 3 to 6 times as long (results/benchmarks/norm_gpu_bf16_32.csv); here a map is read and written as often as it must be:

    forward     statistics: read y          scale, sum, ReLU: read y (and the other branch), write z
    backward    sums: read g and y          input gradient: read g and y, write gy
                (with a sum, read z and write the other branch's gradient, which is g behind the ReLU)
    in eval     read y (and the other branch), write the result over y

Sums are float32 and have a fixed order: each program adds up its own rows, another kernel the programs' sums. The statistics are sums of
differences from the first row, so that a mean far from zero costs no digits; a first row that is itself d deviations from the mean costs the
variance about d squared times float32's rounding. Run with TRITON_INTERPRET=1 the kernels are
computed on the CPU.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (a kernel is a language of its own: its arguments are pointers and numbers of the device)
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from csn.depthwise_triton import _float

NDHWC = torch.channels_last_3d
BLOCK = 64  # channels of a program at most: a row of them is one or two lines of memory
TILE = 2048  # elements of a program at a time: 16 of a thread
WARPS = 4
PROGRAMS = 528  # that sum up rows, at most, about: four for each of the 132 multiprocessors of an H100
SUMS = 256  # programs whose sums are added up at a time
ROWS = ("N", "programs")  # one compilation serves maps of every size


@triton.jit
def _rows_of(start, N, c, C: tl.constexpr, TALL: tl.constexpr):
    """Offsets of the rows from start on, (TALL, BLOCK), and whether they are there."""
    rows = tl.arange(0, TALL)
    inside = (start + rows < N)[:, None]
    if tl.constexpr(C) % c.shape[0] != 0:
        inside = inside & (c < C)[None, :]
    return rows[:, None] * C + c[None, :], inside


@triton.jit(do_not_specialize=ROWS)
def statistics_kernel(y, partial, N, C: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr):
    """partial[program, 0 and 1, c]: sums over this program's rows of y - y[0] and of its square."""
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    shift = _float(tl.load(y + c, c < C, 0.0))[None, :]
    first = tl.zeros((TALL, WIDE), tl.float32)
    second = tl.zeros((TALL, WIDE), tl.float32)
    for start in range(tl.program_id(0) * TALL, N, tl.num_programs(0) * TALL):
        offsets, inside = _rows_of(start, N, c, C, TALL)
        v = tl.where(inside, _float(tl.load(y + tl.cast(start, tl.int64) * C + offsets, inside, 0.0)) - shift, 0.0)
        first += v
        second += v * v
    out = partial + tl.program_id(0) * 2 * C + c
    tl.store(out, tl.sum(first, 0), c < C)
    tl.store(out + C, tl.sum(second, 0), c < C)


@triton.jit
def _totals(partial, programs, c, C: tl.constexpr, SUMS: tl.constexpr):
    """The two sums over all programs: (BLOCK,), (BLOCK,)."""
    first = tl.zeros((SUMS, c.shape[0]), tl.float32)
    second = tl.zeros((SUMS, c.shape[0]), tl.float32)
    for start in range(0, programs, SUMS):
        one = start + tl.arange(0, SUMS)
        at = partial + one[:, None] * (2 * C) + c[None, :]
        inside = (one < programs)[:, None] & (c < C)[None, :]
        first += tl.load(at, inside, 0.0)
        second += tl.load(at + C, inside, 0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit(do_not_specialize=ROWS)
def moments_kernel(y, partial, moments, mean_of_all, var_of_all, count, N, programs, momentum, eps, C: tl.constexpr, WIDE: tl.constexpr, SUMS: tl.constexpr):
    """moments: mean and 1 / sqrt(variance + eps), (2, C); the running statistics follow, the variance unbiased, and count grows by 1."""
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    first, second = _totals(partial, programs, c, C, SUMS)
    away = first / N
    mean = _float(tl.load(y + c, c < C, 0.0)) + away
    var = second / N - away * away
    var = tl.where(var < 0.0, 0.0, var)  # what is no number stays so
    tl.store(moments + c, mean, c < C)
    tl.store(moments + C + c, 1.0 / tl.sqrt_rn(var + eps), c < C)
    old_mean, old_var = tl.load(mean_of_all + c, c < C, 0.0), tl.load(var_of_all + c, c < C, 0.0)
    tl.store(mean_of_all + c, old_mean + momentum * (mean - old_mean), c < C)
    tl.store(var_of_all + c, old_var + momentum * (var * (N / (N - 1.0)) - old_var), c < C)
    if tl.program_id(0) == 0:
        tl.store(count, tl.load(count) + 1)


@triton.jit
def _scaled(v, moments, weight, bias, c, C: tl.constexpr):
    """(v - mean) / deviation, and that times the weight plus the bias: (TALL, BLOCK) each."""
    mean, inverse = tl.load(moments + c, c < C, 0.0)[None, :], tl.load(moments + C + c, c < C, 0.0)[None, :]
    gamma, beta = tl.load(weight + c, c < C, 0.0)[None, :], tl.load(bias + c, c < C, 0.0)[None, :]
    normal = (v - mean) * inverse
    return normal, normal * gamma + beta


@triton.jit(do_not_specialize=ROWS)
def scale_kernel(y, other, z, moments, weight, bias, N, C: tl.constexpr, RELU: tl.constexpr, SUM: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr):
    """z = weight (y - mean) / deviation + bias, plus other where SUM, and no less than 0 where RELU."""
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    start = tl.program_id(0) * TALL
    offsets, inside = _rows_of(start, N, c, C, TALL)
    at = tl.cast(start, tl.int64) * C
    _, v = _scaled(_float(tl.load(y + at + offsets, inside, 0.0)), moments, weight, bias, c, C)
    if SUM:
        v += _float(tl.load(other + at + offsets, inside, 0.0))
    if RELU:
        v = tl.where(v < 0.0, 0.0, v)  # what is no number stays so
    tl.store(z + at + offsets, v.to(z.dtype.element_ty), inside)


@triton.jit(do_not_specialize=ROWS)
def affine_kernel(
    y, other, mean, var, weight, bias, eps, N, C: tl.constexpr, RELU: tl.constexpr, SUM: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """y = weight (y - mean) / deviation + bias, plus other where SUM, and no less than 0 where RELU, by statistics that are given."""
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    start = tl.program_id(0) * TALL
    offsets, inside = _rows_of(start, N, c, C, TALL)
    at = tl.cast(start, tl.int64) * C
    v = _float(tl.load(y + at + offsets, inside, 0.0))
    factor = tl.load(weight + c, c < C, 0.0) / tl.sqrt_rn(tl.load(var + c, c < C, 1.0) + eps)
    v = (v - tl.load(mean + c, c < C, 0.0)[None, :]) * factor[None, :] + tl.load(bias + c, c < C, 0.0)[None, :]
    if SUM:
        v += _float(tl.load(other + at + offsets, inside, 0.0))
    if RELU:
        v = tl.where(v < 0.0, 0.0, v)  # what is no number stays so
    tl.store(y + at + offsets, v.to(y.dtype.element_ty), inside)


@triton.jit(do_not_specialize=ROWS)
def sums_kernel(
    g, y, z, masked, partial, moments, weight, bias, N,
    C: tl.constexpr, RELU: tl.constexpr, SUM: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """partial[program, 0 and 1, c]: sums over this program's rows of the gradient behind the ReLU, and of it times (y - mean) / deviation.

    Where SUM, that gradient is the other branch's too and is written to masked; whether the ReLU was open is then seen in z."""
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    first = tl.zeros((TALL, WIDE), tl.float32)
    second = tl.zeros((TALL, WIDE), tl.float32)
    for start in range(tl.program_id(0) * TALL, N, tl.num_programs(0) * TALL):
        offsets, inside = _rows_of(start, N, c, C, TALL)
        at = tl.cast(start, tl.int64) * C
        v = _float(tl.load(g + at + offsets, inside, 0.0))
        normal, scaled = _scaled(_float(tl.load(y + at + offsets, inside, 0.0)), moments, weight, bias, c, C)
        if SUM:
            v = tl.where(_float(tl.load(z + at + offsets, inside, 0.0)) > 0.0, v, 0.0)
            tl.store(masked + at + offsets, v.to(masked.dtype.element_ty), inside)
        elif RELU:
            v = tl.where(scaled > 0.0, v, 0.0)
        first += v
        second += v * normal
    out = partial + tl.program_id(0) * 2 * C + c
    tl.store(out, tl.sum(first, 0), c < C)
    tl.store(out + C, tl.sum(second, 0), c < C)


@triton.jit(do_not_specialize=ROWS)
def totals_kernel(partial, totals, programs, C: tl.constexpr, WIDE: tl.constexpr, SUMS: tl.constexpr):
    """totals: the two sums over all programs, (2, C), the gradients of bias and weight."""
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    first, second = _totals(partial, programs, c, C, SUMS)
    tl.store(totals + c, first, c < C)
    tl.store(totals + C + c, second, c < C)


@triton.jit(do_not_specialize=ROWS)
def gradient_kernel(g, y, gy, totals, moments, weight, bias, N, C: tl.constexpr, RELU: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr):
    """gy = weight / deviation (g - mean of g - normal mean of (g normal)), normal = (y - mean) / deviation, g behind the ReLU where RELU."""
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    start = tl.program_id(0) * TALL
    offsets, inside = _rows_of(start, N, c, C, TALL)
    at = tl.cast(start, tl.int64) * C
    v = _float(tl.load(g + at + offsets, inside, 0.0))
    normal, scaled = _scaled(_float(tl.load(y + at + offsets, inside, 0.0)), moments, weight, bias, c, C)
    if RELU:
        v = tl.where(scaled > 0.0, v, 0.0)
    first, second = tl.load(totals + c, c < C, 0.0)[None, :] / N, tl.load(totals + C + c, c < C, 0.0)[None, :] / N
    factor = (tl.load(weight + c, c < C, 0.0) * tl.load(moments + C + c, c < C, 0.0))[None, :]
    tl.store(gy + at + offsets, (factor * (v - first - normal * second)).to(gy.dtype.element_ty), inside)


def _shape(y: Tensor) -> tuple[int, int, int, int]:
    """(rows, channels, rows of a tile, channels of a tile) of a map (B, C, T, H, W)."""
    c = y.shape[1]
    wide = min(triton.next_power_of_2(c), BLOCK)
    return y.numel() // c, c, TILE // wide, wide


def _summing(n: int, c: int, tall: int, wide: int) -> tuple[int, int]:
    """The grid of a kernel that sums up rows: programs, blocks of channels."""
    blocks = triton.cdiv(c, wide)
    return min(triton.cdiv(n, tall), max(PROGRAMS // blocks, 1)), blocks


def _few(c: int) -> dict[str, int]:
    """Of a kernel that adds up the programs' sums: many programs of few channels, for they wait for memory."""
    return {"WIDE": min(triton.next_power_of_2(c), 16), "SUMS": SUMS, "num_warps": 4}


def forward(
    y: Tensor, other: Tensor | None, weight: Tensor, bias: Tensor, running: tuple[Tensor, Tensor, Tensor], momentum: float, eps: float, relu: bool
) -> tuple[Tensor, Tensor]:
    """relu(batch norm of y + other), of y's type, and the moments (2, C) that the gradients need: mean and 1 / deviation.

    y, other: (B, C, T, H, W), channels_last_3d; running: mean, variance and count, updated. other only with relu.
    """
    n, c, tall, wide = _shape(y)
    programs, blocks = _summing(n, c, tall, wide)
    partial = torch.empty((programs, 2, c), dtype=torch.float32, device=y.device)
    moments = torch.empty((2, c), dtype=torch.float32, device=y.device)
    z = torch.empty_like(y)
    statistics_kernel[(programs, blocks)](y, partial, n, c, tall, wide, num_warps=WARPS)
    few = _few(c)
    moments_kernel[(triton.cdiv(c, few["WIDE"]),)](y, partial, moments, *running, n, programs, momentum, eps, c, **few)
    scale_kernel[(triton.cdiv(n, tall), blocks)](
        y, z if other is None else other, z, moments, weight, bias, n, c, relu, other is not None, tall, wide, num_warps=WARPS
    )
    return z, moments


def backward(g: Tensor, y: Tensor, z: Tensor | None, moments: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of y, of the other branch (None where z is) and of bias and weight (2, C), from that of the result.

    g, y, z: channels_last_3d; z: the result, where another branch was added.
    """
    n, c, tall, wide = _shape(y)
    programs, blocks = _summing(n, c, tall, wide)
    partial = torch.empty((programs, 2, c), dtype=torch.float32, device=y.device)
    totals = torch.empty((2, c), dtype=torch.float32, device=y.device)
    masked = None if z is None else torch.empty_like(g)
    gy = torch.empty_like(y)
    sums_kernel[(programs, blocks)](
        g, y, y if z is None else z, g if masked is None else masked, partial, moments, weight, bias, n,
        c, relu, z is not None, tall, wide, num_warps=WARPS,
    )  # fmt: skip
    few = _few(c)
    totals_kernel[(triton.cdiv(c, few["WIDE"]),)](partial, totals, programs, c, **few)
    gradient_kernel[(triton.cdiv(n, tall), blocks)](
        g if masked is None else masked, y, gy, totals, moments, weight, bias, n, c, relu and z is None, tall, wide, num_warps=WARPS
    )
    return gy, masked, totals


def affine(y: Tensor, other: Tensor | None, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, relu: bool) -> Tensor:
    """relu(batch norm of y by given statistics + other), written over y. y, other: (B, C, T, H, W), channels_last_3d; other only with relu."""
    n, c, tall, wide = _shape(y)
    grid = triton.cdiv(n, tall), triton.cdiv(c, wide)
    affine_kernel[grid](y, y if other is None else other, mean, var, weight, bias, eps, n, c, relu, other is not None, tall, wide, num_warps=WARPS)
    return y
