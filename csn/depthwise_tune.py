"""Which depthwise kernel runs on a CUDA device: the fastest there, by measurement, remembered.

The first call of a size and memory layout times the candidates: our Triton kernels in several tilings, torch's convolution in both memory layouts.
The fastest is taken, one of ours if it has torch's result, and the answer is kept in <cache>/csn/depthwise-<device and software>.json, where
<cache> is $XDG_CACHE_HOME or ~/.cache. Deleting the file measures again; so does another torch, Triton or text of our kernels. What was measured
while memory ran out, or could not be compared, stands for this process only. $CSN_DEPTHWISE fixes the choice instead: "triton" (its first tiling)
or "torch"; so does torch.use_deterministic_algorithms(True), to "triton", whose sums have a fixed order. With 16 bits the choice also decides
rounding, within the bounds of the tests: torch's convolutions take the weight in 16 bits, our kernels in 32.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from csn.files import write_json
from csn.spec import UserError, require

Way = Callable[..., Tensor]  # one way to do a task, from the task's arguments
NDHWC = torch.channels_last_3d
LAYOUTS = {"torch NDHWC": NDHWC, "torch NCDHW": torch.contiguous_format}
REPEATS, ROUNDS = 5, 3  # calls of a graph that is timed, and how often it is
ROUGH = 2**-5  # of the largest value: no rounding of 16 bits sets two results so far apart, and no wrong one comes so near
LONG = 5e-3  # seconds: what takes longer needs no graph
_chosen: dict[tuple[Any, ...], Way] = {}  # task, modes and facts of its arguments -> what does it


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """(B, C, T, H, W), (C, 1, kT, kH, kW) -> (B, C, T/s, H/s, W/s), channels_last_3d, type of x."""
    return fastest("forward", forward_ways, (x, weight, stride))


def grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Output gradient -> input gradient (B, C, *sizes), channels_last_3d, type of g."""
    return fastest("grad_input", grad_input_ways, (g, weight, sizes, stride))


def grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """Output gradient and input -> weight gradient, type of weight (whose values are not read)."""
    return fastest("grad_weight", grad_weight_ways, (g, x, weight, stride)).to(weight.dtype).contiguous()


# ---- candidates: name -> how to do the task; the first is the default ----------------------------------------------


def forward_ways(x: Tensor, weight: Tensor, stride: Sequence[int]) -> dict[str, Way]:
    return _ours("forward", x, weight, stride) | {name: partial(_torch_forward, layout=layout) for name, layout in LAYOUTS.items()}


def grad_input_ways(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> dict[str, Way]:
    return _ours("grad_input", g, weight, stride) | {name: partial(_torch_grad_input, layout=layout) for name, layout in LAYOUTS.items()}


def grad_weight_ways(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int]) -> dict[str, Way]:
    return _ours("grad_weight", x, weight, stride) | {name: partial(_torch_grad_weight, layout=layout) for name, layout in LAYOUTS.items()}


def _as(weight: Tensor, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """The weight with the strides of layout. Torch takes its kernel by them, too, and contiguous() lets those of the axis of size 1 be."""
    return weight.to(dtype).clone(memory_format=layout)


def _torch_forward(x: Tensor, weight: Tensor, stride: Sequence[int], layout: torch.memory_format) -> Tensor:
    x, weight = x.contiguous(memory_format=layout), _as(weight, x.dtype, layout)
    padding = [k // 2 for k in weight.shape[2:]]
    return torch.conv3d(x, weight, None, stride, padding, 1, weight.shape[0]).contiguous(memory_format=NDHWC)


def _torch_grad_input(g: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], layout: torch.memory_format) -> Tensor:
    like = torch.empty((*g.shape[:2], *sizes), dtype=g.dtype, device=g.device, memory_format=layout)
    return _torch_gradients(g, like, weight, stride, layout, (True, False, False))[0].contiguous(memory_format=NDHWC)


def _torch_grad_weight(g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], layout: torch.memory_format) -> Tensor:
    g = g.to(torch.promote_types(g.dtype, torch.float32))  # torch rounds the sums of 16-bit inputs to 16 bits
    return _torch_gradients(g, x, weight, stride, layout, (False, True, False))[1]


