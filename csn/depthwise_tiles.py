"""How the depthwise Triton kernels are started: tilings to choose from, grids, results. Kernels and their plan: csn.depthwise_triton."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
from torch import Tensor

from csn.depthwise_triton import forward_kernel, scatter_kernel, total_kernel, weight_kernel

NDHWC = torch.channels_last_3d
Config = tuple[int, ...]  # groups, rows and columns of a group, channels, warps of a program; of sums also how many run on a multiprocessor
# Groups x channels / (32 x warps) is the channels of a thread, 2 or 4: it holds 27 coefficients or sums of each, and more do not fit
# its registers. With a stride only one position fits.
CONFIGS: tuple[Config, ...] = ((4, 1, 4, 64, 4), (4, 2, 4, 32, 2))
SUM_CONFIGS: tuple[Config, ...] = ((4, 1, 4, 32, 2, 6), (4, 1, 4, 32, 2, 5), (4, 1, 7, 32, 2, 4))
STRIDED_CONFIGS: tuple[Config, ...] = ((8, 1, 1, 64, 4), (8, 1, 1, 32, 2))
STRIDED_SUM_CONFIGS: tuple[Config, ...] = ((4, 1, 1, 64, 2, 4), (4, 1, 1, 32, 1, 8))
FRAMES = 8  # that a program of the weight gradient sums up at least, of its tile: its partial sums are then less than half of what it reads
MULTIPROCESSORS = 132  # of an H100, where there is no device to ask


def _rows(weight: Tensor) -> Tensor:
    """(C, 1, 3, 3, 3) -> (27, C): one load of neighbouring channels per tap."""
    return weight.reshape(weight.shape[0], 27).t().contiguous()


def configs(direction: str, stride: Sequence[int]) -> tuple[Config, ...]:
    """The tilings to choose from for "forward", "grad_input" or "grad_weight"; the first is the default."""
    strided = tuple(stride) != (1, 1, 1)
    if direction == "grad_weight":
        return STRIDED_SUM_CONFIGS if strided else SUM_CONFIGS
    return STRIDED_CONFIGS if strided else CONFIGS


@cache
def tiling(config: Config, plane: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, int]:
    """(groups in a row of a tile, tiles of a plane): those that read the fewest positions, borders and idle groups included.

    plane: height and width of the output; stride: of the last two axes.
    """
    groups, rows, columns = config[:3]

    def tiles(wide: int) -> int:
        return -(-plane[0] // (groups // wide * rows)) * -(-plane[1] // (columns * wide))

    def read(wide: int) -> int:
        return tiles(wide) * (groups // wide * rows * stride[0] + 2) * (columns * wide * stride[1] + 2)

    wide = min((2**n for n in range(groups.bit_length())), key=read)
    return wide, tiles(wide)


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else MULTIPROCESSORS


def _fixed(config: Config, plane: Sequence[int]) -> dict[str, int]:
    """What a config and the output plane fix in a kernel."""
    groups, rows, columns, channels, warps = config[:5]
    exact = plane[0] % rows == 0 and plane[1] % columns == 0
    return {"P": groups, "ROWS": rows, "COLUMNS": columns, "BLOCK": channels, "EXACT": exact, "num_warps": warps}


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int], config: Config, flip: bool = False) -> Tensor:
    """(B, C, T, H, W) -> (B, C, T/s, H/s, W/s), channels_last_3d, type of x."""
    x = x.contiguous(memory_format=NDHWC)
    b, c, t, h, w = x.shape
    size = [(n - 1) // s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    y = torch.empty((b, c, *size), dtype=x.dtype, device=x.device, memory_format=NDHWC)
    wide, tiles = tiling(config, tuple(size[1:]), tuple(stride[1:]))
    forward_kernel[(tiles, triton.cdiv(c, config[3]), b)](
        x, _rows(weight), y, t, h, w, size[1], size[2], wide, *((26, -1) if flip else (0, 1)), c, *stride, **_fixed(config, size[1:])
    )
    return y


def grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], config: Config) -> Tensor:
    """Output gradient -> input gradient (B, C, *sizes). The rows and columns of a config count only where there is no stride."""
    if tuple(stride) == (1, 1, 1):
        return convolve(g, weight, stride, config, flip=True)
    g = g.contiguous(memory_format=NDHWC)
    b, c = g.shape[:2]
    gx = torch.empty((b, c, *sizes), dtype=g.dtype, device=g.device, memory_format=NDHWC)
    p, _, _, block, warps = config
    wide, tiles = tiling((p, 1, 1, block, warps), g.shape[3:], (1, 1))
    scatter_kernel[(tiles, triton.cdiv(c, block), b)](
        g, _rows(weight), gx, *sizes, *g.shape[2:], wide, c, *stride, P=p, BLOCK=block, num_warps=warps
    )  # fmt: skip
    return gx


def grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], config: Config) -> Tensor:
    """Output gradient and input -> weight gradient (C, 1, 3, 3, 3), float32, of a weight whose values are not read."""
    g, x = g.contiguous(memory_format=NDHWC), x.contiguous(memory_format=NDHWC)
    b, c = x.shape[:2]
    blocks = triton.cdiv(c, config[3])
    wide, tiles = tiling(config, g.shape[3:], tuple(stride[1:]))
    together = _multiprocessors(x.device) * config[5] // blocks  # programs that run at the same time: one more would wait for all of them
    rounds = max(triton.cdiv(b * tiles, max(together, 1)), triton.cdiv(FRAMES, x.shape[2]))  # tiles of a program
    programs = triton.cdiv(b * tiles, rounds)
    partial = torch.empty((programs, 27, c), dtype=torch.float32, device=x.device)
    weight_kernel[(programs, blocks)](g, x, partial, b, *x.shape[2:], *g.shape[2:], wide, c, *stride, **_fixed(config, g.shape[3:]))
    gw = torch.empty((c, 1, 3, 3, 3), dtype=torch.float32, device=x.device)
    total_kernel[(triton.cdiv(27 * c, 16),)](partial, gw, programs, c, TALL=128, WIDE=16)
    return gw
