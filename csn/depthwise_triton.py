"""Triton kernels for the depthwise 3x3x3 convolution on CUDA, channels_last_3d in memory: (B, T, H, W, C).

A program owns a tile of one plane and BLOCK channels, and walks through time. A tile is P groups of ROWS x COLUMNS neighbouring
positions, `wide` groups in a row: nearly square, for its border is read by its neighbours too. The 27 coefficients of its
channels, or their 27 gradients, stay in registers. Each input frame is read with a border of one around the groups, which comes from
cache, and serves up to nine outputs of a plane and three planes at once, kept in registers: so every input crosses the device memory
about once. The next frame is read before the current one is computed: it comes from memory meanwhile. Sums are float32. No atomics: the
same inputs give the same bits. Run with TRITON_INTERPRET=1 the kernels are computed on the CPU.

Times: results/benchmarks/depthwise_gpu_*.csv. What limits them is instructions, not memory. 27 products take 27 instructions at least;
all instructions of a thread in the loop over time, for each output element, and its registers, of the first tilings, from bfloat16 and
from float32, compiled for sm_90 by Triton 3.8 (3.6 is alike; tests/test_depthwise_machine_code.py):
    forward_kernel, stride 1    51 and 42, 162 and 184 registers (groups of 2 x 4: 44 and 38, 241 and 255)
    forward_kernel, stride 2    83 and 63, 220 and 255 registers
    scatter_kernel, stride 2    63 and 56 for eight input gradients, 205 and 213 registers
    weight_kernel, stride 1     53 and 45, 202 and 208 registers
    weight_kernel, stride 2     87 and 72, 238 and 255 registers
On an H200 (ncu, 8 x 64 x 32 x 56 x 56, bfloat16) 66 to 71 of 100 slots for an instruction are filled, registers allowing 8 to 12 warps at a time;
with all filled the forward would take 73 to 83 us, its products alone 43, and a copy of the same bytes 49. Unrolling the loop over
time, which saves moves between registers, makes the compiler read so far ahead that registers do not suffice. Matrix units, which take a
quarter of the instructions for bands of the filter, were slower in every tiling tried (results/benchmarks/depthwise_gpu_tilings.csv).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disable-error-code="assignment"
# (a kernel is a language of its own: its arguments are pointers and numbers of the device)
from __future__ import annotations

import triton
import triton.language as tl

SIZES = ("B", "T", "H", "W", "To", "Ho", "Wo", "wide", "first", "step")  # one compilation serves every layer of a width and stride


@triton.jit
def _at(frame, h, w, c, W, C: tl.constexpr):
    """Pointers to frame[h, w, c]: (P, BLOCK)."""
    return frame + (h * W + w)[:, None] * C + c[None, :]


@triton.jit
def _mask(ok, c, C: tl.constexpr):
    """ok (P,) of the channels c that there are: (P, BLOCK), or (P, 1) where all are."""
    if tl.constexpr(C) % c.shape[0] == 0:
        return ok[:, None]
    else:
        return ok[:, None] & (c < C)[None, :]


@triton.jit
def _frame(at, ok, h, w, c, H, W, C: tl.constexpr, TALL: tl.constexpr, SPAN: tl.constexpr, EXACT: tl.constexpr):
    """TALL rows of SPAN columns of one frame, of which the first is (h, w) and lies at `at`, zero outside the plane and where ok is false.

    A tuple, row by row. EXACT: only the first and the last row and column can lie outside where ok is true."""
    frame = ()
    for i in tl.static_range(TALL):
        in_row = ok
        if i == 0:
            in_row = in_row & (h >= 0)
        if i == TALL - 1 or not EXACT:
            in_row = in_row & (h + i < H)
        for j in tl.static_range(SPAN):
            inside = in_row
            if j == 0:
                inside = inside & (w >= 0)
            if j == SPAN - 1 or not EXACT:
                inside = inside & (w + j < W)
            frame = frame + (tl.load(at + (i * W + j) * C, _mask(inside, c, C), 0.0),)  # noqa: RUF005 (the kernel language has no starred tuples)
    return frame


@triton.jit
def _float(v):
    """v in float32. A 16-bit brain float is the upper half of one: written so, two of a register take an instruction each, not three."""
    if v.dtype == tl.bfloat16:
        return (v.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return v.to(tl.float32)


@triton.jit
def _write(at, sums, ok, h, w, c, H, W, C: tl.constexpr, COLUMNS: tl.constexpr, EXACT: tl.constexpr):
    """Rows of COLUMNS outputs, in the type of the memory, to the pointers `at` and on, where ok is true and, unless EXACT, the plane has them."""
    for k in tl.static_range(len(sums)):
        inside = ok if EXACT else ok & (h + k // COLUMNS < H) & (w + k % COLUMNS < W)
        tl.store(at + (k // COLUMNS * W + k % COLUMNS) * C, sums[k].to(at.dtype.element_ty), _mask(inside, c, C))


@triton.jit
def _place(tile, wide, Wo, P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """First row and column of each group of a tile of the output plane: (P,), (P,)."""
    across = tl.cdiv(tl.cdiv(Wo, COLUMNS), wide)
    group = tl.arange(0, P)
    return (tile // across * (P // wide) + group // wide) * ROWS, (tile % across * wide + group % wide) * COLUMNS


@triton.jit
def _taps(weight, c, C: tl.constexpr, first, step):
    """The 27 coefficients, each (1, BLOCK), from the weight as (27, C): rows first, first + step and so on."""
    taps = ()
    for d in tl.static_range(27):
        taps = taps + (tl.load(weight + (first + d * step) * C + c, c < C, 0.0).to(tl.float32)[None, :],)  # noqa: RUF005 (the kernel language has no starred tuples)
    return taps


@triton.constexpr_function
def _tap(n, k, SH, SW, SPAN, COLUMNS):
    """Which of the nine taps of a plane leads from the n-th input of a group to its k-th output; none: -1."""
    i, j = n // SPAN - SH * (k // COLUMNS), n % SPAN - SW * (k % COLUMNS)
    return 3 * i + j if 0 <= i < 3 and 0 <= j < 3 else -1


@triton.jit
def _filtered(sums, frame, taps, first: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, SPAN: tl.constexpr, COLUMNS: tl.constexpr):
    """sums, rows of COLUMNS outputs, after rows of SPAN inputs met the plane of the filter that starts at taps[first]."""
    for n in tl.static_range(len(frame)):
        v = _float(frame[n])
        new = ()
        for k in tl.static_range(len(sums)):
            if _tap(n, k, SH, SW, SPAN, COLUMNS) >= 0:  # noqa: SIM108
                new = new + (sums[k] + v * taps[first + _tap(n, k, SH, SW, SPAN, COLUMNS)],)  # noqa: RUF005
            else:
                new = new + (sums[k],)  # noqa: RUF005
        sums = new
    return sums


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, weight, y, T, H, W, Ho, Wo, wide, first, step,
    C: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """y[t, h, w] = sum of weight[d] x[s (t, h, w) + d], d in {-1, 0, 1}^3; first, step: 0, 1, or 26, -1 for the filter reversed."""
    ho, wo = _place(tl.program_id(0), wide, Wo, P, ROWS, COLUMNS)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    clip = tl.program_id(2).to(tl.int64)
    ok = (ho < Ho) & (wo < Wo)
    h, w = ho * SH - 1, wo * SW - 1
    To = (T + ST - 1) // ST
    at = _at(x + clip * T * H * W * C, h, w, c, W, C)
    out = _at(y + clip * To * Ho * Wo * C, ho, wo, c, Wo, C)
    taps = _taps(weight, c, C, first, step)
    zeros = (tl.zeros((P, BLOCK), tl.float32),) * (ROWS * COLUMNS)
    before = zeros  # output of the frame before the current one
    now = zeros
    TALL: tl.constexpr = SH * (ROWS - 1) + 3
    SPAN: tl.constexpr = SW * (COLUMNS - 1) + 3
    frame = _frame(at, ok, h, w, c, H, W, C, TALL, SPAN, EXACT)
    for t in range(0, T, ST):
        at += H * W * C
        ahead = _frame(at, ok & (t + 1 < T), h, w, c, H, W, C, TALL, SPAN, EXACT)
        now = _filtered(now, frame, taps, 9, SH, SW, SPAN, COLUMNS)
        if ST == 1:
            before = _filtered(before, frame, taps, 18, SH, SW, SPAN, COLUMNS)
            after = _filtered(zeros, frame, taps, 0, SH, SW, SPAN, COLUMNS)
            _write(out - Ho * Wo * C, before, ok & (t > 0), ho, wo, c, Ho, Wo, C, COLUMNS, EXACT)
            before = now
        else:  # the odd frame closes this output and opens the next
            frame = ahead
            at += H * W * C
            ahead = _frame(at, ok & (t + 2 < T), h, w, c, H, W, C, TALL, SPAN, EXACT)
            now = _filtered(now, frame, taps, 18, SH, SW, SPAN, COLUMNS)
            after = _filtered(zeros, frame, taps, 0, SH, SW, SPAN, COLUMNS)
            _write(out, now, ok, ho, wo, c, Ho, Wo, C, COLUMNS, EXACT)
        now = after
        frame = ahead
        out += Ho * Wo * C
    if ST == 1:
        _write(out - Ho * Wo * C, before, ok, ho, wo, c, Ho, Wo, C, COLUMNS, EXACT)


@triton.jit(do_not_specialize=SIZES)
def scatter_kernel(
    g, weight, gx, T, H, W, To, Ho, Wo, wide,
    C: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the input for a stride: gx[i] = sum of weight[d] g[(i - d) / s] over the d in {-1, 0, 1}^3 that s divides.

    A program's positions are of g. Around each it knows which d reach which of the inputs s (t, h, w) + {0 .. s - 1}^3.
    """
    h, w = _place(tl.program_id(0), wide, Wo, P, 1, 1)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    clip = tl.program_id(2).to(tl.int64)
    ok = (h < Ho) & (w < Wo)
    taps = _taps(weight, c, C, 0, 1)
    at = _at(g + clip * To * Ho * Wo * C, h, w, c, Wo, C)
    out = _at(gx + clip * T * H * W * C, h * SH, w * SW, c, W, C)
    for t in range(To):
        sums = ()
        for k in tl.static_range(ST * SH * SW):
            sums = sums + (_gathered(at, taps, t, h, w, c, To, Ho, Wo, C, ok, k, ST, SH, SW),)  # noqa: RUF005
        for k in tl.static_range(ST * SH * SW):
            dt, dh, dw = k // (SH * SW), k // SW % SH, k % SW
            inside = ok & (t * ST + dt < T) & (h * SH + dh < H) & (w * SW + dw < W)
            tl.store(out + ((dt * H + dh) * W + dw) * C, sums[k].to(gx.dtype.element_ty), _mask(inside, c, C))
        at += Ho * Wo * C
        out += ST * H * W * C


