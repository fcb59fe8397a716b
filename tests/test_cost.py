"""Cost against the published numbers, digit for digit, and against hand counts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import csn
from csn.provenance import REPOSITORY
from csn.recipes import SMALL
from csn.spec import Run
from csn.table import COSTS, COUNTS_AT, cost_key, count_costs, planned_costs

sys.path.insert(0, str(REPOSITORY / "experiments"))
import table1_architectures


@pytest.mark.parametrize("row", table1_architectures.TABLE.rows, ids=lambda r: r.label)
def test_published_digits(row) -> None:
    with torch.device("meta"):
        cost = csn.count(csn.build(row.variant, 400), (3, 8, 224, 224))
    for measured, printed in zip((cost.flops / 1e9, cost.params / 1e6, cost.interactions / 1e9), row.paper_cost, strict=True):
        assert f"{measured:.{len(printed.split('.')[1])}f}" == printed
    assert not cost.uncounted


def test_the_published_log_at_256() -> None:
    """ir-CSN-152, 32 x 256 x 256, as the authors' log prints it: the classifier as a convolution at every 7x7 window."""
    with torch.device("meta"):
        net = csn.build(csn.Variant(block="bottleneck-D", depth=152), 400)
        plain = csn.count(net, (3, 32, 256, 256))
        dense = csn.count(csn.fully_convolutional(net), (3, 32, 256, 256))
    assert dense.flops == 96_715_669_504
    assert plain.params == dense.params == 29_551_744
    assert dense.interactions == 11_370_969_280
    assert plain.interactions == 10_532_518_080


@pytest.mark.parametrize(("block", "crop", "gmacs"), [("bottleneck-D", 256, 96.7), ("ip", 256, 108.8), ("bottleneck-D", 224, 74.05), ("ip", 224, 83.30)])
def test_widely_quoted_gflops_are_those_of_256(block: str, crop: int, gmacs: float) -> None:
    with torch.device("meta"):
        cost = csn.count(csn.build(csn.Variant(block=block, depth=152), 400), (3, 32, crop, crop))
    assert cost.gmacs == pytest.approx(gmacs, abs=0.06 if crop == 256 else 0.006)


def test_the_count_is_the_same_in_inference_mode() -> None:
    net = csn.build(csn.Variant(block="ip", depth=26, width=8), 5)
    plain = csn.count(net, (3, 4, 32, 32))
    with torch.inference_mode():
        assert csn.count(net, (3, 4, 32, 32)) == plain and not plain.uncounted and plain.flops > 1e6


def test_torchvision_networks_agree_with_a_hand_count() -> None:
    """16 x 112 x 112, counted here from the layer tables of the three networks."""
    from torchvision.models.video import mc3_18, r2plus1d_18, r3d_18

    def convolution(c_in: int, c_out: int, kernel: tuple[int, int, int], out: tuple[int, int, int]) -> tuple[int, int]:
        weights = c_in * c_out * kernel[0] * kernel[1] * kernel[2]
        return weights, weights * out[0] * out[1] * out[2]

    def total(parts: list[tuple[int, int]]) -> tuple[int, int]:
        fc = 512 * 400
        return sum(p for p, _ in parts) + fc, sum(f for _, f in parts) + fc

    channels = [64, 64, 128, 256, 512]
    full = [(16, 56, 56), (8, 28, 28), (4, 14, 14), (2, 7, 7)]
    flat = [(16, 56, 56), (16, 28, 28), (16, 14, 14), (16, 7, 7)]
    networks = {}
    for name, outs, kernels in (("r3d", full, [(3, 3, 3)] * 4), ("mc3", flat, [(3, 3, 3)] + [(1, 3, 3)] * 3)):
        parts = [convolution(3, 64, (3, 7, 7), (16, 56, 56))]
        for i, out in enumerate(outs):
            parts += [convolution(channels[i] if j == 0 else channels[i + 1], channels[i + 1], kernels[i], out) for j in range(4)]
            parts += [convolution(channels[i], channels[i + 1], (1, 1, 1), out)] if i else []
        networks[name] = total(parts)
    parts = [convolution(3, 45, (1, 7, 7), (16, 56, 56)), convolution(45, 64, (3, 1, 1), (16, 56, 56))]
    for i, out in enumerate(full):
        c_in, c_out = channels[i], channels[i + 1]
        for block in range(2):
            first = c_in if block == 0 else c_out
            middle = first * c_out * 27 // (first * 9 + 3 * c_out)  # one number a block, as the two share the parameters of a 3x3x3
            before = (full[i - 1][0], *out[1:]) if block == 0 and i else out  # the spatial part strides first
            parts += [convolution(first, middle, (1, 3, 3), before), convolution(middle, c_out, (3, 1, 1), out)]
            parts += [convolution(c_out, middle, (1, 3, 3), out), convolution(middle, c_out, (3, 1, 1), out)]
        parts += [convolution(c_in, c_out, (1, 1, 1), out)] if i else []
    networks["r2plus1d"] = total(parts)
    for name, build in (("r3d", r3d_18), ("mc3", mc3_18), ("r2plus1d", r2plus1d_18)):
        cost = csn.count(build(weights=None), (3, 16, 112, 112))
        assert (cost.params, cost.flops) == networks[name], name
        assert not cost.uncounted


def test_a_grouped_convolution_by_hand() -> None:
    cost = csn.count(nn.Conv3d(12, 8, 3, stride=2, padding=1, groups=4), (12, 5, 9, 7))
    assert (cost.params, cost.params_all) == (8 * 3 * 27, 8 * 3 * 27 + 8)
    assert cost.flops == 8 * 3 * 27 * 3 * 5 * 4
    assert cost.interactions == 8 * comb(3, 2)
    assert cost.gmacs == cost.flops / 1e9
    assert [layer.kind for layer in cost.layers] == ["conv3d"]


