"""Folded networks compute what the networks do, on every path: oneDNN's fused operators, plain torch, traced for export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import csn
from csn.blocks import ConvBN, Residual
from csn.inference import FoldedConv, FoldedResidual, FoldedStem, fast, folded, folding_error
from csn.resnet3d import ResNet3D, Stem
from csn.spec import UserError, Variant

VARIANTS = [
    Variant(block="simple", depth=18, width=8),
    Variant(block="simple-G", depth=18, width=8, groups=4, pool1=False),
    Variant(block="simple-D", depth=18, width=8),
    Variant(block="simple", depth=18, width=3, pool1=False),  # three channels not in the stem alone
    Variant(block="bottleneck", width=8),
    Variant(block="bottleneck-DG", width=8, groups=2),
    Variant(block="bottleneck-D", depth=50, width=8, pool1=False),
    Variant(block="ip", width=8, interior_relu=True),
]


def trained(variant: Variant) -> ResNet3D:
    """A network whose batch norms are far from the identity."""
    torch.manual_seed(1)
    net = csn.build(variant, 11, 4).eval().to(memory_format=torch.channels_last_3d)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return net


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.slug)
def test_folded_equals_the_network(variant: Variant) -> None:
    net, clips = trained(variant), torch.randn(5, 3, 4, 40, 40)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    assert folding_error(net, clips) < 1e-5
    assert not net.training and all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    kinds = {type(m) for m in folded(net).modules()}
    assert not kinds & {nn.BatchNorm3d, ConvBN, Residual, Stem} and {FoldedConv, FoldedStem, FoldedResidual} <= kinds


@pytest.mark.parametrize("name", ["stem.conv1.conv.weight", "stages.conv3_x.0.shortcut.bn.running_var", "head.fc.bias"])
def test_what_is_no_number_is_refused(name: str) -> None:
    """The network would answer NaN; oneDNN's ReLU would make 0 of it, and classes of that."""
    net = trained(Variant(block="bottleneck-D", width=8))
    values = net.state_dict()[name]
    values[(0,) * values.ndim] = float("nan")
    with pytest.raises(UserError, match=f"`{name}` of the network holds what is not a finite number"):
        folded(net)


@pytest.mark.parametrize("pool1", [True, False])
def test_no_clips_give_no_logits(pool1: bool) -> None:
    assert folded(trained(Variant(block="bottleneck-D", width=8, pool1=pool1)))(torch.randn(0, 3, 4, 32, 32)).shape == (0, 11)


def test_both_paths_agree_on_few_and_on_many_positions() -> None:
    """Matrix product for few positions, two-dimensional convolution for many, plain torch in float64."""
    net = trained(Variant(block="ip", width=8, pool1=False))
    quick = folded(net)
    for clips in (torch.randn(1, 3, 2, 32, 32), torch.randn(8, 3, 4, 48, 40)):
        assert fast(clips) and not fast(clips.double())
        with torch.inference_mode():
            exact = folded(trained(Variant(block="ip", width=8, pool1=False)).double())(clips.double())
            assert (quick(clips) - exact).abs().max() < 1e-4 * exact.abs().max()


def test_folding_rounds_once() -> None:
    """A folded filter is the float64 product rounded to float32, not a product of rounded factors."""
    box = trained(Variant(block="bottleneck", width=8)).stem.conv1
    box.bn.running_var.fill_(1e-7)  # type: ignore[union-attr]
    k = box.bn.weight.double() / torch.sqrt(torch.tensor(1e-7).double() + box.bn.eps)
    expected = (box.conv.weight.double() * k.view(-1, 1, 1, 1, 1)).float()  # type: ignore[operator]
    assert torch.equal(FoldedConv(box).weight, expected)


def test_a_folded_network_can_be_exported() -> None:
    net, clips = folded(trained(Variant(block="bottleneck-D", width=8))), torch.randn(2, 3, 4, 32, 32)
    program = torch.export.export(net, (clips,))
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(clips), net(clips), rtol=1e-4, atol=1e-4)
