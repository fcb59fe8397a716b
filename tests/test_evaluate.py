"""Views by the network: what a graph and a filled-up batch score is what the network scores."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import csn
from csn import evaluate as testing
from csn.data import Sample, Split
from csn.data.loader import Reader
from csn.evaluate import Forward, probabilities
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
            net.train()(torch.randn(4, 3, 4, 64, 64).cuda())  # drawn as on a CPU, where the bounds below can be seen, too
    forward = Forward(net.eval(), recipe, torch.device("cuda"))
    for n in (4,) * (EAGER + 2) + (3, 1):
        views = torch.randint(0, 256, (n, 4, 1, 1, 3), dtype=torch.uint8).expand(n, 4, 64, 64, 3) // torch.randint(1, 9, (n, 4, 64, 64, 3), dtype=torch.uint8)
        with torch.inference_mode():
            want = probabilities(net, recipe, views.cuda()).cpu()
        got = torch.from_numpy(forward(views))
        bound = 0.01 if precision == "bf16" else 1e-4  # on a CPU bfloat16 alone is 0.002 off, and views are 0.03 apart or more
        assert got.shape == want.shape and (got - want).abs().max() < bound
        assert n == 1 or (want.amax(0) - want.amin(0)).max() > 2 * bound  # other views have other scores
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


@pytest.mark.parametrize("filled", [2, 4, 5])
def test_batches_on_cuda_are_whole_but_the_last(filled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four videos of three views, the third of which cannot be read: a video's views may fall into two batches."""
    split = Split(tuple(Sample(Path(name), (k % 2,), name) for k, name in enumerate("abcd")), ("x", "y"))
    views = [(3.0 * k + torch.arange(3.0).view(3, 1), k, k != 2) for k in range(4)]
    sizes = list[int]()

    class Counted:
        def __init__(self, *_: object) -> None:
            self.filled = filled

        def __call__(self, part: Tensor) -> np.ndarray:
            sizes.append(len(part))
            return np.array([[at / 12, 1 - at / 12] for at in part[:, 0].tolist()], np.float32)

    monkeypatch.setattr(testing, "test_videos", lambda *_: iter(views))
    monkeypatch.setattr(testing, "Forward", Counted)
    monkeypatch.setattr(testing, "MOST_DAMAGED", 0.5)
    found = testing.evaluate(nn.Identity(), split, replace(SMOKE, views_per_batch=filled), Reader(), torch.device("cpu"))
    assert sizes == [filled] * (9 // filled) + [9 % filled] * (9 % filled > 0)
    assert np.allclose(found.probs[[0, 1, 3], 0], [1 / 12, 4 / 12, 10 / 12]) and np.isnan(found.probs[2]).all() and found.damaged == ("c",)
    assert np.allclose(found.clip, [0, 1, 0, 0])


def test_what_scores_goes_with_its_last_name() -> None:
    """And with it a graph and its memory: no circle waits for the collector."""
    forward = Forward(nn.Identity(), SMOKE, torch.device("cpu"))
    gone = ref(forward)
    gc.disable()
    try:
        del forward
        assert gone() is None
    finally:
        gc.enable()
