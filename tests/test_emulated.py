"""Our Triton kernels as compiled for a GPU (sm_90), carried out by an emulator: values and gradients against float64, without a GPU.

Triton's interpreter tests what the kernels say; this tests what the compiler makes of them: layouts, shared memory, barriers.
"""

from __future__ import annotations

from contextlib import nullcontext

import emulator
import pytest
import torch
import torch.nn.functional as F
from emulator import Emulated, Program
from machine_code import MISSING, REASON
from torch import Tensor, nn

from csn import depthwise as exact
from csn import depthwise_tiles, norm, norm_triton, stem, stem_triton
from csn.depthwise_tiles import Config

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}  # of a stored result, of the largest
ONE, TWO = (1, 1, 1), (2, 2, 2)


@pytest.fixture(autouse=True)
def emulated(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    for module in (depthwise_tiles, norm_triton, stem_triton):
        for name, kernel in list(vars(module).items()):
            if name.endswith("_kernel"):
                monkeypatch.setattr(module, name, Emulated(kernel))


def check(got: Tensor, want: Tensor, bound: float) -> None:
    assert got.shape == want.shape
    assert (got.double() - want).abs().max() <= bound * want.abs().max()


def check_depthwise(config: Config, sums: Config, size: tuple[int, ...], dtype: torch.dtype, stride: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(size).to(dtype), torch.randn(size[1], 1, 3, 3, 3)
    w64 = weight.double()
    y64 = exact.convolve(x.double(), w64, stride)
    g = torch.randn(y64.shape).to(dtype)
    check(depthwise_tiles.convolve(x, weight, stride, config), y64, ROUNDING[dtype])
    check(depthwise_tiles.grad_input(g, weight, size[2:], stride, config), exact.grad_input(g.double(), w64, size[2:], stride), ROUNDING[dtype])
    check(depthwise_tiles.grad_weight(g, x, weight, stride, sums), exact.grad_weight(g.double(), x.double(), (3, 3, 3), stride), 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("size", "stride"), [((2, 32, 3, 5, 7), ONE), ((1, 64, 2, 8, 8), ONE), ((1, 32, 3, 5, 6), TWO)], ids=str)
def test_depthwise(size, stride, dtype):
    config, sums = (depthwise_tiles.configs(direction, stride)[0] for direction in ("forward", "grad_weight"))
    check_depthwise(config, sums, size, dtype, stride)


def test_sums_of_a_long_tile():
    """Seven columns, which the compiler divides by with the upper half of a product."""
    config, sums = depthwise_tiles.CONFIGS[0], next(one for one in depthwise_tiles.SUM_CONFIGS if one.columns == 7)
    check_depthwise(config, sums, (1, 32, 2, 5, 9), torch.bfloat16, ONE)


def test_a_barrier_that_is_missing_shows(monkeypatch):
    monkeypatch.setattr(emulator, "Program", lambda text: Program(text.replace("bar.sync", "// bar.sync")))
    with pytest.raises(AssertionError):
        check_depthwise(depthwise_tiles.CONFIGS[0], depthwise_tiles.SUM_CONFIGS[0], (1, 32, 2, 8, 8), torch.bfloat16, ONE)


@pytest.mark.parametrize("mode", ["norm", "relu", "sum"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_batch_norm(dtype, mode, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(norm_triton, "TILE", 1024)
    monkeypatch.setattr(norm_triton, "PROGRAMS", 4)
    size = (2, 72, 3, 5, 4)
    ours = nn.BatchNorm3d(size[1], eps=1e-3, momentum=0.1).train()
    with torch.no_grad():
        for value in (ours.weight, ours.bias, ours.running_mean):
            value.normal_()
        ours.running_var.uniform_(1, 2)
    double = nn.BatchNorm3d(size[1], eps=1e-3, momentum=0.1).double().train()
    double.load_state_dict(ours.state_dict())
    y, other = (torch.randn(size).to(dtype).contiguous(memory_format=norm.NDHWC).requires_grad_() for _ in range(2))
    g = torch.randn(size).to(dtype).contiguous(memory_format=norm.NDHWC)
    y64, other64 = (t.detach().double().requires_grad_() for t in (y, other))
    z = norm.Fused.apply(y, ours.weight, ours.bias, other if mode == "sum" else None, mode != "norm", ours)
    z.backward(g)
    z64 = double(y64) + (other64 if mode == "sum" else 0)
    z64 = z64 if mode == "norm" else z64.relu()
    z64.backward(g.double())
    assert ours.num_batches_tracked == 1
    bound = 4 * ROUNDING[dtype]
    for got, want in (
        (z, z64), (y.grad, y64.grad), (ours.weight.grad, double.weight.grad), (ours.bias.grad, double.bias.grad),
        (ours.running_mean, double.running_mean), (ours.running_var, double.running_var),
    ):  # fmt: skip
        check(got, want, bound)
    if mode == "sum":
        check(other.grad, other64.grad, bound)
    ours.load_state_dict(double.eval().state_dict())
    z = norm.evaluated(ours.eval(), y.detach().clone(memory_format=torch.preserve_format), mode == "relu", other.detach() if mode == "sum" else None)
    want = double(y64) + (other64 if mode == "sum" else 0)
    check(z, want if mode == "norm" else want.relu(), bound)


def test_blocks_of_pixels(monkeypatch):
    monkeypatch.setattr(stem_triton, "TILE", 1024)
    x = torch.randint(-99, 99, (2, 3, 2, 5, 6)).float()
    assert torch.equal(stem_triton.blocks(x, torch.bfloat16, stem.BEFORE, 64), stem.in_blocks(x, torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_pool1(dtype, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(stem_triton, "TILE", 1024)
    x = torch.randint(-3, 3, (2, 72, 1, 5, 4)).to(dtype).contiguous(memory_format=norm.NDHWC).requires_grad_()
    y, place = stem_triton.pool(x.detach())
    want = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    g = torch.randint(-9, 9, want.shape).to(dtype).contiguous(memory_format=norm.NDHWC)
    want.backward(g)
    assert torch.equal(y, want) and torch.equal(stem_triton.unpool(g, place, x.shape), x.grad)
