"""Which kernel is taken: measured once, remembered where it may be, fixed where it must be."""

import pytest
import torch

from csn import depthwise, depthwise_tune
from csn.spec import UserError


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
    y = depthwise.convolve(x.double(), weight.double(), stride)
    g = torch.randn(y.shape)
    for ways, want in (
        (depthwise_tune.forward_ways(x, weight, stride), y),
        (depthwise_tune.grad_input_ways(g, weight, x.shape[2:], stride), depthwise.grad_input(g.double(), weight.double(), x.shape[2:], stride)),
        (depthwise_tune.grad_weight_ways(g, x, weight, stride), depthwise.grad_weight(g.double(), x.double(), (5, 3, 3), stride)),
    ):
        assert list(ways) == ["torch NDHWC", "torch NCDHW"]
        assert all((way().double() - want).abs().max() < 1e-4 for way in ways.values())
