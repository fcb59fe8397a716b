"""The depthwise convolution against torch's own, in float64: values, gradients, layouts, types, compilers."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck

from csn import depthwise_tune
from csn.depthwise import NDHWC, DepthwiseConv3d, depthwise_conv3d
from csn.spec import UserError

STRIDES = list(product((1, 2), repeat=3))
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
DEVICES = ["cpu", CUDA]
SIZES = [(1, 1, 1, 1, 1), (2, 3, 1, 1, 5), (3, 2, 4, 5, 3), (1, 4, 5, 3, 4), (2, 17, 2, 6, 1)]


@pytest.fixture(autouse=True)
def seed_and_one_thread():
    """Tensors here are tiny: on a busy machine, threads would mostly wait for each other."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference(x: Tensor, weight: Tensor, stride, g_type=torch.float64):
    """Output, output gradient, and both gradients, by torch in float64."""
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    y = F.conv3d(x, weight, None, stride, [k // 2 for k in weight.shape[2:]], 1, x.shape[1])
    g = torch.randn_like(y).to(g_type).double()
    return y, g, *torch.autograd.grad(y, (x, weight), g)


def check(x: Tensor, weight: Tensor, stride, bound: float) -> None:
    y, g, gx, gw = reference(x.cpu(), weight.cpu(), stride, x.dtype)
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = depthwise_conv3d(x, weight, stride)
    got = (out, *torch.autograd.grad(out, (x, weight), g.to(out)))
    assert out.dtype == got[1].dtype == x.dtype and got[2].dtype == weight.dtype
    assert out.is_contiguous(memory_format=NDHWC) and got[1].is_contiguous(memory_format=NDHWC)
    for a, b in zip(got, (y, gx, gw), strict=True):
        assert a.shape == b.shape
        assert (a.cpu().double() - b).abs().max() <= bound * max(1.0, b.abs().max().item())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stride", STRIDES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_torch_in_both_layouts(size, stride, device):
    weight = torch.randn(size[1], 1, 3, 3, 3, device=device)
    for layout in (torch.contiguous_format, NDHWC):
        check(torch.randn(size, device=device).contiguous(memory_format=layout), weight, stride, 1e-5)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (5, 3, 1), (5, 5, 5)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 2)], ids=str)
def test_other_filter_sizes(kernel, stride):
    check(torch.randn(3, 2, 7, 4, 5), torch.randn(2, 1, *kernel), stride, 1e-5)
    check(torch.randn(3, 2, 2, 4, 5), torch.randn(2, 1, *kernel), stride, 1e-5)


def test_long_sums_stay_within_the_stated_bound():
    check(torch.randn(4, 16, 8, 28, 28), torch.randn(16, 1, 3, 3, 3), (1, 1, 1), 2e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_inputs_sum_in_float32(dtype, device):
    """Only the stored results are rounded: the weight gradient, stored in float32, keeps float32's accuracy."""
    x = torch.randn(2, 4, 4, 6, 5, device=device).to(dtype)
    check(x, torch.randn(4, 1, 3, 3, 3, device=device), (1, 2, 2), 8e-3)
    _, g, _, gw = reference(x.cpu(), torch.randn(4, 1, 3, 3, 3), (1, 1, 1), dtype)
    weight = torch.randn(4, 1, 3, 3, 3, device=device).requires_grad_()
    depthwise_conv3d(x, weight).backward(g.to(x))
    assert (weight.grad.cpu() - gw).abs().max() <= 1e-5 * gw.abs().max()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)], ids=str)
def test_gradcheck_and_operator_contract(stride):
    x = torch.randn(2, 2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *a: depthwise_conv3d(*a, stride), (x, weight), fast_mode=stride != (1, 1, 1))
    torch.library.opcheck(torch.ops.csn.depthwise_conv3d.default, (x, weight, stride))
    g = torch.randn_like(depthwise_conv3d(x, weight, stride)).detach()
    plain = (x.detach(), weight.detach())
    torch.library.opcheck(torch.ops.csn.depthwise_conv3d_grad_input.default, (g, plain[1], x.shape[2:], stride))
    torch.library.opcheck(torch.ops.csn.depthwise_conv3d_grad_weight.default, (g, *plain, stride))


def test_only_the_wanted_gradients_are_computed():
    x, weight = torch.randn(1, 2, 2, 3, 3), torch.randn(2, 1, 3, 3, 3)
    depthwise_conv3d(x, weight.requires_grad_()).sum().backward()
    assert x.grad is None and weight.grad is not None
    frozen = weight.detach()
    depthwise_conv3d(x.requires_grad_(), frozen).sum().backward()
    assert x.grad is not None and frozen.grad is None


def test_same_inputs_same_bits():
    x, weight, g = torch.randn(3, 16, 5, 9, 9), torch.randn(16, 1, 3, 3, 3), torch.randn(3, 16, 5, 9, 9)
    results = []
    for _ in range(3):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = depthwise_conv3d(a, b)
        results.append((y, *torch.autograd.grad(y, (a, b), g)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_compile_export_autocast_meta():
    module, x = DepthwiseConv3d(3, (2, 2, 2)), torch.randn(2, 3, 5, 6, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))
    compiled(x).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        for run in (module, compiled):
            y = run(x)
            assert y.dtype == torch.bfloat16
            assert torch.allclose(y.float(), module(x.bfloat16()).float(), atol=0)
        assert module(x.double()).dtype == torch.float64
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},)).module()
    longer = torch.randn(5, 3, 5, 6, 4)
    assert torch.equal(program(longer), module(longer))
    assert module.to("meta")(x.to("meta")).shape == (2, 3, 3, 3, 2)


