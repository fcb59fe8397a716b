"""A step as one CUDA graph: what is computed is what would be computed without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import csn
from csn import norm
from csn.graph import EAGER, Graphed
from csn.spec import Variant

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_the_first_calls_are_eager_then_the_work_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[str]()

    class Recording:
        def replay(self) -> None:
            told.append("replayed")

    @contextmanager
    def record(made: Recording, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"  # others load clips meanwhile
        told.append("record")
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    monkeypatch.setattr(torch.cuda, "graph", record)
    seen = list[Tensor]()

    def work(x: Tensor) -> None:
        assert norm._fused.get()
        seen.append(x)
        told.append("work")

    graphed = Graphed(work)
    for k in range(EAGER + 3):
        graphed(torch.full((2,), float(k)))
    assert told == ["work"] * EAGER + ["record", "work"] + ["replayed"] * 3
    assert [x[0].item() for x in seen[:EAGER]] == [0.0, 1.0, 2.0]
    assert seen[-1].tolist() == [EAGER + 2.0] * 2  # what the recorded work reads: given anew in every call
    assert not norm._fused.get()


def gradients(eager: bool, net: nn.Module, clips: list[Tensor], labels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Gradients that the last two micro-batches leave, and the buffers, in one vector each."""

    def learn(x: Tensor, y: Tensor) -> None:
        nn.functional.cross_entropy(net(x), y).backward()

    work = learn if eager else Graphed(learn)
    for k, (x, y) in enumerate(zip(clips, labels, strict=True)):
        if k == len(clips) - 2:
            for weight in net.parameters():
                weight.grad.zero_()  # type: ignore[union-attr]
        work(x, y)
    return torch.cat([w.grad.flatten() for w in net.parameters()]), torch.cat([b.double().flatten() for b in net.buffers()])  # type: ignore[union-attr]


@GPU
@pytest.mark.parametrize("block", ["bottleneck-D", "bottleneck", "ip"])
def test_gradients_equal_those_of_eager_steps(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, for rounding decides what a ReLU does; the eager steps take torch's batch norm."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    clips = [torch.randn(2, 3, 4, 64, 64, device="cuda") for _ in range(EAGER + 3)]
    labels = [torch.randint(5, (2,), device="cuda") for _ in clips]
    found = []
    for eager in (True, False):
        torch.manual_seed(0)
        net = csn.build(Variant(block=block, depth=26, width=16), 5, 4).cuda().to(memory_format=torch.channels_last_3d).train()  # type: ignore[arg-type]
        found.append(gradients(eager, net, clips, labels))
    for plain, graphed in zip(*found, strict=True):
        assert (plain - graphed).norm() < 2e-3 * plain.norm()
