"""Triton kernels for what stands beside conv1 on CUDA, channels_last_3d in memory: blocks of pixels before it, pool1 behind it.

torch writes the blocks in several passes, and its pooling notes the place of every maximum in 64 bits and adds gradients up by atomics; here
the blocks are one pass, a place is one byte, and every input of the pooling looks for the outputs that took it. Of four clips of 32 x 224 x 224
in bfloat16 on an H200, pool1 and its gradient take 0.40 ms (results/benchmarks/kernels_gpu_152.csv; at commit b6d21d3, by torch's kernels, 1.29).
Run with TRITON_INTERPRET=1 the kernels are computed on the CPU.
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
TILE = 2048  # elements of a program: 16 of a thread
WARPS = 4
SIZES = ("N", "T", "H", "W", "Ho", "Wo")  # one compilation serves maps of every size


@triton.jit(do_not_specialize=SIZES)
def blocks_kernel(x, y, N, T, H, W, Ho, Wo, C: tl.constexpr, BEFORE: tl.constexpr, TALL: tl.constexpr, LANES: tl.constexpr):
    """y[b, t, i, j]: 2x2 pixels from row 2 i - BEFORE and column 2 j - BEFORE on, of the frames t - 1, t and t + 1, zero beyond the clip; zeros up to LANES."""
    n = tl.program_id(0).to(tl.int64) * TALL + tl.arange(0, TALL)
    lane = tl.arange(0, LANES)[None, :]
    frame, h, w = n // (Ho * Wo), n // Wo % Ho, n % Wo
    t = (frame % T)[:, None] + lane // (4 * C) - 1
    h = (2 * h - BEFORE)[:, None] + lane // (2 * C) % 2
    w = (2 * w - BEFORE)[:, None] + lane // C % 2
    there = (n < N)[:, None] & (lane < 12 * C) & (t >= 0) & (t < T) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    at = ((((frame // T * T)[:, None] + t) * H + h) * W + w) * C + lane % C
    tl.store(y + n[:, None] * LANES + lane, tl.load(x + at, there, 0.0).to(y.dtype.element_ty), (n < N)[:, None])


@triton.jit(do_not_specialize=SIZES)
def pool_kernel(x, y, place, N, H, W, Ho, Wo, C: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr):
    """y[n, i, j] = max of x[n, 2 i - 1 .. 2 i + 1, 2 j - 1 .. 2 j + 1]; place: which of the nine, row by row, the first of equal ones."""
    n = tl.program_id(0).to(tl.int64) * TALL + tl.arange(0, TALL)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    frame, h, w = n // (Ho * Wo), 2 * (n // Wo % Ho) - 1, 2 * (n % Wo) - 1
    best = tl.full((TALL, WIDE), float("-inf"), tl.float32)
    which = tl.full((TALL, WIDE), 9, tl.int32)
    for k in tl.static_range(9):
        there = (n < N) & (h + k // 3 >= 0) & (h + k // 3 < H) & (w + k % 3 >= 0) & (w + k % 3 < W)
        at = ((frame * H + h + k // 3) * W + w + k % 3)[:, None] * C + c
        v = _float(tl.load(x + at, there[:, None] & (c < C), 0.0))
        taken = there[:, None] & ((v > best) | (v != v) | (which == 9))  # what is no number wins, as in torch
        best = tl.where(taken, v, best)
        which = tl.where(taken, k, which)
    own = (n < N)[:, None] & (c < C)
    tl.store(y + n[:, None] * C + c, best.to(y.dtype.element_ty), own)
    tl.store(place + n[:, None] * C + c, which.to(tl.uint8), own)


@triton.jit(do_not_specialize=SIZES)
def unpool_kernel(g, place, gx, N, H, W, Ho, Wo, C: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr):
    """gx[n, h, w]: sum of g over the up to four outputs whose place is (h, w)."""
    n = tl.program_id(0).to(tl.int64) * TALL + tl.arange(0, TALL)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    frame, h, w = n // (H * W), n // W % H, n % W
    total = tl.zeros((TALL, WIDE), tl.float32)
    for k in tl.static_range(4):
        i, j = (h + 1) // 2 - k // 2, (w + 1) // 2 - k % 2  # the windows that begin before, and of an odd row or column those before them
        there = (n < N) & (i < Ho) & (j < Wo)
        if k // 2 == 1:
            there = there & (h % 2 == 1)
        if k % 2 == 1:
            there = there & (w % 2 == 1)
        mask = there[:, None] & (c < C)
        at = ((frame * Ho + i) * Wo + j)[:, None] * C + c
        own = (3 * (h - 2 * i + 1) + w - 2 * j + 1)[:, None]
        total += tl.where(tl.load(place + at, mask, 9).to(tl.int32) == own, _float(tl.load(g + at, mask, 0.0)), 0.0)
    tl.store(gx + n[:, None] * C + c, total.to(gx.dtype.element_ty), (n < N)[:, None] & (c < C))


def blocks(x: Tensor, dtype: torch.dtype, before: int, lanes: int) -> Tensor:
    """(B, C, T, H, W) -> (B T, lanes, H/2 + 3, W/2 + 3) of that type, channels_last: csn.stem.in_blocks. No gradients."""
    x = x.contiguous(memory_format=NDHWC)
    b, c, t, h, w = x.shape
    ho, wo = (h + 1) // 2 + 3, (w + 1) // 2 + 3
    y = torch.empty((b * t, ho, wo, lanes), dtype=dtype, device=x.device)
    n, tall = b * t * ho * wo, TILE // lanes
    blocks_kernel[(triton.cdiv(n, tall),)](x, y, n, t, h, w, ho, wo, c, before, tall, lanes, num_warps=WARPS)
    return y.permute(0, 3, 1, 2)


def _shape(c: int) -> tuple[int, int]:
    """Rows and channels of a tile."""
    wide = min(triton.next_power_of_2(c), BLOCK)
    return TILE // wide, wide


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """pool1: (B, C, T, H, W), channels_last_3d -> (B, C, T, H/2, W/2), sizes rounded up, and the places, uint8, of the same shape."""
    b, c, t, h, w = x.shape
    size = (b, c, t, (h + 1) // 2, (w + 1) // 2)
    y, place = (torch.empty(size, dtype=dtype, device=x.device, memory_format=NDHWC) for dtype in (x.dtype, torch.uint8))
    tall, wide = _shape(c)
    n = y.numel() // c
    pool_kernel[(triton.cdiv(n, tall), triton.cdiv(c, wide))](x, y, place, n, h, w, *size[3:], c, tall, wide, num_warps=WARPS)
    return y, place


def unpool(g: Tensor, place: Tensor, size: tuple[int, ...]) -> Tensor:
    """The gradient of pool's input, of that size, from that of its output, channels_last_3d."""
    c, h, w = size[1], *size[3:]
    gx = torch.empty(size, dtype=g.dtype, device=g.device, memory_format=NDHWC)
    tall, wide = _shape(c)
    n = gx.numel() // c
    unpool_kernel[(triton.cdiv(n, tall), triton.cdiv(c, wide))](g, place, gx, n, h, w, *g.shape[3:], c, tall, wide, num_warps=WARPS)
    return gx