@triton.jit
def _gathered(
    at, taps, t, h, w, c, To, Ho, Wo, C: tl.constexpr, ok,
    k: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
):  # fmt: skip
    """The sum of scatter_kernel for the k-th input of each position, (P, BLOCK): its taps are known when it is compiled."""
    total = tl.zeros((h.shape[0], c.shape[0]), tl.float32)
    for d in tl.static_range(27):
        if (k // (SH * SW) + 1 - d // 9) % ST == 0 and (k // SW % SH + 1 - d // 3 % 3) % SH == 0 and (k % SW + 1 - d % 3) % SW == 0:
            dt, dh, dw = (k // (SH * SW) + 1 - d // 9) // ST, (k // SW % SH + 1 - d // 3 % 3) // SH, (k % SW + 1 - d % 3) // SW
            inside = ok & (t + dt < To) & (h + dh < Ho) & (w + dw < Wo)
            if ST * SH * SW < 8:  # an axis without a stride has neighbours before, too
                inside = inside & (t + dt >= 0) & (h + dh >= 0) & (w + dw >= 0)
            total += _float(tl.load(at + ((dt * Ho + dh) * Wo + dw) * C, _mask(inside, c, C), 0.0)) * taps[d]
    return total


@triton.jit
def _paired(sums, frame, g, first: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, SPAN: tl.constexpr, COLUMNS: tl.constexpr):
    """The 27 sums after rows of SPAN inputs met the output gradients g, rows of COLUMNS, in the plane from sums[first] on."""
    for n in tl.static_range(len(frame)):
        v = _float(frame[n])
        for k in tl.static_range(len(g)):
            if _tap(n, k, SH, SW, SPAN, COLUMNS) >= 0:
                sums = _plus(sums, first + _tap(n, k, SH, SW, SPAN, COLUMNS), v * g[k])
    return sums


@triton.jit
def _gradients(at, ok, h, w, c, H, W, C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EXACT: tl.constexpr):
    """ROWS rows of COLUMNS output gradients from the pointers `at` on, in float32, zero where ok is false: a tuple."""
    found = ()
    for k in tl.static_range(ROWS * COLUMNS):
        inside = ok if EXACT else ok & (h + k // COLUMNS < H) & (w + k % COLUMNS < W)
        found = found + (_float(tl.load(at + (k // COLUMNS * W + k % COLUMNS) * C, _mask(inside, c, C), 0.0)),)  # noqa: RUF005
    return found


@triton.jit
def _plus(sums, at: tl.constexpr, product):
    """sums, a tuple of 27, with the product added to one of them."""
    new = ()
    for d in tl.static_range(27):
        new = new + (sums[d] + product if d == at else sums[d],)  # noqa: RUF005
    return new


@triton.jit(do_not_specialize=SIZES)
def weight_kernel(
    g, x, partial, B, T, H, W, To, Ho, Wo, wide,
    C: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """partial[program, d, c] = sum over this program's tiles of x[s i + d] g[i]."""
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    tiles = tl.cdiv(tl.cdiv(Ho, ROWS), P // wide) * tl.cdiv(tl.cdiv(Wo, COLUMNS), wide)
    zero = tl.zeros((P, BLOCK), tl.float32)
    sums = (zero,) * 27
    TALL: tl.constexpr = SH * (ROWS - 1) + 3
    SPAN: tl.constexpr = SW * (COLUMNS - 1) + 3
    for tile in range(tl.program_id(0), B * tiles, tl.num_programs(0)):
        clip = (tile // tiles).to(tl.int64)
        ho, wo = _place(tile % tiles, wide, Wo, P, ROWS, COLUMNS)
        ok = (ho < Ho) & (wo < Wo)
        h, w = ho * SH - 1, wo * SW - 1
        at = _at(x + clip * T * H * W * C, h, w, c, W, C)
        out = _at(g + clip * To * Ho * Wo * C, ho, wo, c, Wo, C)
        before = (zero,) * (ROWS * COLUMNS)
        now = _gradients(out, ok, ho, wo, c, Ho, Wo, C, ROWS, COLUMNS, EXACT)
        frame = _frame(at, ok, h, w, c, H, W, C, TALL, SPAN, EXACT)
        for t in range(To):
            out += Ho * Wo * C
            after = _gradients(out, ok & (t + 1 < To), ho, wo, c, Ho, Wo, C, ROWS, COLUMNS, EXACT)
            at += H * W * C
            ahead = _frame(at, ok & (ST * t + 1 < T), h, w, c, H, W, C, TALL, SPAN, EXACT)
            sums = _paired(sums, frame, now, 9, SH, SW, SPAN, COLUMNS)
            if ST == 1:
                sums = _paired(sums, frame, before, 18, SH, SW, SPAN, COLUMNS)
                sums = _paired(sums, frame, after, 0, SH, SW, SPAN, COLUMNS)
            else:  # the odd frame meets this output and the next
                frame = ahead
                at += H * W * C
                ahead = _frame(at, ok & (2 * t + 2 < T), h, w, c, H, W, C, TALL, SPAN, EXACT)
                sums = _paired(sums, frame, now, 18, SH, SW, SPAN, COLUMNS)
                sums = _paired(sums, frame, after, 0, SH, SW, SPAN, COLUMNS)
            frame = ahead
            before = now
            now = after
    row = partial + tl.program_id(0).to(tl.int64) * 27 * C
    for d in tl.static_range(27):
        tl.store(row + d * C + c, tl.sum(sums[d], 0), c < C)


@triton.jit(do_not_specialize=("programs",))
def total_kernel(partial, gw, programs, C: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr):
    """gw[c, d] = sum over the programs of partial[program, d, c], in a fixed order."""
    column = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    there = column < 27 * C
    sums = tl.zeros((TALL, WIDE), tl.float32)
    for start in range(0, programs, TALL):
        row = start + tl.arange(0, TALL)
        sums += tl.load(partial + row[:, None] * (27 * C) + column[None, :], (row < programs)[:, None] & there[None, :], 0.0)
    tl.store(gw + column % C * 27 + column // C, tl.sum(sums, 0), there)
