"""Triton kernels for the depthwise 3x3x3 convolution on CUDA, channels_last_3d in memory: (B, T, H, W, C).

A program owns a tile of one plane and BLOCK channels, and walks through time. A tile is P groups of COLUMNS neighbouring
positions, `wide` groups in a row: nearly square, for its border is read by its neighbours too. The 27 coefficients of its
channels, or their 27 gradients, stay in registers. Each input frame is read as three rows of columns, of which two come from
cache, and serves up to three columns of three outputs at once, kept in registers: so every input crosses the device memory about
once. The middle row of the next frame is read before the current one is computed: it comes from memory meanwhile, and the
neighbours' other rows with it. Sums are float32. No atomics: the same inputs give the same bits. Run with TRITON_INTERPRET=1 the
kernels are computed on the CPU.

Measured so far is the machine code only, compiled for sm_90 by Triton 3.8 and, alike, 3.6 (tests/test_depthwise_machine_code.py), not the time
on a GPU. Nothing spills. 27 products take 27 instructions at least; all instructions of a thread in the loop over time, for each
output element, and its registers, of the first tilings, from bfloat16 and from float32:
    forward_kernel, stride 1    49 and 43 (one column: 64 and 52), 230 and 241 registers
    forward_kernel, stride 2    87 and 80, 220 and 248 registers
    scatter_kernel, stride 2    73 and 59 for eight input gradients, 198 and 213 registers
    weight_kernel, stride 1     54 and 44 (one column: 69 and 50), 255 and 246 registers
    weight_kernel, stride 2     89 and 66, 250 and 252 registers
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
Config = tuple[int, int, int, int]  # groups, columns of a group, channels, warps of a program
# Groups x channels / (32 x warps) is the channels of a thread, 2 or 4: it holds 27 coefficients or sums of each, and more do not fit
# its registers. With a stride only one column fits. The first is a guess until measured.
MAP_CONFIGS: tuple[Config, ...] = ((16, 2, 32, 4), (32, 2, 32, 8), (8, 4, 32, 4), (8, 7, 32, 4), (32, 1, 32, 8), (8, 1, 32, 2))
SUM_CONFIGS: tuple[Config, ...] = ((16, 2, 32, 4), (32, 2, 32, 8), (8, 4, 32, 4), (16, 1, 32, 4), (8, 1, 64, 4))
SPLITS = 1024  # programs of the weight gradient at most, about: enough to fill the largest device several times
FRAMES = 8  # that a program of it sums up at least, of its tile: its partial sums are then less than half of what it reads
SIZES = ("B", "T", "H", "W", "To", "Ho", "Wo", "wide")  # all but C: one compilation serves every layer of a stride


@triton.jit
def _read(frame, h, w, c, H, W, C, ok):
    """frame[h, w, c], zero outside the plane and where ok is false: (P, BLOCK)."""
    inside = ok & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    at = frame + (h * W + w)[:, None] * C + c[None, :]
    return tl.load(at, inside[:, None] & (c < C)[None, :], 0.0)


@triton.jit
def _row(frame, h, w, c, H, W, C, ok, SPAN: tl.constexpr):
    """_read at SPAN columns from w on, a tuple."""
    row = ()
    for j in tl.static_range(SPAN):
        row = row + (_read(frame, h, w + j, c, H, W, C, ok),)  # noqa: RUF005 (the kernel language has no starred tuples)
    return row


@triton.jit
def _write(frame, value, h, w, c, W, C, ok):
    """frame[h, w, c] = value, of the type of the frame, where ok is true and w inside the plane."""
    mask = (ok & (w < W))[:, None] & (c < C)[None, :]
    tl.store(frame + (h * W + w)[:, None] * C + c[None, :], value.to(frame.dtype.element_ty), mask)


@triton.jit
def _place(tile, wide, Wo, P: tl.constexpr, COLUMNS: tl.constexpr):
    """Row and first column of each group of a tile of the output plane: (P,), (P,)."""
    across = tl.cdiv(tl.cdiv(Wo, COLUMNS), wide)
    group = tl.arange(0, P)
    return tile // across * (P // wide) + group // wide, (tile % across * wide + group % wide) * COLUMNS


@triton.jit
def _taps(weight, c, C, FLIP: tl.constexpr):
    """The 27 coefficients, each (1, BLOCK), from the weight as (27, C); FLIP: last first."""
    taps = ()
    for d in tl.static_range(27):
        row = 26 - d if FLIP else d
        taps = taps + (tl.load(weight + row * C + c, c < C, 0.0).to(tl.float32)[None, :],)  # noqa: RUF005 (the kernel language has no starred tuples)
    return taps


@triton.jit
def _filtered(sums, rows, taps, first: tl.constexpr, SW: tl.constexpr, SPAN: tl.constexpr):
    """sums, a tuple of output columns, after three rows of SPAN input columns met the plane of the filter that starts at taps[first]."""
    for i in tl.static_range(3):  # the middle row first: it is there while the others come
        for j in tl.static_range(SPAN):
            v = rows[(2 * i + 1) % 3 * SPAN + j].to(tl.float32)
            new = ()
            for k in tl.static_range(len(sums)):
                if j - SW * k >= 0 and j - SW * k < 3:  # noqa: SIM108
                    new = new + (sums[k] + v * taps[first + (2 * i + 1) % 3 * 3 + j - SW * k],)  # noqa: RUF005
                else:
                    new = new + (sums[k],)  # noqa: RUF005
            sums = new
    return sums


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, weight, y, T, H, W, C, Ho, Wo, wide,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, FLIP: tl.constexpr, P: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y[t, h, w] = sum of weight[d] x[s (t, h, w) + d], d in {-1, 0, 1}^3; FLIP reverses the filter."""
    ho, wo = _place(tl.program_id(0), wide, Wo, P, COLUMNS)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    clip = tl.program_id(2).to(tl.int64)
    ok = ho < Ho
    h, w = ho * SH, wo * SW
    To = (T + ST - 1) // ST
    plane_in, plane_out = H * W, Ho * Wo
    frame = x + clip * T * plane_in * C
    out = y + clip * To * plane_out * C
    taps = _taps(weight, c, C, FLIP)
    zeros = (tl.zeros((P, BLOCK), tl.float32),) * COLUMNS
    before = zeros  # output of the frame before the current one
    now = zeros
    SPAN: tl.constexpr = SW * (COLUMNS - 1) + 3
    middle = _row(frame, h, w - 1, c, H, W, C, ok, SPAN)
    for t in range(0, T, ST):
        upper = _row(frame, h - 1, w - 1, c, H, W, C, ok, SPAN)
        lower = _row(frame, h + 1, w - 1, c, H, W, C, ok, SPAN)
        rows = upper + middle + lower
        frame += plane_in * C
        middle = _row(frame, h, w - 1, c, H, W, C, ok & (t + 1 < T), SPAN)
        now = _filtered(now, rows, taps, 9, SW, SPAN)
        if ST == 1:
            before = _filtered(before, rows, taps, 18, SW, SPAN)
            after = _filtered(zeros, rows, taps, 0, SW, SPAN)
            for k in tl.static_range(COLUMNS):
                _write(out - plane_out * C, before[k], ho, wo + k, c, Wo, C, ok & (t > 0))
            before = now
        else:  # the odd frame closes this output and opens the next
            upper = _row(frame, h - 1, w - 1, c, H, W, C, ok & (t + 1 < T), SPAN)
            lower = _row(frame, h + 1, w - 1, c, H, W, C, ok & (t + 1 < T), SPAN)
            rows = upper + middle + lower
            frame += plane_in * C
            middle = _row(frame, h, w - 1, c, H, W, C, ok & (t + 2 < T), SPAN)
            now = _filtered(now, rows, taps, 18, SW, SPAN)
            after = _filtered(zeros, rows, taps, 0, SW, SPAN)
            for k in tl.static_range(COLUMNS):
                _write(out, now[k], ho, wo + k, c, Wo, C, ok)
        now = after
        out += plane_out * C
    if ST == 1:
        for k in tl.static_range(COLUMNS):
            _write(out - plane_out * C, before[k], ho, wo + k, c, Wo, C, ok)


