"""Batch norm with ReLU and sum: torch's where it should be, our kernels equal to it, in their values, gradients and running statistics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from csn import norm
from csn.blocks import Residual
from csn.spec import Variant

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
MODES = ("norm", "relu", "sum")

INTERPRETED = """
from contextlib import nullcontext
import torch
from torch import nn
from csn import norm, norm_triton

torch.manual_seed(0)
torch.cuda.device = nullcontext
norm_triton.TILE, norm_triton.PROGRAMS = 64, 6  # several tiles of a program, and several programs
for size, dtype, bound in (
    ((2, 5, 3, 3, 4), torch.float32, 1e-5),
    ((1, 70, 2, 3, 13), torch.float32, 1e-5),
    ((2, 64, 3, 2, 5), torch.bfloat16, 2e-2),
    ((2, 16, 3, 2, 5), torch.float16, 2e-3),
    ((1, 3, 1, 1, 2), torch.float32, 1e-3),
):
    for mode in ("norm", "relu", "sum"):
        ours = nn.BatchNorm3d(size[1], eps=1e-3, momentum=0.1).train()
        with torch.no_grad():
            for value in (ours.weight, ours.bias, ours.running_mean):
                value.normal_()
            ours.running_var.uniform_(1, 2)
            ours.weight[0] = 0
        double = nn.BatchNorm3d(size[1], eps=1e-3, momentum=0.1).double().train()
        double.load_state_dict(ours.state_dict())
        far = 100 if dtype == torch.float32 else 1
        y, other = ((torch.randn(size) * 3 + mean).to(dtype).contiguous(memory_format=norm.NDHWC).requires_grad_() for mean in (far, 0))
        g = torch.randn(size).to(dtype)
        y64, other64 = (t.detach().double().requires_grad_() for t in (y, other))
        z = norm.Fused.apply(y, ours.weight, ours.bias, other if mode == "sum" else None, mode != "norm", ours)
        z.backward(g)
        z64 = double(y64) + (other64 if mode == "sum" else 0)
        z64 = z64 if mode == "norm" else z64.relu()
        z64.backward(g.double())
        assert z.dtype == y.grad.dtype == dtype and ours.weight.grad.dtype == torch.float32
        assert z.is_contiguous(memory_format=norm.NDHWC) and y.grad.is_contiguous(memory_format=norm.NDHWC)
        assert ours.num_batches_tracked == 1
        pairs = [(z, z64), (y.grad, y64.grad), (ours.weight.grad, double.weight.grad), (ours.bias.grad, double.bias.grad)]
        pairs += [(ours.running_mean, double.running_mean), (ours.running_var, double.running_var)]
        pairs += [(other.grad, other64.grad)] if mode == "sum" else []
        for k, (got, want) in enumerate(pairs):
            assert (got.double() - want).abs().max() <= bound * max(1.0, want.abs().max()), (size, dtype, mode, k)
        double = double.eval()  # whose statistics hold no rounding
        ours.load_state_dict(double.state_dict())
        given = y.detach().clone(memory_format=torch.preserve_format)
        z = norm.evaluated(ours.eval(), given, mode == "relu", other.detach() if mode == "sum" else None)
        want = double(y64) + (other64 if mode == "sum" else 0)
        want = want if mode == "norm" else want.relu()
        assert z.data_ptr() == given.data_ptr() and z.dtype == dtype  # in the memory of what it was given
        assert (z.double() - want).abs().max() <= bound * max(1.0, want.abs().max()), (size, dtype, mode, "eval")
