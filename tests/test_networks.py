"""Every block at every depth: shapes, gradients, settings of the released code."""

from __future__ import annotations

from math import gcd
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import csn
from csn.blocks import Residual
from csn.resnet3d import start_as_shortcuts, strides
from csn.spec import BLOCKS, SIMPLE_DEPTHS, STAGES, UserError

NETWORKS = [(block, depth) for block in BLOCKS for depth in STAGES if (depth in SIMPLE_DEPTHS) == block.startswith("simple")]


def variant(block: str, depth: int, width: int = 8, **fields: object) -> csn.Variant:
    return csn.Variant(block=block, depth=depth, width=width, groups=4 if block.endswith("G") else 1, **fields)


@pytest.mark.parametrize(("block", "depth"), NETWORKS)
def test_every_block_at_every_depth_gives_logits(block: str, depth: int) -> None:
    with torch.device("meta"):
        net = csn.build(variant(block, depth), num_classes=11)
        assert net.eval()(torch.empty(2, 3, 8, 64, 64)).shape == (2, 11)
    blocks = [len(stage) for stage in net.stages]
    assert tuple(blocks) == STAGES[depth]
    assert net.head.fc.in_features == 64 * (4 if depth in (50, 101, 152) else 1)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_gets_a_gradient(block: str) -> None:
    torch.manual_seed(0)
    net = csn.build(variant(block, 18 if block.startswith("simple") else 26), num_classes=5, frames=4)
    net(torch.randn(3, 3, 8, 48, 48)).logsumexp(1).sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.abs().sum() > 0]
    assert not missing


class Layouts(TorchDispatchMode):
    """Notes the operators that copy maps, and those that compute with one that is not channels_last_3d."""

    def __init__(self) -> None:
        super().__init__()
        self.copied, self.other, self.seen = list[str](), list[str](), set[str]()

    def __torch_dispatch__(self, op: Any, _types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> object:
        out = op(*args, **(kwargs or {}))
        name, maps = str(op).split(".")[1], [t for t in tree_leaves((args, out)) if isinstance(t, torch.Tensor) and t.ndim == 5 and len(t) == 2]
        self.seen.add(name)
        if maps and name in ("clone", "copy_", "_to_copy", "contiguous"):
            self.copied.append(name)
        computes = "conv" in name or "norm" in name or "pool" in name or name in ("add_", "add", "relu_", "clamp_min_", "threshold_backward")
        if computes and not all(t.is_contiguous(memory_format=torch.channels_last_3d) for t in maps):
            self.other.append(name)
        return out


@pytest.mark.parametrize("block", ["bottleneck", "bottleneck-D", "ip"])
def test_no_map_changes_its_layout(block: str) -> None:
    """In a step of training, but for the gradient of the last mean, which is one value a channel spread over the last map."""
    net = csn.build(variant(block, 50), 5).to(memory_format=torch.channels_last_3d).train()
    clips = torch.randn(2, 3, 8, 96, 96).to(memory_format=torch.channels_last_3d)
    with Layouts() as layouts:
        nn.functional.cross_entropy(net(clips), torch.tensor([1, 2])).backward()
    assert layouts.copied == [] and layouts.other == ["threshold_backward"]
    assert {"convolution", "convolution_backward", "native_batch_norm_backward", "max_pool3d_with_indices", "threshold_backward", "add_"} <= layouts.seen
    with Layouts() as layouts:
        net(clips.contiguous())  # conv1 turns them
    assert "convolution" in layouts.other


@pytest.mark.parametrize("frames", [2, 3, 4, 7, 8, 16])
@pytest.mark.parametrize("crop", [32, 45, 64])
@pytest.mark.parametrize("pool1", [True, False])
def test_any_clip_length_and_crop(frames: int, crop: int, pool1: bool) -> None:
    with torch.device("meta"):
        net = csn.build(variant("ip", 26, pool1=pool1), 7, frames)
        assert net.eval()(torch.empty(1, 3, frames, crop, crop)).shape == (1, 7)


def test_short_clips_keep_the_time_axis_late() -> None:
    assert [s[0] for s in strides(8)] == [1, 2, 2, 2]
    assert [s[0] for s in strides(7)] == [1, 2, 2, 1]
    assert [s[0] for s in strides(3)] == [1, 2, 1, 1]


def test_settings_of_the_released_code() -> None:
    net = csn.build(csn.Variant(block="ip", depth=26), 10)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm3d)]
    assert all((m.eps, m.momentum) == (1e-3, 0.1) for m in norms)
    assert all(bool((m.weight == 1).all()) for m in norms)  # no zero-init of the last gamma
    assert not [m for m in net.modules() if isinstance(m, nn.Conv3d) and m.bias is not None]
    conv = net.stem.conv1.conv.weight
    assert conv.std().item() == pytest.approx((2 / (64 * 3 * 7 * 7)) ** 0.5, rel=0.02)  # fan-out


