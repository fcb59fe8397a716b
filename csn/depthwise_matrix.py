"""The depthwise 3x3x3 convolution of 16-bit inputs on the matrix units of a GPU, channels_last_3d in memory, without a stride.

A matrix unit multiplies 16 x 16 by 16 x 8 in one instruction, which would be 64 products of every thread. A depthwise filter fills
few of them, and still takes a quarter of the instructions of csn.depthwise_triton, whose limit they are (gradient of the weight: 0.4). Four channels of four
neighbours in a row are the 16 columns of a matrix, whose rows are groups, and four channels of two outputs the 8 columns of the result:

    (groups, 4 positions x 4 channels)  x  band (4 positions x 4 channels, 2 outputs x 4 channels)  ->  (groups, 2 outputs x 4 channels)

The band of a row of the filter has its three coefficients of a channel where output and input are of this channel and at most one apart,
and zeros elsewhere: 24 of 128 numbers. The gradient of the weight is the same the other way round: inputs, transposed, times output
gradients, of which the numbers in the band are kept. The coefficients are rounded to the type of the inputs, as autocast rounds those
of torch's convolutions; sums are float32, in a fixed order.

A program owns a tile of one plane and BLOCK channels, and walks through time, as in csn.depthwise_triton: P groups of ROWS x 2 outputs,
each input read with its border and, but for the border, once from memory. What hides the time of a read are the other programs of a multiprocessor.
All instructions of a thread in the loop over time, for each output element, and its registers, of the first tilings, compiled for sm_90 by
Triton 3.8 and 3.6 (tests/test_depthwise_machine_code.py):
    forward_kernel    13 and 11, of them 2.3 products, 160 and 164 registers
    weight_kernel     20 and 24, of them 2.3 products, 168 and 160 registers
Compiled, they are carried out by an emulator in tests/test_emulated.py, without a conflict at shared memory. On a GPU they are not timed yet:
csn.depthwise_tune takes them where they are the fastest.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disable-error-code="assignment"
# (a kernel is a language of its own: its arguments are pointers and numbers of the device)
from __future__ import annotations

import triton
import triton.language as tl

from csn.depthwise_triton import SIZES, _at, _place

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)  # that multiplies the bits of a brain float, taken for whole numbers


@triton.jit
def _dot(a, b, sums):
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums)


@triton.jit
def _inside(w, W, SPAN: tl.constexpr):
    """Which of SPAN columns from w (P,) on the plane has: (P, SPAN, 1)."""
    column = w[:, None] + tl.arange(0, SPAN)[None, :]
    return ((column >= 0) & (column < W))[:, :, None]


@triton.jit
def _span(frame, h, w, c, W, C: tl.constexpr, SPAN: tl.constexpr):
    """Pointers to frame[h, w .. w + SPAN - 1, c]: (P, SPAN, BLOCK)."""
    return _at(frame, h, w, c, W, C)[:, None, :] + tl.arange(0, SPAN)[None, :, None] * C


@triton.jit
def _rows(at, inside, ok, h, H, W, C: tl.constexpr, TALL: tl.constexpr, BORDER: tl.constexpr, EXACT: tl.constexpr):
    """TALL rows from the pointers `at` (P, SPAN, BLOCK) on, the first of them row h, zero where inside or ok is false and outside the plane: a tuple.

    EXACT: where ok is true, only BORDER rows above and below can be outside."""
    rows = ()
    for r in tl.static_range(TALL):
        in_row = ok
        if r < BORDER:
            in_row = in_row & (h + r >= 0)
        if r >= TALL - BORDER or not EXACT:
            in_row = in_row & (h + r < H)
        rows = rows + (tl.load(at + r * W * C, inside & in_row[:, None, None], 0.0),)  # noqa: RUF005 (the kernel language has no starred tuples)
    return rows


@triton.constexpr_function
def _spelled(positions, fours, k):
    """Shape and order that bring the fours of channels to the front, in the k-th of ten spellings that mean the same."""
    left = (positions,) if k < 2 else (positions >> k // 2, 1 << k // 2)
    right = (4,) if k % 2 == 0 else (2, 2)
    return (*left, fours, *right), (len(left), *range(len(left)), *range(len(left) + 1, len(left) + 1 + len(right)))


@triton.jit
def _matrix(row, K: tl.constexpr):
    """A row (P, SPAN, BLOCK) as matrices (BLOCK / 4, P, SPAN * 4).

    K, 0 to 8: which of the nine products is to take it, each with a spelling of its own. All from one spelling, the compiler would lay out
    the first product's from registers and the others' again, from shared memory in an order with conflicts of eight threads at a time.
    """
    P: tl.constexpr = row.shape[0]
    SPAN: tl.constexpr = row.shape[1]
    FOURS: tl.constexpr = row.shape[2] // 4
    SPELLED: tl.constexpr = _spelled(P * SPAN, FOURS, K)
    return tl.reshape(tl.permute(tl.reshape(row, SPELLED[0]), SPELLED[1]), (FOURS, P, SPAN * 4))


@triton.jit
def _tap_of(j: tl.constexpr):
    """Where a band (1, 16, 8) has tap j of a row of the filter."""
    row = tl.arange(0, 16)[None, :, None]
    column = tl.arange(0, 8)[None, None, :]
    return (row % 4 == column % 4) & (row // 4 - column // 4 == j)


@triton.jit
def _bands(weight, c, C: tl.constexpr, first, step, TYPE: tl.constexpr):
    """The bands (BLOCK / 4, 16, 8) of the nine rows of the filter, from the weight as (27, C): its rows first, first + step and so on.

    c: the first of each four channels, (BLOCK / 4,).
    """
    channel = c[:, None, None] + tl.arange(0, 8)[None, None, :] % 4
    bands = ()
    for d in tl.static_range(9):
        band = tl.zeros((c.shape[0], 16, 8), TYPE)
        for j in tl.static_range(3):
            band = tl.where(_tap_of(j), tl.load(weight + (first + (3 * d + j) * step) * C + channel).to(TYPE), band)
        bands = bands + (band,)  # noqa: RUF005
    return bands


@triton.jit
def _filtered(sums, frame, bands, first: tl.constexpr):
    """sums, one (BLOCK / 4, P, 8) for each row of outputs, after a frame, two rows more, met the plane of the filter from bands[first] on."""
    new = ()
    for s in tl.static_range(len(sums)):
        total = sums[s]
        for i in tl.static_range(3):
            total = _dot(_matrix(frame[s + i], first + i), bands[first + i], total)
        new = new + (total,)  # noqa: RUF005
    return new


@triton.jit
def _write(at, sums, inside, ok, h, H, W, C: tl.constexpr, EXACT: tl.constexpr):
    """Rows of two outputs, in the type of the memory, to the pointers `at` (P, 2, BLOCK) and on, where inside and ok are true and the plane has them."""
    for s in tl.static_range(len(sums)):
        in_row = ok if EXACT else ok & (h + s < H)
        y = tl.reshape(sums[s].to(at.dtype.element_ty), (at.shape[2] // 4, at.shape[0], 2, 4))
        tl.store(at + s * W * C, tl.reshape(tl.permute(y, (1, 2, 0, 3)), at.shape), inside & in_row[:, None, None])


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, weight, y, T, H, W, wide, first, step, C: tl.constexpr,
    P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """y[t, h, w] = sum of weight[d] x[(t, h, w) + d], d in {-1, 0, 1}^3; first, step: 0, 1, or 26, -1 for the filter reversed.

    COLUMNS is 2; C is a multiple of BLOCK, and BLOCK one of 4. Neighbouring programs differ in their channels: they read the same lines of memory.
    """
    ho, wo = _place(tl.program_id(0) // (C // BLOCK), wide, W, P, ROWS, COLUMNS)
    channels = tl.program_id(0) % (C // BLOCK) * BLOCK
    c = channels + tl.arange(0, BLOCK)
    clip = tl.program_id(1).to(tl.int64) * T * H * W * C
    ok = (ho < H) & (wo < W)
    bands = _bands(weight, channels + tl.arange(0, BLOCK // 4) * 4, C, first, step, x.dtype.element_ty)
    at = _span(x + clip, ho - 1, wo - 1, c, W, C, COLUMNS + 2)
    out = _span(y + clip, ho, wo, c, W, C, COLUMNS)
    near, here = _inside(wo - 1, W, COLUMNS + 2), _inside(wo, W, COLUMNS)
    zeros = (tl.zeros((BLOCK // 4, P, 8), tl.float32),) * ROWS
    before = zeros
    now = zeros
    for t in tl.range(T, num_stages=1):
        frame = _rows(at, near, ok, ho - 1, H, W, C, ROWS + 2, 1, EXACT)
        before = _filtered(before, frame, bands, 6)
        now = _filtered(now, frame, bands, 3)
        after = _filtered(zeros, frame, bands, 0)
        _write(out - H * W * C, before, here, ok & (t > 0), ho, H, W, C, EXACT)
        before = now
        now = after
        at += H * W * C
        out += H * W * C
    _write(out - H * W * C, before, here, ok, ho, H, W, C, EXACT)


@triton.jit
def _paired(sums, frame, g, first: tl.constexpr):
    """The nine sums (BLOCK / 4, 16, 8) after a frame met the output gradients g, one for each row, in the plane from sums[first] on."""
    new = ()
    for d in tl.static_range(9):
        total = sums[d]
        if d >= first and d < first + 3:
            for s in tl.static_range(len(g)):
                total = _dot(tl.permute(_matrix(frame[s + d - first], d), (0, 2, 1)), _matrix(g[s], d), total)
        new = new + (total,)  # noqa: RUF005
    return new


@triton.jit(do_not_specialize=SIZES)
def weight_kernel(
    g, x, partial, B, T, H, W, wide, C: tl.constexpr,
    P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """partial[program, d, c] = sum over this program's tiles of x[i + d] g[i]. COLUMNS, C, BLOCK and programs as in forward_kernel."""
    channels = tl.program_id(0) % (C // BLOCK) * BLOCK
    program = tl.program_id(0) // (C // BLOCK)
    c = channels + tl.arange(0, BLOCK)
    tiles = tl.cdiv(tl.cdiv(H, ROWS), P // wide) * tl.cdiv(tl.cdiv(W, COLUMNS), wide)
    sums = (tl.zeros((BLOCK // 4, 16, 8), tl.float32),) * 9
    for tile in range(program, B * tiles, tl.num_programs(0) // (C // BLOCK)):
        clip = (tile // tiles).to(tl.int64) * T * H * W * C
        ho, wo = _place(tile % tiles, wide, W, P, ROWS, COLUMNS)
        ok = (ho < H) & (wo < W)
        at = _span(x + clip, ho - 1, wo - 1, c, W, C, COLUMNS + 2)
        out = _span(g + clip, ho, wo, c, W, C, COLUMNS)
        near, here = _inside(wo - 1, W, COLUMNS + 2), _inside(wo, W, COLUMNS)
        for t in tl.range(T, num_stages=1):
            frame = _rows(at, near, ok, ho - 1, H, W, C, ROWS + 2, 1, EXACT)
            # output gradients are read three times, of which twice from cache: carried on, they would be laid out with conflicts, as _matrix tells
            before = _rows(out - H * W * C, here, ok & (t > 0), ho, H, W, C, ROWS, 0, EXACT)
            now = _rows(out, here, ok, ho, H, W, C, ROWS, 0, EXACT)
            after = _rows(out + H * W * C, here, ok & (t + 1 < T), ho, H, W, C, ROWS, 0, EXACT)
            sums = _paired(sums, frame, before, 6)
            sums = _paired(sums, frame, now, 3)
            sums = _paired(sums, frame, after, 0)
            at += H * W * C
            out += H * W * C
    channel = channels + tl.arange(0, BLOCK // 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    row = partial + program.to(tl.int64) * 27 * C
    for d in tl.static_range(9):
        for j in tl.static_range(3):
            of_outputs = tl.sum(tl.where(_tap_of(j), sums[d], 0.0), 1)
            tl.store(row + (3 * d + j) * C + channel, tl.sum(tl.reshape(of_outputs, (BLOCK // 4, 2, 4)), 1))
