"""Which depthwise kernel runs on a CUDA device: the fastest there, by measurement, remembered.

The first call of a shape times the candidates - our Triton kernels in several tilings, torch's convolution in both
memory layouts - and the answer is kept in <cache>/csn/depthwise-<device>.json, where <cache> is $XDG_CACHE_HOME or
~/.cache. Deleting the file measures again. $CSN_DEPTHWISE fixes the choice instead: "triton" (its first tiling) or
"torch"; so does torch.use_deterministic_algorithms(True), to "triton", whose sums have a fixed order.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from csn.files import write_json
from csn.spec import UserError, require

Way = Callable[[], Tensor]
NDHWC = torch.channels_last_3d
LAYOUTS = {"torch NDHWC": NDHWC, "torch NCDHW": torch.contiguous_format}
REPEATS = 5
_known: dict[Path, dict[str, str]] = {}  # cache file -> {task and shape: name of the fastest way}


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """(B, C, T, H, W), (C, 1, kT, kH, kW) -> (B, C, T/s, H/s, W/s), channels_last_3d, type of x."""
    return fastest(f"forward {_name(x, weight, stride)}", forward_ways(x, weight, stride))


def grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Output gradient -> input gradient (B, C, *sizes), channels_last_3d, type of g."""
    name = f"grad_input {_name(g, weight, stride)} {'x'.join(map(str, sizes))}"
    return fastest(name, grad_input_ways(g, weight, sizes, stride))


def grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """Output gradient and input -> weight gradient, type of weight (whose values are not read)."""
    return fastest(f"grad_weight {_name(x, weight, stride)}", grad_weight_ways(g, x, weight, stride)).to(weight.dtype)


# ---- candidates ---------------------------------------------------------------------------------------------------


def forward_ways(x: Tensor, weight: Tensor, stride: Sequence[int]) -> dict[str, Way]:
    """Name -> how to compute the convolution; the first is the default."""
    ways: dict[str, Way] = {}
    if _has_kernel(x, weight):
        from csn import depthwise_triton as ours

        ways |= {f"triton {c}": partial(ours.convolve, x, weight, stride, c) for c in ours.MAP_CONFIGS}

    def conv(layout: torch.memory_format) -> Tensor:
        cast = weight.to(x.dtype).contiguous(memory_format=layout)
        padding = [k // 2 for k in weight.shape[2:]]
        y = torch.conv3d(x.contiguous(memory_format=layout), cast, None, stride, padding, 1, weight.shape[0])
        return y.contiguous(memory_format=NDHWC)

    return ways | {name: partial(conv, layout) for name, layout in LAYOUTS.items()}


def grad_input_ways(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> dict[str, Way]:
    """Name -> how to compute the gradient of the input; the first is the default."""
    ways: dict[str, Way] = {}
    if _has_kernel(g, weight):
        from csn import depthwise_triton as ours

        ways |= {f"triton {c}": partial(ours.grad_input, g, weight, sizes, stride, c) for c in ours.MAP_CONFIGS}

    def conv(layout: torch.memory_format) -> Tensor:
        like = torch.empty((*g.shape[:2], *sizes), dtype=g.dtype, device=g.device, memory_format=layout)
        gx = _torch_gradients(g, like, weight, stride, layout, (True, False, False))[0]
        return gx.contiguous(memory_format=NDHWC)

    return ways | {name: partial(conv, layout) for name, layout in LAYOUTS.items()}


def grad_weight_ways(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int]) -> dict[str, Way]:
    """Name -> how to compute the gradient of the weight; the first is the default."""
    ways: dict[str, Way] = {}
    if _has_kernel(x, weight):
        from csn import depthwise_triton as ours

        ways |= {f"triton {c}": partial(ours.grad_weight, g, x, stride, c) for c in ours.SUM_CONFIGS}

    def conv(layout: torch.memory_format) -> Tensor:
        return _torch_gradients(g, x, weight, stride, layout, (False, True, False))[1]

    return ways | {name: partial(conv, layout) for name, layout in LAYOUTS.items()}


def _torch_gradients(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    layout: torch.memory_format,
    mask: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    g, x, w = (t.to(g.dtype).contiguous(memory_format=layout) for t in (g, x, weight))
    padding = [k // 2 for k in weight.shape[2:]]
    rest = (stride, padding, (1, 1, 1), False, (0, 0, 0), weight.shape[0], mask)
    return torch.ops.aten.convolution_backward(g, x, w, None, *rest)


def _has_kernel(x: Tensor, weight: Tensor) -> bool:
    return tuple(weight.shape[2:]) == (3, 3, 3) and x.dtype != torch.float64 and x.numel() > 0


# ---- choice -------------------------------------------------------------------------------------------------------


def fastest(key: str, ways: dict[str, Way]) -> Tensor:
    """The result of the way that is, or was measured to be, the fastest for key.

    Raises UserError where $CSN_DEPTHWISE is not auto, triton or torch.
    """
    return ways[_choose(key, ways)]()


def _choose(key: str, ways: dict[str, Way]) -> str:
    fixed = os.environ.get("CSN_DEPTHWISE", "auto")
    require(fixed in ("auto", "triton", "torch"), "CSN_DEPTHWISE", fixed, "must be auto, triton or torch")
    if fixed == "auto" and (torch.are_deterministic_algorithms_enabled() or torch.cuda.is_current_stream_capturing()):
        fixed = "triton"  # no time can be taken while a graph is captured
    if fixed != "auto":
        return next((name for name in ways if name.startswith(fixed)), "torch NDHWC")
    file = _file()
    known = _known.setdefault(file, _read(file))
    if known.get(key) not in ways:
        times = {name: seconds(way) for name, way in ways.items()}
        known[key] = min(times, key=times.__getitem__)
        with suppress(UserError):  # a cache
            write_json(file, {**_read(file), **known}, durable=False)
    return known[key]


def seconds(way: Way) -> float:
    """Median time of way on the current CUDA device; infinite where it cannot run (memory, registers)."""
    try:
        way(), way()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(REPEATS + 1)]
        marks[0].record()
        for mark in marks[1:]:
            way()
            mark.record()
        marks[-1].synchronize()
    except RuntimeError:
        return float("inf")
    return median(a.elapsed_time(b) for a, b in pairwise(marks)) / 1e3


def _name(x: Tensor, weight: Tensor, stride: Sequence[int]) -> str:
    return " ".join("x".join(map(str, part)) for part in (x.shape, weight.shape[2:], stride)) + f" {x.dtype}"


def _file() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    where = re.sub(r"[^\w.+]+", "-", f"{device} torch {torch.__version__}")
    return cache / "csn" / f"depthwise-{where}.json"


def _read(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):  # absent or cut short: measure again
        return {}