@triton.jit(do_not_specialize=SIZES)
def scatter_kernel(
    g, weight, gx, T, H, W, C, To, Ho, Wo, wide,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the input for a stride: gx[i] = sum of weight[d] g[(i - d) / s] over the d in {-1, 0, 1}^3 that s divides.

    A program's positions are of g. Around each it knows which d reach which of the inputs s (t, h, w) + {0 .. s - 1}^3.
    """
    h, w = _place(tl.program_id(0), wide, Wo, P, 1)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    clip = tl.program_id(2).to(tl.int64)
    ok = h < Ho
    taps = _taps(weight, c, C, False)
    for t in range(To):
        sums = ()
        for k in tl.static_range(ST * SH * SW):
            sums = sums + (_gathered(g + clip * To * Ho * Wo * C, taps, t, h, w, c, To, Ho, Wo, C, ok, k, ST, SH, SW),)  # noqa: RUF005
        for k in tl.static_range(ST * SH * SW):
            ti, hi, wi = t * ST + k // (SH * SW), h * SH + k // SW % SH, w * SW + k % SW
            out = gx + (clip * T + ti) * H * W * C
            _write(out, sums[k], hi, wi, c, W, C, ok & (ti < T) & (hi < H))


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
            total += _read(g + tg * Ho * Wo * C, hg, wg, c, Ho, Wo, C, ok & (tg >= 0) & (tg < To)).to(tl.float32) * taps[d]
    return total


@triton.jit
def _paired(sums, rows, g, first: tl.constexpr, SW: tl.constexpr, SPAN: tl.constexpr):
    """The 27 sums after three rows of SPAN input columns met the output gradients g, a tuple of columns, in the plane from sums[first] on."""
    for i in tl.static_range(3):  # the middle row first, as in _filtered
        for j in tl.static_range(SPAN):
            v = rows[(2 * i + 1) % 3 * SPAN + j].to(tl.float32)
            for k in tl.static_range(len(g)):
                if j - SW * k >= 0 and j - SW * k < 3:
                    sums = _plus(sums, first + (2 * i + 1) % 3 * 3 + j - SW * k, v * g[k].to(tl.float32))
    return sums


@triton.jit
def _plus(sums, at: tl.constexpr, product):
    """sums, a tuple of 27, with the product added to one of them."""
    new = ()
    for d in tl.static_range(27):
        new = new + (sums[d] + product if d == at else sums[d],)  # noqa: RUF005
    return new


@triton.jit(do_not_specialize=SIZES)
def weight_kernel(
    g, x, partial, B, T, H, W, C, To, Ho, Wo, wide,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, P: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial[program, d, c] = sum over this program's tiles of x[s i + d] g[i]."""
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    tiles = tl.cdiv(Ho, P // wide) * tl.cdiv(tl.cdiv(Wo, COLUMNS), wide)
    zero = tl.zeros((P, BLOCK), tl.float32)
    nothing = zero.to(g.dtype.element_ty)
    sums = (zero,) * 27
    SPAN: tl.constexpr = SW * (COLUMNS - 1) + 3
    for tile in range(tl.program_id(0), B * tiles, tl.num_programs(0)):
        clip = (tile // tiles).to(tl.int64)
        ho, wo = _place(tile % tiles, wide, Wo, P, COLUMNS)
        ok = ho < Ho
        frame = x + clip * T * H * W * C
        out = g + clip * To * Ho * Wo * C
        before = (nothing,) * COLUMNS
        now = _row(out, ho, wo, c, Ho, Wo, C, ok, COLUMNS)
        middle = _row(frame, ho * SH, wo * SW - 1, c, H, W, C, ok, SPAN)
        for t in range(To):
            out += Ho * Wo * C
            after = _row(out, ho, wo, c, Ho, Wo, C, ok & (t + 1 < To), COLUMNS)
            upper = _row(frame, ho * SH - 1, wo * SW - 1, c, H, W, C, ok, SPAN)
            lower = _row(frame, ho * SH + 1, wo * SW - 1, c, H, W, C, ok, SPAN)
            rows = upper + middle + lower
            frame += H * W * C
            middle = _row(frame, ho * SH, wo * SW - 1, c, H, W, C, ok & (ST * t + 1 < T), SPAN)
            sums = _paired(sums, rows, now, 9, SW, SPAN)
            if ST == 1:
                sums = _paired(sums, rows, before, 18, SW, SPAN)
                sums = _paired(sums, rows, after, 0, SW, SPAN)
            else:  # the odd frame meets this output and the next
                upper = _row(frame, ho * SH - 1, wo * SW - 1, c, H, W, C, ok & (2 * t + 1 < T), SPAN)
                lower = _row(frame, ho * SH + 1, wo * SW - 1, c, H, W, C, ok & (2 * t + 1 < T), SPAN)
                rows = upper + middle + lower
                frame += H * W * C
                middle = _row(frame, ho * SH, wo * SW - 1, c, H, W, C, ok & (2 * t + 2 < T), SPAN)
                sums = _paired(sums, rows, now, 18, SW, SPAN)
                sums = _paired(sums, rows, after, 0, SW, SPAN)
            before = now
            now = after
    row = partial + tl.program_id(0).to(tl.int64) * 27 * C
    for d in tl.static_range(27):
        tl.store(row + d * C + c, tl.sum(sums[d], 0), c < C)


def _rows(weight: Tensor) -> Tensor:
    """(C, 1, 3, 3, 3) -> (27, C): one load of neighbouring channels per tap."""
    return weight.reshape(weight.shape[0], 27).t().contiguous()


def configs(direction: str, stride: Sequence[int]) -> tuple[Config, ...]:
    """The tilings to choose from for "forward", "grad_input" or "grad_weight"; the first is the default."""
    of_one = SUM_CONFIGS if direction == "grad_weight" else MAP_CONFIGS
    return of_one if tuple(stride) == (1, 1, 1) else tuple(config for config in of_one if config[1] == 1)


def tiling(config: Config, plane: Sequence[int], stride: Sequence[int]) -> tuple[int, int]:
    """(groups in a row of a tile, tiles of a plane): those that read the fewest positions, borders and idle groups included.

    plane: height and width of the output; stride: of the last two axes.
    """
    groups, columns = config[:2]

    def tiles(wide: int) -> int:
        return -(-plane[0] // (groups // wide)) * -(-plane[1] // (columns * wide))

    def read(wide: int) -> int:
        return tiles(wide) * (groups // wide * stride[0] + 2) * (columns * wide * stride[1] + 2)

    wide = min((2**n for n in range(groups.bit_length())), key=read)
    return wide, tiles(wide)


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int], config: Config, flip: bool = False) -> Tensor:
    """(B, C, T, H, W) -> (B, C, T/s, H/s, W/s), channels_last_3d, type of x."""
    x = x.contiguous(memory_format=NDHWC)
    b, c, t, h, w = x.shape
    size = [(n - 1) // s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    y = torch.empty((b, c, *size), dtype=x.dtype, device=x.device, memory_format=NDHWC)
    p, columns, block, warps = config
    wide, tiles = tiling(config, size[1:], stride[1:])
    forward_kernel[(tiles, triton.cdiv(c, block), b)](
        x, _rows(weight), y, t, h, w, c, size[1], size[2], wide, *stride, FLIP=flip, P=p, COLUMNS=columns, BLOCK=block, num_warps=warps
    )  # fmt: skip
    return y


def grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], config: Config) -> Tensor:
    """Output gradient -> input gradient (B, C, *sizes). The columns of a config count only where there is no stride."""
    if tuple(stride) == (1, 1, 1):
        return convolve(g, weight, stride, config, flip=True)
    g = g.contiguous(memory_format=NDHWC)
    b, c = g.shape[:2]
    gx = torch.empty((b, c, *sizes), dtype=g.dtype, device=g.device, memory_format=NDHWC)
    p, _, block, warps = config
    wide, tiles = tiling((p, 1, block, warps), g.shape[3:], (1, 1))
    scatter_kernel[(tiles, triton.cdiv(c, block), b)](
        g, _rows(weight), gx, *sizes, c, *g.shape[2:], wide, *stride, P=p, BLOCK=block, num_warps=warps
    )  # fmt: skip
    return gx


def grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], config: Config) -> Tensor:
    """Output gradient and input -> weight gradient (C, 1, 3, 3, 3), float32, of a weight whose values are not read."""
    g, x = g.contiguous(memory_format=NDHWC), x.contiguous(memory_format=NDHWC)
    b, c = x.shape[:2]
    p, columns, block, warps = config
    blocks = triton.cdiv(c, block)
    wide, tiles = tiling(config, g.shape[3:], stride[1:])
    rounds = max(triton.cdiv(b * tiles, max(SPLITS // blocks, 1)), triton.cdiv(FRAMES, x.shape[2]))  # tiles of a program
    programs = triton.cdiv(b * tiles, rounds)
    partial = torch.empty((programs, 27, c), dtype=torch.float32, device=x.device)
    weight_kernel[(programs, blocks)](
        g, x, partial, b, *x.shape[2:], c, *g.shape[2:], wide, *stride, P=p, COLUMNS=columns, BLOCK=block, num_warps=warps
    )  # fmt: skip
    return partial.sum(0).t().contiguous().view(c, 1, 3, 3, 3)
