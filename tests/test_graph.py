"""A step as one CUDA graph: what is computed is what would be computed without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

import csn
from csn import norm
from csn.blocks import Residual
from csn.graph import EAGER, Graphed
from csn.spec import Variant

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done with graphs, of which there are none on a CPU."""
    done = list[str]()

    class Recording:
        def replay(self) -> None:
            done.append("replayed")

    @contextmanager
    def record(made: Recording, stream: object, capture_error_mode: str) -> Iterator[None]:
        assert stream == "stream of cpu" and capture_error_mode == "thread_local"  # others load clips meanwhile
        done.append("record")
        yield

    @contextmanager
    def on(stream: object) -> Iterator[None]:
        done.append(f"on {stream}")
        try:
            yield
        finally:
            done.append(f"off {stream}")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "current stream")
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(done.append(f"on {device}")))
    return done


def test_the_first_calls_are_eager_then_the_work_is_recorded_once(told: list[str]) -> None:
    seen = list[Tensor]()

    def work(x: Tensor) -> Tensor:
        assert norm._fused.get()
        seen.append(x)
        told.append("work")
        return x

    graphed = Graphed(work)
    results = [graphed(torch.full((2,), float(k))) for k in range(EAGER + 3)]
    assert told == ["on cpu", "work"] * EAGER + ["on cpu", "on current stream", "record", "work", "off current stream", "replayed"] + ["on cpu", "replayed"] * 2
    assert [x[0].item() for x in seen[:EAGER]] == [0.0, 1.0, 2.0]
    assert seen[-1].tolist() == [EAGER + 2.0] * 2  # what the recorded work reads: given anew in every call
    assert all(result is one for result, one in zip(results, seen + 2 * seen[-1:], strict=True))  # the graph's own, of each call
    assert not norm._fused.get()


def test_work_that_fails_counts_for_nothing(told: list[str]) -> None:
    failing = False

    def work(x: Tensor) -> None:
        told.append("work")
        if failing:
            raise RuntimeError("no memory")

    graphed, x = Graphed(work), torch.zeros(2)
    for k in range(2 * EAGER - 1):  # every other call fails
        failing = k % 2 == 1
        with pytest.raises(RuntimeError) if failing else nullcontext():
            graphed(x)
    assert told.count("work") == 2 * EAGER - 1 and "record" not in told
    failing = True
    with pytest.raises(RuntimeError):
        graphed(x)  # while it is recorded
    assert "record" in told and "replayed" not in told and told[-1] == "off current stream"  # whatever torch.cuda.graph leaves behind
    failing = False
    graphed(x)
    assert told.count("record") == 2 and told[-1] == "replayed"


def test_other_arguments_than_those_of_the_graph_are_refused(told: list[str]) -> None:
    graphed = Graphed(lambda x: None)
    for _ in range(EAGER + 1):
        graphed(torch.zeros(2, 3))
    for other in (torch.zeros(1, 3), torch.zeros(2, 3).double()):
        with pytest.raises(ValueError, match=r"made for \(2, 3\) of torch.float32 on cpu, not for"):
            graphed(other)
    assert told.count("replayed") == 1


def test_autocast_around_a_call_is_refused(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that whose cache is off, nor that within the work."""
    graphed = Graphed(lambda x: told.append("work"))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    with pytest.raises(ValueError, match="autocast belongs into the work"):
        graphed(torch.zeros(2))
    assert not told
    monkeypatch.setattr(torch, "is_autocast_cache_enabled", lambda: False)
    graphed(torch.zeros(2))
    assert "work" in told


def gradients(eager: bool, net: nn.Module, clips: list[Tensor], labels: list[Tensor], short: bool) -> tuple[Tensor, Tensor]:
    """Gradients that the last two micro-batches leave, and the buffers, in one vector each. short: in 16 bits."""

    def learn(x: Tensor, y: Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=short):
            logits = net(x)
        nn.functional.cross_entropy(logits.float(), y).backward()

    work = learn if eager else Graphed(learn)
    for k, (x, y) in enumerate(zip(clips, labels, strict=True)):
        if k == len(clips) - 2:
            for weight in net.parameters():
                weight.grad.zero_()  # type: ignore[union-attr]
        work(x, y)
    return torch.cat([w.grad.flatten() for w in net.parameters()]), torch.cat([b.double().flatten() for b in net.buffers()])  # type: ignore[union-attr]


@GPU
@pytest.mark.parametrize("short", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("block", ["bottleneck-D", "bottleneck", "ip"])
def test_gradients_equal_those_of_eager_steps(block: str, short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager steps take torch's batch norm in fp32, ours in bf16. What rounding changes, a network as it is built multiplies: noise of 1e-6 on the
    clips by up to 20,000, bf16 to 0.7 of the gradients; with weak residual branches, as here, by up to 2000 and to 0.2. The bounds find
    what is left out: of one of the two micro-batches, say, 0.7."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    clips = [torch.randn(4, 3, 4, 64, 64, device="cuda") for _ in range(EAGER + 3)]
    labels = [torch.randint(5, (4,), device="cuda") for _ in clips]
    found = []
    for eager in (True, False):
        torch.manual_seed(0)
        net = csn.build(Variant(block=block, depth=26, width=16), 5, 4).cuda().to(memory_format=torch.channels_last_3d).train()  # type: ignore[arg-type]
        for branch in (module.body[-1] for module in net.modules() if isinstance(module, Residual)):
            nn.init.constant_(branch.bn.weight, 0.1)  # type: ignore[union-attr, arg-type]
        with norm.fused() if short else nullcontext():
            found.append(gradients(eager, net, clips, labels, short))
    for plain, graphed in zip(*found, strict=True):
        assert (plain - graphed).norm() < (0.3 if short else 0.02) * plain.norm()


@GPU
def test_gradients_that_are_none_are_made_by_the_graph_and_written_over() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).cuda()
    work = Graphed(lambda x: layer(x).square().sum().backward())
    for k in range(EAGER + 3):
        if work.graph is None:
            layer.zero_grad()
        x = torch.full((4, 3), float(k + 1), device="cuda")
        work(x)
        (want,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
        assert layer.weight.grad is not None and torch.allclose(layer.weight.grad, want)