def test_functional_calls_other_ranks_and_transposed_convolutions_count() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False)
            self.mix = nn.Parameter(torch.zeros(5, 6, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv1d(self.up(x).flatten(2), self.mix)

    cost = csn.count(Mixed(), (4, 3, 3))
    assert [layer.flops for layer in cost.layers] == [4 * 6 * 4 * 9, 5 * 6 * 36]
    assert [layer.interactions for layer in cost.layers] == [6 * comb(4, 2), 5 * comb(6, 2)]
    assert not [line for line in cost.uncounted if "Mixed" not in line]


def test_a_grouped_transposed_convolution_by_hand() -> None:
    """6 filters in 2 groups, each of which connects 3 of the 6 input channels, at 3 x 3 positions of the input."""
    [layer] = csn.count(nn.ConvTranspose2d(6, 6, 2, stride=2, groups=2, bias=False), (6, 3, 3)).layers
    assert (layer.params, layer.flops, layer.interactions) == (6 * 3 * 4, 6 * 3 * 4 * 9, 6 * comb(3, 2))


def test_frames_folded_into_the_batch_count_once_each() -> None:
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 2, 2, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, c, t, h, w = x.shape
            return self.up(self.conv(x.transpose(1, 2).reshape(b * t, c, h, w)))

    assert [layer.flops for layer in csn.count(Frames(), (3, 8, 16, 16)).layers] == [8 * 8 * 3 * 9 * 256, 8 * 8 * 2 * 4 * 256]


def test_what_cannot_be_counted_is_reported() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.idle = nn.Bilinear(8, 8, 3), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pair(x, x)

    uncounted = csn.count(Product(), (4, 8)).uncounted
    assert [line for line in uncounted if "Bilinear pair" in line] and [line for line in uncounted if "Linear idle" in line]
    attention = csn.count(nn.TransformerEncoderLayer(8, 2, 16), (4, 8))
    assert attention.uncounted


def test_the_module_is_left_as_it_was() -> None:
    net = csn.build(csn.Variant(depth=26, width=8), 3).train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    csn.count(net, (3, 8, 32, 32))
    assert net.training
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_shape_that_does_not_run_is_one_sentence() -> None:
    with pytest.raises(csn.UserError, match=r"`shape` \(=\(4, 8, 32, 32\)\) does not run through ResNet3D"):
        csn.count(csn.build(csn.Variant(depth=26, width=8), 3), (4, 8, 32, 32))


def test_any_type_of_floats_counts_alike_and_a_tensor_is_no_shape() -> None:
    net = csn.build(csn.Variant(depth=26, width=8), 3)
    plain = csn.count(net, (3, 4, 32, 32))
    assert csn.count(net.half(), (3, 4, 32, 32)) == csn.count(net.double(), np.array((3, 4, 32, 32))) == plain
    assert next(net.parameters()).dtype == torch.float64
    with pytest.raises(csn.UserError, match=r"`shape` must be the sizes of one input, as \(3, 8, 224, 224\), and is a Tensor\."):
        csn.count(net, torch.rand(3, 4, 32, 32))  # type: ignore[arg-type]


def test_a_view_is_counted_as_it_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of 4 x 4: averaged as a whole, or the classifier as a convolution at each of 3 x 3 windows as large as the map of a training clip."""
    monkeypatch.setattr("csn.table.COSTS", tmp_path / "costs.json")
    recipe = replace(SMALL, data=replace(SMALL.data, size=64), test_crop=64)
    variant = csn.Variant(block="ip", width=16, pool1=False)
    runs = [Run(variant=variant, recipe=replace(recipe, test_dense=dense), seed=0) for dense in (False, True)]
    count_costs(runs, view=True)
    whole, dense = (planned_costs()[cost_key(variant, run.recipe, view=True)] for run in runs)
    assert recipe.final_map == 2 and dense["flops"] - whole["flops"] == (3 * 3 - 1) * 128 * 32
    assert dense["interactions"] - whole["interactions"] == 32 * comb(128, 2) and dense["params"] == whole["params"]


def test_the_costs_that_came_with_the_code_count_before_those_of_a_home(tmp_path: Path) -> None:
    """A home keeps copies of them, of an older version perhaps."""
    run = Run(variant=csn.Variant(block="ip", width=16, pool1=False), recipe=SMALL, seed=0)
    known, own = planned_costs()[key := cost_key(run.variant, SMALL)], {"params": 7, "flops": 8, "interactions": 9}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "costs.json").write_text(json.dumps({key: own, "own": own}))
    counted = COUNTS_AT.set(tmp_path)
    try:
        assert planned_costs()[key] == known != own == planned_costs()["own"]
    finally:
        COUNTS_AT.reset(counted)


def test_the_committed_costs_are_those_of_the_real_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """results/costs.json lets --plan answer without torch; those of Table 3 at scales small and smoke are counted again here."""
    import table3_groups

    from csn.recipes import SMOKE
    from csn.table import runs_of

    committed = planned_costs()
    monkeypatch.setattr("csn.table.COSTS", tmp_path / "costs.json")
    runs = [run for recipe in (SMALL, SMOKE) for _, run in runs_of(table3_groups.TABLE.rows, recipe, (0,))]
    count_costs(runs)
    counted = planned_costs()
    assert len(counted) == 40
    assert {key: committed[key] for key in counted} == counted, f"count again: delete {COSTS} and run every table with --show"
