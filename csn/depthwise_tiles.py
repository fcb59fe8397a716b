"""How the depthwise Triton kernels are started: tilings to choose from, grids, results. Kernels and their plan: csn.depthwise_triton."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from csn.depthwise_triton import forward_kernel, scatter_kernel, total_kernel, weight_kernel

NDHWC = torch.channels_last_3d


class Config(NamedTuple):
    """How a program is cut: groups of rows x columns outputs, channels, warps; of sums, how many programs run together on a multiprocessor."""

    groups: int
    rows: int
    columns: int
    channels: int
    warps: int
    together: int = 0

    def __str__(self) -> str:
        return f"triton {tuple(self[: 6 if self.together else 5])}"


# Groups x channels / (32 x warps) is the channels of a thread, 2 or 4: it holds 27 coefficients or sums of each, and more do not fit
# its registers. With a stride only one position fits.
CONFIGS = (Config(4, 1, 4, 64, 4), Config(4, 2, 4, 32, 2))
SUM_CONFIGS = (Config(4, 1, 4, 32, 2, 6), Config(4, 1, 4, 32, 2, 5), Config(4, 1, 7, 32, 2, 4))
STRIDED_CONFIGS = (Config(8, 1, 1, 64, 4), Config(8, 1, 1, 32, 2))
STRIDED_SUM_CONFIGS = (Config(4, 1, 1, 64, 2, 4), Config(4, 1, 1, 32, 1, 8))
FRAMES = 8  # that a program of the weight gradient sums up at least, of its tile: its partial sums are then less than half of what it reads
MULTIPROCESSORS = 132  # of an H100, where there is no device to ask


def _rows(weight: Tensor) -> Tensor:
    """(C, 1, 3, 3, 3) -> (27, C): one load of neighbouring channels per tap."""
    return weight.reshape(weight.shape[0], 27).t().contiguous()


def configs(direction: str, stride: Sequence[int]) -> tuple[Config, ...]:
    """The tilings to choose from for "forward", "grad_input" or "grad_weight"; the first is the default."""
    sums = direction == "grad_weight"
    if tuple(stride) != (1, 1, 1):
        return STRIDED_SUM_CONFIGS if sums else STRIDED_CONFIGS
    return SUM_CONFIGS if sums else CONFIGS


def ways(direction: str, stride: Sequence[int]) -> dict[str, Callable[..., Tensor]]:
    """Name -> how to do the task "forward", "grad_input" or "grad_weight", from the arguments of the function below."""
    tasks: dict[str, Callable[..., Tensor]] = {"forward": convolve, "grad_input": grad_input, "grad_weight": grad_weight}
    return {str(one): partial(tasks[direction], config=one) for one in configs(direction, stride)}


@cache
def tiling(config: Config, plane: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, int]:
    """(groups in a row of a tile, tiles of a plane): those that read the fewest positions, borders and idle groups included.

    plane: height and width of the output; stride: of the last two axes.
    """
    groups, rows, columns, *_ = config

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
    groups, rows, columns, channels, warps, *_ = config
    exact = plane[0] % rows == 0 and plane[1] % columns == 0
    return {"P": groups, "ROWS": rows, "COLUMNS": columns, "BLOCK": channels, "EXACT": exact, "num_warps": warps}


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int], config: Config, flip: bool = False) -> Tensor:
    """(B, C, T, H, W) -> (B, C, T/s, H/s, W/s), channels_last_3d, type of x."""
    x = x.contiguous(memory_format=NDHWC)
    b, c, t, h, w = x.shape
    size = [(n - 1) // s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    y = torch.empty((b, c, *size), dtype=x.dtype, device=x.device, memory_format=NDHWC)
    wide, tiles = tiling(config, tuple(size[1:]), tuple(stride[1:]))
    blocks, order, fixed = triton.cdiv(c, config.channels), (26, -1) if flip else (0, 1), _fixed(config, size[1:])
    forward_kernel[(tiles, blocks, b)](x, _rows(weight), y, t, h, w, *size[1:], wide, *order, c, *stride, **fixed)
    return y


def grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], config: Config) -> Tensor:
    """Output gradient -> input gradient (B, C, *sizes). The rows and columns of a config count only where there is no stride."""
    if tuple(stride) == (1, 1, 1):
        return convolve(g, weight, stride, config, flip=True)
    g = g.contiguous(memory_format=NDHWC)
    b, c = g.shape[:2]
    gx = torch.empty((b, c, *sizes), dtype=g.dtype, device=g.device, memory_format=NDHWC)
    wide, tiles = tiling(config._replace(rows=1, columns=1), g.shape[3:], (1, 1))
    scatter_kernel[(tiles, triton.cdiv(c, config.channels), b)](
        g, _rows(weight), gx, *sizes, *g.shape[2:], wide, c, *stride, P=config.groups, BLOCK=config.channels, num_warps=config.warps
    )  # fmt: skip
    return gx


def grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], config: Config) -> Tensor:
    """Output gradient and input -> weight gradient (C, 1, 3, 3, 3), float32, of a weight whose values are not read."""
    g, x = g.contiguous(memory_format=NDHWC), x.contiguous(memory_format=NDHWC)
    b, c = x.shape[:2]
    blocks = triton.cdiv(c, config.channels)
    wide, tiles = tiling(config, g.shape[3:], tuple(stride[1:]))
    together = _multiprocessors(x.device) * config.together // blocks  # programs that run at the same time: one more would wait for all of them
    rounds = max(triton.cdiv(b * tiles, max(together, 1)), triton.cdiv(FRAMES, x.shape[2]))  # tiles of a program
    programs = triton.cdiv(b * tiles, rounds)
    parts = torch.empty((programs, 27, c), dtype=torch.float32, device=x.device)
    weight_kernel[(programs, blocks)](g, x, parts, b, *x.shape[2:], *g.shape[2:], wide, c, *stride, **_fixed(config, g.shape[3:]))
    gw = torch.empty((c, 1, 3, 3, 3), dtype=torch.float32, device=x.device)
    total_kernel[(triton.cdiv(27 * c, 16),)](parts, gw, programs, c, TALL=128, WIDE=16)
    return gw
