"""The 1x1x1 convolution against torch's in float64, and the memory that a process keeps."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from csn import pointwise
from csn.pointwise import FEW, FEW_16BIT, FRAMES, NDHWC, WORTH, PointwiseConv3d, Subsample, pointwise_conv3d


@pytest.mark.parametrize("size", [(1, 3, 1, 1, 1), (2, 5, 3, 4, 2), (8, 5, 2, 16, 17), (1, 5, 8, 24, 24)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, NDHWC], ids=str)
def test_equals_torch(size, layout):
    """Few positions, many positions in many frames, many positions in few frames."""
    torch.manual_seed(0)
    x = torch.randn(size).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(7, size[1], 1, 1, 1).requires_grad_()
    y = pointwise_conv3d(x, weight)
    g = torch.randn_like(y)
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    want = F.conv3d(*exact)
    assert y.is_contiguous(memory_format=NDHWC)
    got = (y, *torch.autograd.grad(y, (x, weight), g))
    for a, b in zip(got, (want, *torch.autograd.grad(want, exact, g.double())), strict=True):
        assert a.shape == b.shape
        assert (a.double() - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())


def test_sizes_cover_every_branch():
    assert 2 * 3 * 4 * 2 < FEW < 8 * 2 * 16 * 17 < 8 * 24 * 24


@pytest.mark.parametrize(("dtype", "few"), [(torch.float32, FEW), (torch.float64, FEW), (torch.bfloat16, FEW_16BIT), (torch.float16, FEW_16BIT)], ids=str)
def test_few_positions_are_a_product_and_many_a_convolution(dtype, few):
    weight = torch.randn(2, 3, 1, 1, 1, dtype=dtype, requires_grad=True)
    for frames, width, convolved in ((FRAMES, few // FRAMES, False), (FRAMES, few // FRAMES + 1, True), (FRAMES - 1, few, False)):
        y = pointwise_conv3d(torch.randn(1, 3, frames, 1, width, dtype=dtype), weight)
        assert any("Convolution" in step for step in graph(y)) == convolved


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("size", [(2, 5, 3, 5, 4), (1, 5, 1, 1, 2), (9, 5, 4, 33, 34)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, NDHWC], ids=str)
def test_strided_equals_torch_by_either_way(size, stride, layout, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(size).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(7, size[1], 1, 1, 1).requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    want = F.conv3d(*exact, None, stride)
    g = torch.randn(want.shape)
    wants = (want, *torch.autograd.grad(want, exact, g.double()))
    for worth in (0, WORTH):
        monkeypatch.setattr(pointwise, "WORTH", worth)
        y = pointwise_conv3d(x, weight, stride)
        assert ("Subsample" in str(graph(y))) == (worth == 0)
        for a, b in zip((y, *torch.autograd.grad(y, (x, weight), g)), wants, strict=True):
            assert a.shape == b.shape
            assert (a.double() - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())


def graph(y: torch.Tensor) -> list[str]:
    """The names of the steps that made y."""
    names, waiting = [], [y.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None:
            names.append(type(step).__name__)
            waiting += [before for before, _ in step.next_functions]
    return names


def test_subsampling_has_exact_gradients_once_and_twice():
    x = torch.randn(2, 3, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: Subsample.apply(t, (2, 2, 2)), x)
    assert torch.autograd.gradgradcheck(lambda t: Subsample.apply(t, (1, 2, 2)), x)
    weigh = lambda t: (Subsample.apply(t, (2, 2, 2)) ** 2).sum()
    assert torch.equal(torch.func.grad(weigh)(x), torch.autograd.grad(weigh(x), x)[0])


def test_small_strided_layers_keep_the_bits_of_torch(monkeypatch):
    """Committed results rest on them."""
    torch.manual_seed(0)
    x = torch.randn(32, 64, 4, 16, 16).contiguous(memory_format=NDHWC).requires_grad_()  # of all strided layers at scales small and photo the largest
    weight = torch.randn(128, 64, 1, 1, 1).requires_grad_()
    g = torch.randn(32, 128, 2, 8, 8).contiguous(memory_format=NDHWC)

    def found(y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (y, *torch.autograd.grad(y, (x, weight), g))

    want = found(F.conv3d(x, weight, None, (2, 2, 2)))
    assert all(map(torch.equal, found(pointwise_conv3d(x, weight, (2, 2, 2))), want))
    monkeypatch.setattr(pointwise, "WORTH", 0)
    assert not torch.equal(found(pointwise_conv3d(x, weight, (2, 2, 2)))[2], want[2])  # the product sums in another order


def test_same_state_dict_type_under_autocast_and_shape_on_meta():
    theirs, ours = nn.Conv3d(4, 6, 1, bias=False), PointwiseConv3d(4, 6)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), theirs(x), atol=1e-6)
    assert ours.to("meta")(x.to("meta")).shape == (2, 6, 3, 5, 5)
    assert "4, 6, stride=(1, 1, 1)" in repr(ours)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_strided_under_autocast_compiled_and_on_meta(stride, monkeypatch):
    monkeypatch.setattr(pointwise, "WORTH", 0)
    ours = PointwiseConv3d(4, 6, stride)
    x = torch.randn(2, 4, 3, 5, 5)
    want = F.conv3d(x, ours.weight, None, stride)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), want, atol=1e-6)
    assert ours.to("meta")(x.to("meta")).shape == want.shape


FAULTS = """
import resource, sys, torch
from csn.memory import keep_memory
assert sys.argv[1] == "no" or keep_memory()
torch.set_num_threads(1)
for i in range(30):  # the heap settles within ten
    if i == 25:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    a = torch.ones(2**23)
    del a
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_kept_memory_is_not_mapped_again():
    def faults(keep: str) -> int:
        run = [sys.executable, "-c", FAULTS, keep]
        return int(subprocess.run(run, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stdout)

    assert faults("yes") < 100 < faults("no")
