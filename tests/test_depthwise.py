"""The depthwise convolution against torch's own, in float64: values, gradients, layouts, types, compilers."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import hessian
from torch.func import grad, jvp

from csn import depthwise, depthwise_tune
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


def test_the_longest_sums_are_made_of_shorter_ones():
    """Of 1.6 million products, as in the first stage for 16 clips of 32 x 224 x 224: 2.1e-5 to 4.4e-5 in one piece by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, g = torch.randn(16, 8, 32, 56, 56).relu().to(memory_format=NDHWC), torch.randn(16, 8, 32, 56, 56).to(memory_format=NDHWC)
    found = depthwise.grad_weight(g, x, (3, 3, 3), (1, 1, 1))
    torch.set_num_threads(threads)
    want = depthwise.grad_weight(g.double(), x.double(), (3, 3, 3), (1, 1, 1))
    assert (found - want).abs().max() <= 1.5e-5 * want.abs().max()
    plane = torch.einsum("bcthw,bcthw->c", g.double(), x.double())
    assert torch.allclose(want[:, 0, 1, 1, 1], plane)


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)], ids=str)
def test_every_tiling_of_our_kernels_on_cuda(dtype, bound, stride):
    x, weight = torch.randn(2, 64, 3, 28, 28, device="cuda").to(dtype), torch.randn(64, 1, 3, 3, 3, device="cuda")
    y, g, gx, gw = reference(x.cpu(), weight.cpu(), stride, dtype)
    g = g.to(x)
    for direction, args, want in (
        ("forward", (x, weight, stride), y),
        ("grad_input", (g, weight, x.shape[2:], stride), gx),
        ("grad_weight", (g, x, weight, stride), gw),
    ):
        for name, way in depthwise_tune._ours(direction, x, weight, stride).items():
            rounding = 1e-5 if direction == "grad_weight" else bound
            assert (way(*args).cpu().double() - want).abs().max() <= rounding * want.abs().max(), name


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # of torch itself, the first time that it differentiates forwards
@pytest.mark.parametrize(
    ("stride", "kernel"), [((1, 1, 1), (3, 3, 3)), ((2, 2, 2), (3, 3, 3)), ((1, 2, 2), (3, 3, 3)), ((1, 1, 1), (1, 3, 3)), ((2, 1, 2), (5, 3, 1))], ids=str
)
def test_gradcheck(stride, kernel):
    x = torch.randn(2, 2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, *kernel, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *a: depthwise_conv3d(*a, stride), (x, weight), fast_mode=stride != (1, 1, 1), check_forward_ad=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_operators_keep_what_their_fakes_promise(stride, device):
    """Shapes, strides and types, of all three: torch.compile plans memory by them."""
    x, weight = torch.randn(2, 2, 3, 4, 3, device=device, requires_grad=True), torch.randn(2, 1, 3, 3, 3, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.csn.depthwise_conv3d.default, (x, weight, stride))
    g = torch.randn_like(depthwise_conv3d(x, weight, stride)).detach()
    plain = (x.detach(), weight.detach())
    torch.library.opcheck(torch.ops.csn.depthwise_conv3d_grad_input.default, (g, plain[1], x.shape[2:], stride))
    torch.library.opcheck(torch.ops.csn.depthwise_conv3d_grad_weight.default, (g, *plain, stride))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # of torch itself, the first time that it differentiates forwards
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_derivatives_forwards_are_those_of_torch(dtype, device, monkeypatch):
    """And backwards through them."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x, weight = torch.randn(2, 3, 3, 5, 4, device=device).to(dtype), torch.randn(3, 1, 3, 3, 3, device=device)
    dx, dweight = torch.randn_like(x), torch.randn_like(weight)

    def ours(x, weight):
        return depthwise_conv3d(x, weight, (1, 2, 2)).double().square()

    def theirs(x, weight):
        return F.conv3d(x.double(), weight.double(), None, (1, 2, 2), 1, 1, 3).square()

    def along(way):
        return jvp(way, (x, weight), (dx, dweight))[1]

    def slope(way):
        return grad(lambda w: jvp(lambda w: way(x, w).sum(), (w,), (dweight,))[1])(weight)

    for derivative in (along, slope):
        found, want = derivative(ours), derivative(theirs)
        assert (found - want).abs().max() <= (1e-5 if dtype == torch.float32 else 2**-6) * want.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_second_derivatives(stride, device):
    """Of those that ask for the gradient of a gradient that no other operation needs, too: a Hessian."""
    x = torch.randn(2, 2, 3, 4, 3, dtype=torch.float64, device=device, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert gradgradcheck(lambda *a: depthwise_conv3d(*a, stride), (x, weight), fast_mode=True)
    ours, theirs = (
        hessian(lambda w, way=way: way(x.detach(), w).square().sum(), weight.detach())
        for way in (lambda x, w: depthwise_conv3d(x, w, stride), lambda x, w: F.conv3d(x, w, None, stride, 1, 1, 2))
    )
    assert theirs.abs().max() > 1 and torch.allclose(ours, theirs)
    half, single = x.detach().bfloat16(), weight.detach().float().requires_grad_()
    (g,) = torch.autograd.grad(depthwise_conv3d(half, single, stride).float().square().sum(), single, create_graph=True)
    assert g.dtype == torch.float32 and torch.autograd.grad(g.sum(), single)[0].abs().max() > 0


@pytest.mark.parametrize("size", [(3, 1, 2, 2, 2), (2, 1, 3, 5, 1), (4, 1, 1, 3, 2)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1, 2), (2, 2, 2)], ids=str)
def test_one_channel_and_few_columns(size, stride):
    """Where torch's own reads beyond the map, with the strides that channels_last_3d may have then."""
    _, c, t, h, w = size
    x = torch.randn(size).as_strided(size, (t * h * w, 1, h * w, w, c))
    for _ in range(5):  # what lies beyond is another each time
        check(x, torch.randn(1, 1, 3, 3, 3), stride, 1e-5)


def test_only_the_wanted_gradients_are_computed():
    x, weight = torch.randn(1, 2, 2, 3, 3), torch.randn(2, 1, 3, 3, 3)
    depthwise_conv3d(x, weight.requires_grad_()).sum().backward()
    assert x.grad is None and weight.grad is not None
    frozen = weight.detach()
    depthwise_conv3d(x.requires_grad_(), frozen).sum().backward()
    assert x.grad is not None and frozen.grad is None


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_an_empty_batch_has_empty_results(stride):
    x, weight = torch.randn(0, 2, 3, 4, 5, requires_grad=True), torch.randn(2, 1, 3, 3, 3, requires_grad=True)
    y = depthwise_conv3d(x, weight, stride)
    y.sum().backward()
    assert y.shape[0] == 0 and x.grad.shape == x.shape and not weight.grad.any()


def test_a_tensor_is_computed_on_its_own_device(monkeypatch):
    """The current CUDA device is the tensor's while its kernel is chosen and run, whatever it was before."""
    on = []

    class Current:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            on.append(self.device)

        def __exit__(self, *_):
            on.append("left")

    monkeypatch.setattr(torch.cuda, "device", Current)
    there = SimpleNamespace(is_cuda=True, device="cuda:1")
    for name in ("convolve", "grad_input", "grad_weight"):
        monkeypatch.setattr(depthwise.depthwise_tune, name, lambda *_, name=name: on.append(name))
    depthwise._forward(there, there, (1, 1, 1))
    depthwise._grad_input(there, there, (1, 1, 1), (1, 1, 1))
    depthwise._grad_weight(there, there, there, (1, 1, 1))
    assert on == ["cuda:1", "convolve", "left", "cuda:1", "grad_input", "left", "cuda:1", "grad_weight", "left"]


def test_same_inputs_same_bits():
    x, weight, g = torch.randn(3, 16, 5, 9, 9), torch.randn(16, 1, 3, 3, 3), torch.randn(3, 16, 5, 9, 9)
    results = []
    for _ in range(3):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = depthwise_conv3d(a, b)
        results.append((y, *torch.autograd.grad(y, (a, b), g)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_equals_eager(device):
    """With the compiler's own code around the operators on CUDA, which asserts the strides of their results."""
    module, x = DepthwiseConv3d(5, (1, 2, 2)).to(device), torch.randn(2, 5, 3, 6, 4, device=device)
    compiled = torch.compile(module, fullgraph=True, backend="inductor" if device == "cuda" else "aot_eager")
    grads = []
    for run in (module, compiled):
        module.zero_grad()
        y = run(x)
        y.square().sum().backward()
        grads.append((y.detach(), module.weight.grad))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*grads, strict=True))


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
        ((2, 0, 3, 3, 3), (0, 1, 3, 3, 3), (1, 1, 1), "x.shape"),
        ((2, 4, 0, 3, 3), (4, 1, 3, 3, 3), (1, 1, 1), "x.shape"),
        ((2, 4, 3, 3, 0), (4, 1, 3, 3, 3), (2, 2, 2), "x.shape"),
        ((2, 4, 3, 3, 3), (4, 4, 3, 3, 3), (1, 1, 1), "weight.shape"),
        ((2, 4, 3, 3, 3), (6, 1, 3, 3, 3), (1, 1, 1), "weight.shape"),
        ((2, 4, 3, 3, 3), (4, 1, 2, 3, 3), (1, 1, 1), "weight.shape"),
        ((2, 4, 3, 3, 3), (4, 1, 3, 3, 3), (1, 3, 1), "stride"),
    ],
)
def test_wrong_sizes_are_named(x, weight, stride, name):
    with pytest.raises(UserError, match=f"`{name}`"):
        depthwise_conv3d(torch.zeros(x), torch.zeros(weight), stride)