def test_module_shares_its_state_dict_with_conv3d():
    theirs, ours = nn.Conv3d(4, 4, 3, (1, 2, 2), 1, groups=4, bias=False), DepthwiseConv3d(4, (1, 2, 2))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert "4, stride=(1, 2, 2)" in repr(ours)


@pytest.mark.parametrize(
    ("x", "weight", "stride", "name"),
    [
        ((2, 4, 3, 3), (4, 1, 3, 3, 3), (1, 1, 1), "x.ndim"),
        ((2, 4, 3, 3, 3), (4, 4, 3, 3, 3), (1, 1, 1), "weight.shape"),
        ((2, 4, 3, 3, 3), (6, 1, 3, 3, 3), (1, 1, 1), "weight.shape"),
        ((2, 4, 3, 3, 3), (4, 1, 2, 3, 3), (1, 1, 1), "weight.shape"),
        ((2, 4, 3, 3, 3), (4, 1, 3, 3, 3), (1, 3, 1), "stride"),
    ],
)
def test_wrong_sizes_are_named(x, weight, stride, name):
    with pytest.raises(UserError, match=f"`{name}`"):
        depthwise_conv3d(torch.zeros(x), torch.zeros(weight), stride)


# ---- the choice of a kernel ---------------------------------------------------------------------------------------


def test_the_choice_is_measured_once_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CSN_DEPTHWISE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(depthwise_tune, "_known", {})
    clock = {"triton a": 3.0, "torch NDHWC": 1.0, "torch NCDHW": 2.0}
    ways = {name: lambda name=name: name for name in clock}
    asked = []
    monkeypatch.setattr(depthwise_tune, "seconds", lambda way: asked.append(way()) or clock[way()])
    assert depthwise_tune.fastest("k", ways) == depthwise_tune.fastest("k", ways) == "torch NDHWC"
    assert asked == list(clock)
    depthwise_tune._known.clear()  # as in another process
    assert depthwise_tune.fastest("k", ways) == "torch NDHWC" and len(asked) == 3
    next((tmp_path / "csn").iterdir()).write_text("{")  # damaged: measured again
    depthwise_tune._known.clear()
    assert depthwise_tune.fastest("k", ways) == "torch NDHWC" and len(asked) == 6
    monkeypatch.setenv("CSN_DEPTHWISE", "triton")
    assert depthwise_tune.fastest("k", ways) == "triton a" and len(asked) == 6
    monkeypatch.setenv("CSN_DEPTHWISE", "cudnn")
    with pytest.raises(UserError, match="CSN_DEPTHWISE"):
        depthwise_tune.fastest("k", ways)


def test_deterministic_mode_fixes_the_choice(monkeypatch):
    monkeypatch.delenv("CSN_DEPTHWISE", raising=False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert depthwise_tune.fastest("k", {"triton a": lambda: 1, "triton b": lambda: 2, "torch NDHWC": lambda: 3}) == 1


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 2)], ids=str)
def test_torch_candidates_agree(stride):
    x, weight = torch.randn(2, 3, 4, 5, 4), torch.randn(3, 1, 5, 3, 3)
    y, g, gx, gw = reference(x, weight, stride)
    for ways, want in (
        (depthwise_tune.forward_ways(x, weight, stride), y),
        (depthwise_tune.grad_input_ways(g.float(), weight, x.shape[2:], stride), gx),
        (depthwise_tune.grad_weight_ways(g.float(), x, weight, stride), gw),
    ):
        assert list(ways) == ["torch NDHWC", "torch NCDHW"]
        assert all((way().double() - want).abs().max() < 1e-4 for way in ways.values())


INTERPRETED = """
import torch
from csn import depthwise as exact, depthwise_triton as ours

torch.manual_seed(0)
wide, short = (torch.float32, 1e-5), (torch.bfloat16, 2e-2)
for size, stride, types in (
    ((2, 5, 3, 3, 4), (1, 1, 1), (wide, short)),
    ((1, 17, 1, 1, 1), (1, 1, 1), (wide,)),
    ((1, 3, 3, 5, 3), (2, 1, 2), (wide,)),
):
    x, weight = torch.randn(size), torch.randn(size[1], 1, 3, 3, 3)
    x64, w64 = x.double(), weight.double()
    y64 = exact.convolve(x64, w64, stride)
    g64 = torch.randn(y64.shape).double()
    gx64 = exact.grad_input(g64, w64, size[2:], stride)
    gw64 = exact.grad_weight(g64, x64, (3, 3, 3), stride)
    for dtype, bound in types:
        x, g = x64.to(dtype), g64.to(dtype)
        y = ours.convolve(x, weight, stride, (32, 32, 4))
        gx = ours.grad_input(g, weight, size[2:], stride, (32, 32, 4))
        gw = ours.grad_weight(g, x, stride, (16, 32, 4))
        for got, want in (y, y64), (gx, gx64), (gw, gw64):
            assert got.shape == want.shape
            assert (got.double() - want).abs().max() <= bound * want.abs().max(), (size, stride, dtype)
print("equal")
"""


def test_triton_kernels_under_the_interpreter():
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr
