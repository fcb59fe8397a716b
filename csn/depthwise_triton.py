"""Triton kernels for the depthwise 3x3x3 convolution on CUDA, channels_last_3d in memory: (B, T, H, W, C).

A program owns a tile of one plane, P positions x BLOCK channels, and walks through time. The 27 coefficients of its
channels stay in registers. Each input frame is read at its nine spatial taps, eight of them from cache, and serves three
outputs at once, kept in registers: so every input crosses the device memory about once. Sums are float32. No atomics: the
same inputs give the same bits. Run with TRITON_INTERPRET=1 the kernels are computed on the CPU.

Measured so far is the machine code only, compiled for sm_90 by Triton 3.8 from bfloat16, not the time on a GPU. Nothing spills.
Global loads and registers of a thread, in the loop over time (tilings of 4 elements a thread, then of 2):
    forward_kernel, stride 1    9 loads an input frame, 176 and 114 registers
    forward_kernel, stride 2    18 loads an output frame, 206 and 128 registers
    scatter_kernel, stride 2    8 loads for 8 input gradients, 204 and 104 registers
    weight_kernel               12 loads an input frame, 170 to 197 registers
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disable-error-code="assignment"
# (a kernel is a language of its own: its arguments are pointers and numbers of the device)
from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

NDHWC = torch.channels_last_3d
Config = tuple[int, int, int]  # positions, channels, warps of a program
# At most 4 elements a thread: with the coefficients, more do not fit its registers. The first of each is a guess until measured.
MAP_CONFIGS: tuple[Config, ...] = ((32, 32, 8), (16, 32, 4), (8, 32, 2), (32, 32, 16))
SUM_CONFIGS: tuple[Config, ...] = ((16, 32, 4), (8, 64, 4), (16, 64, 8), (32, 32, 8))
SPLITS = 1024  # programs of the weight gradient at most, about: enough to fill the largest device several times
FRAMES = 8  # that a program of it sums up at least, of its tile: its partial sums are then less than half of what it reads
SIZES = ("B", "T", "H", "W", "To", "Ho", "Wo")  # all but C: one compilation serves every layer of a stride


@triton.jit
def _read(frame, h, w, c, H, W, C, ok):
    """frame[h, w, c] as float32, zero outside the plane and where ok is false: (P, BLOCK)."""
    inside = ok & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    at = frame + (h * W + w)[:, None] * C + c[None, :]
    return tl.load(at, inside[:, None] & (c < C)[None, :], 0.0).to(tl.float32)


@triton.jit
def _write(frame, value, position, c, plane, C, ok):
    mask = (ok & (position < plane))[:, None] & (c < C)[None, :]
    tl.store(frame + position[:, None] * C + c[None, :], value.to(frame.dtype.element_ty), mask)


@triton.jit
def _taps(weight, c, C, FLIP: tl.constexpr):
    """The 27 coefficients, each (1, BLOCK), from the weight as (27, C); FLIP: last first."""
    taps = ()
    for d in tl.static_range(27):
        row = 26 - d if FLIP else d
        taps = taps + (tl.load(weight + row * C + c, c < C, 0.0).to(tl.float32)[None, :],)  # noqa: RUF005 (the kernel language has no starred tuples)
    return taps


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, weight, y, T, H, W, C, Ho, Wo,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, FLIP: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y[t, h, w] = sum of weight[d] x[s (t, h, w) + d], d in {-1, 0, 1}^3; FLIP reverses the filter."""
    position = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    clip = tl.program_id(2).to(tl.int64)
    h, w = position // Wo * SH, position % Wo * SW
    To = (T + ST - 1) // ST
    plane_in, plane_out = H * W, Ho * Wo
    frame = x + clip * T * plane_in * C
    out = y + clip * To * plane_out * C
    ok = position < plane_out
    taps = _taps(weight, c, C, FLIP)
    before = tl.zeros((P, BLOCK), tl.float32)  # output of the frame before the current one
    now = tl.zeros((P, BLOCK), tl.float32)
    for t in range(0, T, ST):
        after = tl.zeros((P, BLOCK), tl.float32)
        for tap in tl.static_range(9):
            v = _read(frame, h + tap // 3 - 1, w + tap % 3 - 1, c, H, W, C, ok)
            now += v * taps[9 + tap]
            if ST == 1:
                before += v * taps[18 + tap]
                after += v * taps[tap]
        frame += plane_in * C
        if ST == 1:
            _write(out - plane_out * C, before, position, c, plane_out, C, ok & (t > 0))
            before = now
        else:  # the odd frame closes this output and opens the next
            for tap in tl.static_range(9):
                v = _read(frame, h + tap // 3 - 1, w + tap % 3 - 1, c, H, W, C, ok & (t + 1 < T))
                now += v * taps[18 + tap]
                after += v * taps[tap]
            frame += plane_in * C
            _write(out, now, position, c, plane_out, C, ok)
        now = after
        out += plane_out * C
    if ST == 1:
        _write(out - plane_out * C, before, position, c, plane_out, C, ok)


@triton.jit(do_not_specialize=SIZES)
def scatter_kernel(
    g, weight, gx, T, H, W, C, To, Ho, Wo,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the input for a stride: gx[i] = sum of weight[d] g[(i - d) / s] over the d in {-1, 0, 1}^3 that s divides.

    A program's positions are of g. Around each it knows which d reach which of the inputs s (t, h, w) + {0 .. s - 1}^3.
    """
    position = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    clip = tl.program_id(2).to(tl.int64)
    h, w = position // Wo, position % Wo
    ok = position < Ho * Wo
    taps = _taps(weight, c, C, False)
    for t in range(To):
        sums = ()
        for k in tl.static_range(ST * SH * SW):
            sums = sums + (_gathered(g + clip * To * Ho * Wo * C, taps, t, h, w, c, To, Ho, Wo, C, ok, k, ST, SH, SW),)  # noqa: RUF005
        for k in tl.static_range(ST * SH * SW):
            ti, hi, wi = t * ST + k // (SH * SW), h * SH + k // SW % SH, w * SW + k % SW
            out = gx + (clip * T + ti) * H * W * C
            _write(out, sums[k], hi * W + wi, c, H * W, C, ok & (ti < T) & (hi < H) & (wi < W))


@triton.jit
def _gathered(
    g, taps, t, h, w, c, To, Ho, Wo, C, ok,
    k: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
):  # fmt: skip
    """The sum of scatter_kernel for the k-th input of each position, (P, BLOCK): its taps are known when it is compiled."""
    total = tl.zeros((h.shape[0], c.shape[0]), tl.float32)
    for d in tl.static_range(27):
        if (k // (SH * SW) + 1 - d // 9) % ST == 0 and (k // SW % SH + 1 - d // 3 % 3) % SH == 0 and (k % SW + 1 - d % 3) % SW == 0:
            tg = t + (k // (SH * SW) + 1 - d // 9) // ST
            hg, wg = h + (k // SW % SH + 1 - d // 3 % 3) // SH, w + (k % SW + 1 - d % 3) // SW
            total += _read(g + tg * Ho * Wo * C, hg, wg, c, Ho, Wo, C, ok & (tg >= 0) & (tg < To)) * taps[d]
    return total


@triton.jit(do_not_specialize=SIZES)
def weight_kernel(
    g, x, partial, B, T, H, W, C, To, Ho, Wo,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial[program, d, c] = sum over this program's tiles of x[s i + d] g[i]."""
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    tiles = tl.cdiv(Ho * Wo, P)
    zero = tl.zeros((P, BLOCK), tl.float32)
    sums = (zero,) * 27
    for tile in range(tl.program_id(0), B * tiles, tl.num_programs(0)):
        clip = (tile // tiles).to(tl.int64)
        position = tile % tiles * P + tl.arange(0, P)
        ok = position < Ho * Wo
        ho, wo = position // Wo, position % Wo
        frame = x + clip * T * H * W * C
        for t in range(T):
            new = ()
            for dt in tl.static_range(3):
                back = t + 1 - dt
                live = ok & (back >= 0) & (back % ST == 0) & (back // ST < To)
                gt = _read(g + (clip * To + back // ST) * Ho * Wo * C, ho, wo, c, Ho, Wo, C, live)
                for tap in tl.static_range(9):
                    v = _read(frame, ho * SH + tap // 3 - 1, wo * SW + tap % 3 - 1, c, H, W, C, ok)
                    new = new + (sums[9 * dt + tap] + v * gt,)  # noqa: RUF005 (the kernel language has no starred tuples)
            sums = new
            frame += H * W * C
    row = partial + tl.program_id(0).to(tl.int64) * 27 * C
    for d in tl.static_range(27):
        tl.store(row + d * C + c, tl.sum(sums[d], 0), c < C)


def _rows(weight: Tensor) -> Tensor:
    """(C, 1, 3, 3, 3) -> (27, C): one load of neighbouring channels per tap."""
    return weight.reshape(weight.shape[0], 27).t().contiguous()


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int], config: Config = MAP_CONFIGS[0], flip: bool = False) -> Tensor:
    """(B, C, T, H, W) -> (B, C, T/s, H/s, W/s), channels_last_3d, type of x."""
    x = x.contiguous(memory_format=NDHWC)
    b, c, t, h, w = x.shape
    size = [(n - 1) // s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    y = torch.empty((b, c, *size), dtype=x.dtype, device=x.device, memory_format=NDHWC)
    p, block, warps = config
    grid = (triton.cdiv(size[1] * size[2], p), triton.cdiv(c, block), b)
    forward_kernel[grid](
        x, _rows(weight), y, t, h, w, c, size[1], size[2], *stride, FLIP=flip, P=p, BLOCK=block, num_warps=warps
    )  # fmt: skip
    return y


def grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], config: Config = MAP_CONFIGS[0]) -> Tensor:
    """Output gradient -> input gradient (B, C, *sizes)."""
    if tuple(stride) == (1, 1, 1):
        return convolve(g, weight, stride, config, flip=True)
    g = g.contiguous(memory_format=NDHWC)
    b, c = g.shape[:2]
    gx = torch.empty((b, c, *sizes), dtype=g.dtype, device=g.device, memory_format=NDHWC)
    p, block, warps = config
    grid = (triton.cdiv(g.shape[3] * g.shape[4], p), triton.cdiv(c, block), b)
    scatter_kernel[grid](g, _rows(weight), gx, *sizes, c, *g.shape[2:], *stride, P=p, BLOCK=block, num_warps=warps)
    return gx


def grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], config: Config = SUM_CONFIGS[0]) -> Tensor:
    """Output gradient and input -> weight gradient (C, 1, 3, 3, 3), float32, of a weight whose values are not read."""
    g, x = g.contiguous(memory_format=NDHWC), x.contiguous(memory_format=NDHWC)
    b, c = x.shape[:2]
    p, block, warps = config
    blocks = triton.cdiv(c, block)
    tiles = b * triton.cdiv(g.shape[3] * g.shape[4], p)
    rounds = max(triton.cdiv(tiles, max(SPLITS // blocks, 1)), triton.cdiv(FRAMES, x.shape[2]))  # tiles of a program
    programs = triton.cdiv(tiles, rounds)
    partial = torch.empty((programs, 27, c), dtype=torch.float32, device=x.device)
    weight_kernel[(programs, blocks)](
        g, x, partial, b, *x.shape[2:], c, *g.shape[2:], *stride, P=p, BLOCK=block, num_warps=warps
    )  # fmt: skip
    return partial.sum(0).t().contiguous().view(c, 1, 3, 3, 3)