def test_weights_start_as_the_released_code_fills_them() -> None:
    """Convolutions: normal, of variance 2 / (C_out k^3), in groups too; the classifier: uniform in +-sqrt(6 / (C_in + K)), its biases 0."""
    torch.manual_seed(0)
    net = csn.build(csn.Variant(block="ip", depth=50, width=16), 101)
    weights = [p.detach() for name, p in net.named_parameters() if p.ndim == 5 and p.numel() >= 1000]
    assert len(weights) == 58 and {w.shape[1] == 1 for w in weights} == {w.shape[0] < w.shape[1] for w in weights} == {True, False}
    for weight in weights:
        assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5, rel=0.08)
    ends = (6 / (512 + 101)) ** 0.5
    assert 0.99 * ends < net.head.fc.weight.abs().max().item() <= ends and not net.head.fc.bias.any()


def test_the_interior_relu_of_ip_is_a_field() -> None:
    body = csn.build(csn.Variant(block="ip", depth=26, width=8), 3).stages[0][0].body
    assert [box.relu for box in body] == [True, False, True, False]
    body = csn.build(csn.Variant(block="ip", depth=26, width=8, interior_relu=True), 3).stages[0][0].body
    assert [box.relu for box in body] == [True, True, True, False]


def test_the_stride_is_in_the_3x3x3_and_in_the_projection() -> None:
    block = csn.build(csn.Variant(block="bottleneck", depth=26, width=8), 3).stages[1][0]
    sizes = [tuple(s) for s in ((8, 8, 8), (4, 4, 4), (4, 4, 4))]
    x = torch.randn(1, 8, 8, 8, 8)
    for box, size in zip(block.body, sizes, strict=True):
        x = box(x)
        assert tuple(x.shape[2:]) == size
    assert tuple(block.shortcut.conv.stride) == (2, 2, 2)


def test_groups_that_do_not_divide_become_the_greatest_common_divisor() -> None:
    """simple-D, C -> 2C: depthwise with C groups."""
    body = csn.build(csn.Variant(block="simple-D", depth=18, width=8), 3).stages[1][0].body
    assert body[0].conv.groups == gcd(8, 16) == 8
    assert body[0].conv.weight.shape == (16, 1, 3, 3, 3)
    assert body[1].conv.weight.shape == (16, 1, 3, 3, 3)
    grouped = csn.build(csn.Variant(block="simple-G", depth=18, width=8, groups=4), 3).stages[1][0].body
    assert [box.conv.groups for box in grouped] == [4, 4]


def test_blocks_may_start_as_their_shortcuts() -> None:
    net = csn.build(variant("ip", 50), 5, 8)
    start_as_shortcuts(net)
    for block in (m for m in net.modules() if isinstance(m, Residual)):
        x = torch.randn(2, block.body[0].conv.weight.shape[1], 4, 6, 6)
        assert torch.equal(block(x), block.shortcut(x).relu())
    gammas = [m.weight.unique().tolist() for m in net.modules() if isinstance(m, nn.BatchNorm3d)]
    assert gammas.count([0.0]) == 16 and gammas.count([1.0]) == len(gammas) - 16


def test_the_dense_head_is_the_head_at_every_window() -> None:
    """One position: the same logits. More positions: the logits of each window."""
    torch.manual_seed(1)
    net = csn.build(csn.Variant(block="bottleneck-D", depth=26, width=8), 6).eval()
    x = torch.randn(2, 3, 8, 64, 64)
    features = net.stages(net.stem(x))
    plain, corner = net(x), net.head(features[..., :1, 1:])
    dense = csn.fully_convolutional(net, window=2)
    assert dense(x).shape == (2, 6, 1, 1)
    torch.testing.assert_close(dense(x)[:, :, 0, 0], plain)
    net.head.window = 1
    torch.testing.assert_close(net(x)[:, :, 0, 1], corner)
    net.head.window = 3
    with pytest.raises(UserError, match=r"`window` \(=3\) is larger"):
        net(x)
    net.head.window = 2
    for part in (x[..., :32], x[..., :32, :]):  # too narrow, too low
        with pytest.raises(UserError, match=r"`window` \(=2\) is larger than the final map \((2x1|1x2)\)"):
            net(part)


def test_build_refuses_wrong_numbers() -> None:
    with pytest.raises(UserError, match=r"`variant` \(='ir-CSN-50'\) must be a csn.Variant, as csn.Variant\("):
        csn.build("ir-CSN-50", 10)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="`num_classes`"):
        csn.build(csn.Variant(), 0)
    with pytest.raises(UserError, match="`frames`"):
        csn.build(csn.Variant(), 10, frames=1)
