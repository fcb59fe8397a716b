"""Views by the network: what a graph and a filled-up batch score is what the network scores."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import csn
from csn.evaluate import Forward
from csn.graph import EAGER, Graphed
from csn.recipes import SMOKE
from csn.spec import Variant

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@GPU
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_views_scored_by_a_graph_are_scored_as_without(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch, of fewer views, too; the network's own batch norm is torch's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    recipe = replace(SMOKE, precision=precision, views_per_batch=4)  # type: ignore[arg-type]
    net = csn.build(Variant(block="bottleneck-D", depth=26, width=16), 5, 4).cuda().to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        for _ in range(20):  # statistics to score by
            net.train()(torch.randn(4, 3, 4, 64, 64, device="cuda"))
    forward = Forward(net.eval(), recipe, torch.device("cuda"))
    for n in (4,) * (EAGER + 2) + (3, 1):
        views = torch.randint(0, 256, (n, 4, 64, 64, 3), dtype=torch.uint8)
        with torch.inference_mode():
            want = forward.probabilities(views.cuda()).cpu()
        got = torch.from_numpy(forward(views))
        assert got.shape == want.shape and (got - want).abs().max() < (0.05 if precision == "bf16" else 1e-4)
    assert isinstance(forward.work, Graphed) and forward.work.graph is not None


def test_a_batch_is_filled_up_and_its_filling_not_scored() -> None:
    """As on CUDA."""
    torch.manual_seed(0)
    forward = Forward(csn.build(Variant(block="bottleneck-D", depth=26, width=8), 5, 4).eval(), replace(SMOKE, views_per_batch=4), torch.device("cpu"))
    views = torch.randint(0, 256, (3, 4, 32, 32, 3), dtype=torch.uint8)
    want, seen = forward(views), list[torch.Size]()
    own = forward.work

    def work(given: Tensor) -> Tensor | None:
        seen.append(given.shape)
        return own(given)

    forward.filled, forward.work = 4, work
    got = forward(views)
    assert seen == [(4, 4, 32, 32, 3)] and got.shape == (3, 5)
    assert abs(got - want).max() < 1e-5