def _torch_gradients(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    layout: torch.memory_format,
    mask: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    g, x, w = g.contiguous(memory_format=layout), x.to(g.dtype).contiguous(memory_format=layout), _as(weight, g.dtype, layout)
    padding = [k // 2 for k in weight.shape[2:]]
    rest = (stride, padding, (1, 1, 1), False, (0, 0, 0), weight.shape[0], mask)
    return torch.ops.aten.convolution_backward(g, x, w, None, *rest)


def _ours(direction: str, x: Tensor, weight: Tensor, stride: Sequence[int]) -> dict[str, Way]:
    """Our kernels in their tilings, where they can do it."""
    if tuple(weight.shape[2:]) != (3, 3, 3) or x.dtype == torch.float64 or x.numel() == 0:
        return {}
    try:
        from csn import depthwise_tiles  # and with it Triton, which not every platform has
    except ImportError:
        return {}
    return depthwise_tiles.ways(direction, stride)


# ---- choice -------------------------------------------------------------------------------------------------------


def fastest(task: str, ways_of: Callable[..., dict[str, Way]], args: tuple[Any, ...]) -> Tensor:
    """The task done with args by the way that is, or was measured to be, the fastest for them.

    ways_of(*args): the candidates. Raises UserError where $CSN_DEPTHWISE is not auto, triton or torch, and what the default
    raises where no candidate can run.
    """
    modes = os.environ.get("CSN_DEPTHWISE", "auto"), torch.are_deterministic_algorithms_enabled()
    key = (task, modes, *[(a.shape, a.stride(), a.dtype, a.device) if isinstance(a, Tensor) else tuple(a) for a in args])
    way = _chosen.get(key)
    if way is None:
        ways = ways_of(*args)
        name, lasting = _choose(task, ways, args)
        way = ways[name]
        if lasting:
            _chosen[key] = way
    return way(*args)


def _choose(task: str, ways: dict[str, Way], args: tuple[Any, ...]) -> tuple[str, bool]:
    """The name of a way, and whether to keep to it in this process."""
    fixed = os.environ.get("CSN_DEPTHWISE", "auto")
    require(fixed in ("auto", "triton", "torch"), "CSN_DEPTHWISE", fixed, "must be auto, triton or torch")
    if fixed == "auto" and torch.are_deterministic_algorithms_enabled():
        fixed = "triton"
    if fixed != "auto":
        return next((name for name in ways if name.startswith(fixed)), "torch NDHWC"), True
    file, name = _file(), " ".join([task, *map(_told, args)])
    known = _read(file).get(name)
    if known in ways:
        return known, True
    default = next(iter(ways))
    if any(isinstance(arg, Tensor) and not arg.numel() for arg in args):  # nothing to compute
        return default, True
    if torch.cuda.is_current_stream_capturing():  # no time can be taken while a graph is captured
        return default, False
    times, memory_sufficed = {}, True
    for candidate, way in ways.items():
        try:
            times[candidate] = seconds(partial(way, *args))
        except torch.OutOfMemoryError:
            memory_sufficed = False
    ran = sorted((candidate for candidate, taken in times.items() if taken < float("inf")), key=times.__getitem__)
    if not ran:
        return default, False
    judge = next((candidate for candidate in ways if candidate in ran and candidate.startswith("torch")), ran[0])
    compared = ((one, one.startswith("torch") or one == judge or alike(one, ways[one], ways[judge], args)) for one in ran)
    best, sure = next((one, same) for one, same in compared if same is not False)
    if memory_sufficed and sure:
        with suppress(UserError):  # a cache
            write_json(file, {**_read(file), name: best}, durable=False)
    return best, True


def alike(name: str, way: Way, judge: Way, args: tuple[Any, ...]) -> bool | None:
    """Whether a way, called name, has the judge's result, but for the rounding of 16 bits; a warning tells where not. None where memory does not
    suffice to tell, or inputs that are not all numbers. Where the result is 0 they are compared on other inputs: so it is in the first step of a
    residual branch that begins as nothing, and of zeros every kernel makes zeros."""
    try:
        error, largest = apart(way, judge, args)
        if not largest:
            error, largest = apart(way, judge, tuple(drawn(arg) if isinstance(arg, Tensor) else arg for arg in args))
    except torch.OutOfMemoryError:
        return None
    if not isfinite(largest):
        return None
    if error <= ROUGH * largest:
        return True
    warnings.warn(f"the depthwise kernel `{name}`, the fastest here, is wrong by {error:.2g} of {largest:.2g} and is not used", stacklevel=2)
    return False


def apart(way: Way, judge: Way, args: tuple[Any, ...]) -> tuple[float, float]:
    """The largest difference of two ways' results, and the largest value of the judge's."""
    found, expected = way(*args).float(), judge(*args).float()
    return float((found - expected).abs().max()), float(expected.abs().max())


def drawn(like: Tensor) -> Tensor:
    """Normal numbers in the size, layout and type of a tensor; the program's own random numbers stay as they are."""
    return torch.empty_like(like).normal_(generator=torch.Generator(like.device).manual_seed(0))


def seconds(way: Callable[[], Tensor]) -> float:
    """Time of way on the current CUDA device, without that of its launch; infinite where it cannot run there (registers, shared memory).

    Raises torch.OutOfMemoryError, which says nothing of the way: there may be room the next time.
    """
    try:
        way()
        once = elapsed(way)
        return once if once > LONG else _graphed(way)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # torch's are RuntimeErrors; Triton's own (resources, its compilers) are not
        if isinstance(error, RuntimeError) or type(error).__module__.startswith("triton."):
            return float("inf")
        raise


def elapsed(work: Callable[[], object]) -> float:
    """Seconds of work between two marks on the device."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def _graphed(way: Callable[[], Tensor]) -> float:
    """Median seconds of way in a CUDA graph of several calls, which the device starts by itself."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")  # not torch.cuda.graph, which collects garbage and empties the cache first
        try:
            for _ in range(REPEATS):
                way()
        except BaseException:
            with suppress(RuntimeError):  # of the capture that broke off
                graph.capture_end()
            raise
        graph.capture_end()
        graph.replay()
        return median(elapsed(graph.replay) for _ in range(ROUNDS)) / REPEATS


def _told(arg: Any) -> str:
    """An argument in the cache file: size, strides and type of a tensor, or the numbers of a list."""
    numbers = lambda some: "x".join(map(str, some))
    return f"{numbers(arg.shape)}/{numbers(arg.stride())}/{arg.dtype}" if isinstance(arg, Tensor) else numbers(arg)


def _file() -> Path:
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        folder = Path(tempfile.gettempdir(), f"cache-{os.getuid()}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    where = re.sub(r"[^\w.+]+", "-", f"{device} {_software()}")
    return folder / "csn" / f"depthwise-{where}.json"


@cache
def _software() -> str:
    """What the times depend on beside the device: torch, Triton, and the text of our kernels."""
    try:
        from triton import __version__ as triton
    except ImportError:  # a platform without it
        triton = "none"
    text = b"".join(Path(__file__).with_name(f"depthwise_{part}.py").read_bytes() for part in ("triton", "tiles"))
    return f"torch {torch.__version__} triton {triton} kernels {hashlib.sha256(text).hexdigest()[:8]}"


def _read(file: Path) -> dict[str, str]:
    """The choices in the file, without what this program did not write: absent or damaged, they are measured again."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