y = torch.randn(2, 3, 2, 3, 4).contiguous(memory_format=norm.NDHWC)
y[1, 1, 1, 1, 1] = torch.inf  # makes torch's whole channel what is no number, and so ours
ours, theirs = nn.BatchNorm3d(3).train(), nn.BatchNorm3d(3).train()
z, want = norm.Fused.apply(y, ours.weight, ours.bias, None, True, ours), theirs(y).relu()
assert torch.equal(z.isnan(), want.isnan()) and z[:, 1].isnan().all() and not z[:, ::2].isnan().any()
assert ours.running_var.isnan().tolist() == [False, True, False] == theirs.running_var.isnan().tolist()
print("equal")
"""


def test_the_kernels_under_the_interpreter() -> None:
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr


KERNELS = (
    ("statistics_kernel", {}), ("scale_kernel", {"RELU": True, "SUM": False}), ("scale_kernel", {"RELU": True, "SUM": True}),
    ("sums_kernel", {"RELU": True, "SUM": False}), ("sums_kernel", {"RELU": True, "SUM": True}), ("gradient_kernel", {"RELU": True}),
    ("affine_kernel", {"RELU": True, "SUM": False}), ("affine_kernel", {"RELU": True, "SUM": True}),
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize(("name", "modes"), KERNELS, ids=str)
def test_maps_are_read_and_written_sixteen_bytes_at_a_time(
    name: str, modes: dict[str, bool], dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from machine_code import MISSING, REASON, disassembly

    from csn import norm_triton

    if MISSING:
        pytest.skip(REASON)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    maps, sums = ("y", "other", "z", "g", "masked", "gy"), ("partial", "moments", "totals", "weight", "bias", "mean", "var")
    types = dict.fromkeys(maps, f"*{dtype}") | dict.fromkeys(sums, "*fp32") | {"eps": "fp32"}
    fixed = {"C": 256, "TALL": norm_triton.TILE // norm_triton.BLOCK, "WIDE": norm_triton.BLOCK, **modes}
    listing = disassembly(getattr(norm_triton, name), fixed, types, norm_triton.WARPS, tmp_path / "kernel.cubin")
    loads = re.findall(r"\b(LDG\S*)", listing)
    assert loads and all(load.startswith("LDG.E.128") for load in loads) and not re.search(r"\b(STL|LDL)\b", listing)
    stores = re.findall(r"\b(STG\S*)", listing)
    if name in ("scale_kernel", "gradient_kernel", "affine_kernel"):
        assert stores and all(store == "STG.E.128" for store in stores)
    else:  # beside partial sums, of which a thread has a few, only the other branch's gradient
        assert ("STG.E.128" in stores) == (name == "sums_kernel" and modes["SUM"])


def torchs(bn: nn.BatchNorm3d, y: Tensor, mode: str, other: Tensor) -> Tensor:
    z = bn(y)
    return {"norm": lambda: z, "relu": lambda: z.relu(), "sum": lambda: (z + other).relu()}[mode]()


@pytest.mark.parametrize("mode", MODES)
def test_on_a_cpu_it_is_torchs_own(mode: str) -> None:
    torch.manual_seed(0)
    y, other = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    first, second = nn.BatchNorm3d(3), nn.BatchNorm3d(3)
    with norm.fused():
        z = norm.normalised(first, y.clone(), mode == "relu", other if mode == "sum" else None)
    assert torch.equal(z, torchs(second, y, mode, other))
    assert torch.equal(first.running_var, second.running_var) and first.num_batches_tracked == 1  # type: ignore[arg-type]


class There:
    """A map that says it is on CUDA."""

    is_cuda, dtype, shape = True, torch.bfloat16, (2, 3, 4, 5, 6)

    def __init__(self, contiguous: bool = True, values: int = 720) -> None:
        self.is_contiguous, self.numel = lambda memory_format: contiguous, lambda: values


def test_our_kernels_are_asked_only_where_they_pay_and_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "_triton_there", lambda: True)
    bn = nn.BatchNorm3d(3)
    assert not norm.ours(bn, There())  # type: ignore[arg-type]  # outside
    with norm.fused():
        assert norm.ours(bn, There())  # type: ignore[arg-type]
        assert not norm.ours(bn, torch.zeros(2, 3, 4, 5, 6))
        assert not norm.ours(bn, There(contiguous=False))  # type: ignore[arg-type]
        assert not norm.ours(bn, There(values=3))  # type: ignore[arg-type]  # one value a channel has no variance
        for kind in ({"affine": False}, {"track_running_stats": False}, {"momentum": None}):
            assert not norm.ours(nn.BatchNorm3d(3, **kind), There())  # type: ignore[arg-type]
        assert not norm.ours(nn.SyncBatchNorm(3), There())  # type: ignore[arg-type]  # it computes over all processes
        hook = bn.register_forward_hook(lambda *_: None)
        assert not norm.ours(bn, There())  # type: ignore[arg-type]
        hook.remove()
        assert norm.ours(bn, There())  # type: ignore[arg-type]
        with monkeypatch.context() as without:
            without.setattr(norm, "_triton_there", lambda: False)
            assert not norm.ours(bn, There())  # type: ignore[arg-type]
        assert not norm.ours(bn.eval(), There())  # type: ignore[arg-type]
        with torch.no_grad():  # a test
            assert norm.ours(bn, There())  # type: ignore[arg-type]
    bn.train()
    assert not norm.ours(bn, There())  # type: ignore[arg-type]


@GPU
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("size", [(2, 64, 4, 28, 28), (4, 2048, 2, 7, 7), (1, 24, 3, 9, 5)], ids=str)
def test_on_cuda_it_equals_torchs_in_float64(size: tuple[int, ...], dtype: torch.dtype, bound: float, mode: str) -> None:
    torch.manual_seed(0)
    bn, exact = nn.BatchNorm3d(size[1], eps=1e-3).cuda(), nn.BatchNorm3d(size[1], eps=1e-3).cuda().double()
    y, other = (torch.randn(size, device="cuda").to(dtype).contiguous(memory_format=norm.NDHWC).requires_grad_() for _ in range(2))
    y64, other64 = (t.detach().double().requires_grad_() for t in (y, other))
    g = torch.randn(size, device="cuda").to(dtype)
    with norm.fused():
        z = norm.normalised(bn, y, mode == "relu", other if mode == "sum" else None)
    assert z.grad_fn.name() == "FusedBackward"  # type: ignore[union-attr]
    z.backward(g)
    z64 = torchs(exact, y64, mode, other64)
    z64.backward(g.double())
    pairs = [(z, z64), (y.grad, y64.grad), (bn.weight.grad, exact.weight.grad), (bn.running_var, exact.running_var)]
    for got, want in [*pairs, (other.grad, other64.grad)] if mode == "sum" else pairs:
        assert got is not None and want is not None
        # by the norm: where the sum rounds to zero in 16 bits, a ReLU is open in one and shut in the other
        assert (got.double() - want).norm() <= bound * want.norm()
    with torch.no_grad(), norm.fused():
        given = y.detach().clone(memory_format=torch.preserve_format)
        z = norm.normalised(bn.eval(), given, mode == "relu", other if mode == "sum" else None)
        assert z.data_ptr() == given.data_ptr()
        assert (z.double() - torchs(exact.eval(), y64, mode, other64)).norm() <= bound * z.double().norm()


def test_a_block_takes_the_same_steps_with_the_sum_in_its_last_box() -> None:
    torch.manual_seed(0)
    block = Residual(Variant(block="bottleneck-D", width=8), 16, 8, 32, (2, 2, 2))
    x = torch.randn(2, 16, 4, 6, 6)
    block.train()
    got = block(x)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.reset_running_stats()
    want = torch.relu(block.body[2].bn(block.body[2].conv(block.body[1](block.body[0](x)))) + block.shortcut(x))  # type: ignore[union-attr, operator]
    assert torch.equal(got, want)
