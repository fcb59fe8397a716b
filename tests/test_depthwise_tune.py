"""Which depthwise kernel is taken: measured once, remembered where it may be, fixed where it must be."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from csn import depthwise, depthwise_tune
from csn.depthwise_tune import NDHWC, fastest
from csn.spec import UserError

CLOCK = {"triton a": 3.0, "torch NDHWC": 1.0, "torch NCDHW": 2.0}
OURS_FIRST = {"triton a": 0.5, "triton b": 0.7, "torch NDHWC": 1.0, "torch NCDHW": 2.0}
X = torch.ones(1, 2, 3, 4, 5)


class Candidates:
    """Ways that return their names, and a clock for them. offered: how often they were asked for; timed: by name, in order."""

    def __init__(self, clock: dict[str, float | Exception]) -> None:
        self.clock, self.offered, self.timed, self.wrong, self.unknown = clock, 0, list[str](), set[str](), set[str]()
        self.against = "torch NDHWC"

    def ways(self, *args: object) -> dict[str, Callable[..., str]]:
        self.offered += 1
        return {name: lambda *_, name=name: name for name in self.clock}

    def seconds(self, way: Callable[[], str]) -> float:
        self.timed.append(way())
        found = self.clock[way()]
        if isinstance(found, Exception):
            raise found
        return found

    def alike(self, name: str, way: Callable[..., str], judge: Callable[..., str], args: object) -> bool | None:
        assert judge() == self.against and way() == name and not name.startswith("torch")
        return None if name in self.unknown else name not in self.wrong

    def choice(self, *args: object) -> Tensor:
        return fastest("task", self.ways, args or (X, (1, 1, 1)))


@pytest.fixture
def candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Candidates:
    """An empty cache, in this process and on disk; no graph is captured and no choice is fixed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CSN_DEPTHWISE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(depthwise_tune, "_chosen", {})
    made = Candidates(dict(CLOCK))
    monkeypatch.setattr(depthwise_tune, "seconds", made.seconds)
    monkeypatch.setattr(depthwise_tune, "alike", made.alike)
    return made


def files(folder: Path) -> list[Path]:
    return list((folder / "csn").glob("*.json"))


def test_the_choice_is_measured_once_and_remembered(candidates: Candidates, tmp_path: Path) -> None:
    assert candidates.choice() == candidates.choice() == "torch NDHWC"
    assert candidates.timed == list(CLOCK) and candidates.offered == 1  # the second call built no candidates
    depthwise_tune._chosen.clear()  # as in another process
    assert candidates.choice() == "torch NDHWC" and candidates.timed == list(CLOCK)
    assert len(files(tmp_path)) == 1


def test_a_kernel_of_ours_that_differs_from_torchs_is_not_taken(candidates: Candidates, tmp_path: Path) -> None:
    """The default too, and the fastest first of all."""
    candidates.clock = dict(OURS_FIRST)
    candidates.wrong = {"triton a"}
    assert candidates.choice() == "triton b" and '"triton b"' in files(tmp_path)[0].read_text()
    candidates.wrong = {"triton a", "triton b"}
    assert candidates.choice(X, (2, 2, 2)) == "torch NDHWC"
    candidates.clock["torch NDHWC"], candidates.against = float("inf"), "torch NCDHW"  # where one of torch's cannot run, with the other
    assert candidates.choice(X, (1, 2, 2)) == "torch NCDHW"
    candidates.wrong = set()
    assert candidates.choice(X, (2, 1, 1)) == "triton a"


def test_where_none_of_torchs_runs_ours_stand_by_themselves(candidates: Candidates) -> None:
    candidates.clock = {"triton a": 2.0, "triton b": 1.0, "torch NDHWC": float("inf")}
    candidates.against = "triton b"
    assert candidates.choice() == "triton b"
    candidates.clock = {"triton a": 1.0, "triton b": 2.0, "torch NDHWC": float("inf")}
    assert candidates.choice(X, (2, 2, 2)) == "triton a"


def test_of_nothing_the_default_is_taken_untimed(candidates: Candidates) -> None:
    assert candidates.choice(X[:0], (1, 1, 1)) == "triton a" and not candidates.timed


def test_what_could_not_be_compared_is_not_remembered_on_disk(candidates: Candidates, tmp_path: Path) -> None:
    candidates.clock = dict(OURS_FIRST)
    candidates.unknown = {"triton a"}
    assert candidates.choice() == candidates.choice() == "triton a" and candidates.timed == list(OURS_FIRST) and not files(tmp_path)
    candidates.unknown = set()
    depthwise_tune._chosen.clear()  # another process
    assert candidates.choice() == "triton a" and len(files(tmp_path)) == 1


def test_results_are_alike_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = torch.randn(2, 3, 4, 5, 6)
    default = lambda: expected

    def full() -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert depthwise_tune.alike("a", default, default, ()) and depthwise_tune.alike("a", lambda: expected.bfloat16(), default, ())
    assert depthwise_tune.alike("a", full, default, ()) is None
    assert depthwise_tune.alike("a", default, lambda: torch.full_like(expected, torch.inf), ()) is None
    for wrong in (lambda: expected.flip(4), lambda: 1.1 * expected, lambda: torch.full_like(expected, torch.nan)):
        with pytest.warns(UserWarning, match="the depthwise kernel `triton b`, .* is wrong by .* and is not used"):
            assert depthwise_tune.alike("triton b", wrong, default, ()) is False


def test_zeros_are_compared_on_other_inputs() -> None:
    """As in the first step from zero_gamma, where a wrong kernel's gradient is 0 too."""
    g, x, stride = torch.zeros(1, 2, 3, 4, 5).contiguous(memory_format=NDHWC), torch.randn(1, 2, 3, 4, 5), (1, 1, 1)
    before = torch.get_rng_state()
    for args, right, wrong in (
        ((g, stride), lambda g, stride: 2 * g, lambda g, stride: 2 * g.flip(4)),
        ((g, x, stride), lambda g, x, stride: g * x, lambda g, x, stride: g * x.flip(4)),
    ):
        assert depthwise_tune.alike("a", right, right, args)
        with pytest.warns(UserWarning, match="`triton b`, .* is wrong"):
            assert depthwise_tune.alike("triton b", wrong, right, args) is False
    assert torch.equal(before, torch.get_rng_state())
    like = depthwise_tune.drawn(g.bfloat16())
    assert (like.shape, like.stride(), like.dtype) == (g.shape, g.stride(), torch.bfloat16) and like.float().std() > 0.5


@pytest.mark.parametrize("text", ["{", "5", "null", "[1]", "[" * 10**5, '"a"', "\xff", '{"task 1x2x3x4x5/120x60x20x5x1/torch.float32 1x1x1": ["triton a"]}'])
def test_a_damaged_cache_is_measured_again(candidates: Candidates, tmp_path: Path, text: str) -> None:
    candidates.choice()
    files(tmp_path)[0].write_text(text, encoding="latin-1")
    depthwise_tune._chosen.clear()
    assert candidates.choice() == "torch NDHWC" and len(candidates.timed) == 6
    assert json.loads(files(tmp_path)[0].read_text()) == {"task 1x2x3x4x5/120x60x20x5x1/torch.float32 1x1x1": "torch NDHWC"}


def test_a_choice_that_is_no_candidate_any_more_is_measured_again(candidates: Candidates, tmp_path: Path) -> None:
    candidates.choice()
    file = files(tmp_path)[0]
    file.write_text(file.read_text().replace("torch NDHWC", "triton b"))
    depthwise_tune._chosen.clear()
    assert candidates.choice() == "torch NDHWC" and len(candidates.timed) == 6


def test_each_size_layout_type_and_task_is_measured(candidates: Candidates, tmp_path: Path) -> None:
    for x in (X, X.contiguous(memory_format=NDHWC), X[:, :1], X.half()):
        for stride in ((1, 1, 1), (2, 2, 2)):
            candidates.choice(x, stride)
    fastest("other task", candidates.ways, (X, (1, 1, 1)))
    assert len(candidates.timed) == 9 * 3 and len(json.loads(files(tmp_path)[0].read_text())) == 9


def test_other_software_measures_again(candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.__version__ in depthwise_tune._software() and "triton" in depthwise_tune._software() and "kernels" in depthwise_tune._software()
    candidates.choice()
    depthwise_tune._chosen.clear()
    monkeypatch.setattr(depthwise_tune, "_software", lambda: "torch 99")
    candidates.choice()
    assert len(candidates.timed) == 6 and len(files(tmp_path)) == 2


def test_a_choice_made_while_memory_ran_out_is_not_written(candidates: Candidates, tmp_path: Path) -> None:
    candidates.clock["torch NDHWC"] = torch.OutOfMemoryError("CUDA out of memory")
    assert candidates.choice() == candidates.choice() == "torch NCDHW"
    assert len(candidates.timed) == 3 and not files(tmp_path)  # measured once in this process all the same


@pytest.mark.parametrize("fault", [float("inf"), torch.OutOfMemoryError("CUDA out of memory")], ids=["fails", "memory"])
def test_where_all_fail_nothing_is_remembered(candidates: Candidates, tmp_path: Path, fault: float | Exception) -> None:
    candidates.clock.update(dict.fromkeys(CLOCK, fault))
    assert candidates.choice() == candidates.choice() == "triton a"  # which raises its error, where it is real
    assert len(candidates.timed) == 6 and not files(tmp_path)


def test_capturing_a_graph_takes_the_known_choice_and_else_the_default(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates.choice()
    depthwise_tune._chosen.clear()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert candidates.choice() == "torch NDHWC"  # from disk
    assert candidates.choice(X, (2, 2, 2)) == "triton a" and len(candidates.timed) == 3
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert candidates.choice(X, (2, 2, 2)) == "torch NDHWC"  # the default was not kept


def test_the_choice_can_be_fixed(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    for fixed, taken in (("triton", "triton a"), ("torch", "torch NDHWC")):
        monkeypatch.setenv("CSN_DEPTHWISE", fixed)
        assert candidates.choice() == taken
    monkeypatch.setenv("CSN_DEPTHWISE", "cudnn")
    with pytest.raises(UserError, match="CSN_DEPTHWISE"):
        candidates.choice()
    monkeypatch.delenv("CSN_DEPTHWISE")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert candidates.choice() == "triton a"
    assert not candidates.timed


@pytest.mark.parametrize("where", ["triton.runtime.errors.OutOfResources", "triton.runtime.errors.PTXASError", "triton.compiler.errors.CompilationError"])
def test_a_tiling_that_does_not_fit_is_no_candidate(where: str) -> None:
    pytest.importorskip("triton")
    module, name = where.rsplit(".", 1)
    kind = getattr(__import__(module, fromlist=[name]), name)

    def run() -> Tensor:
        raise kind.__new__(kind)

    assert depthwise_tune.seconds(run) == float("inf")


def test_only_faults_of_kernels_are_taken_for_such() -> None:
    def run(error: Exception) -> Tensor:
        raise error

    assert depthwise_tune.seconds(lambda: run(RuntimeError("CUDA error"))) == float("inf")
    for error in (torch.OutOfMemoryError("CUDA out of memory"), TypeError("ours")):
        with pytest.raises(type(error)):
            depthwise_tune.seconds(lambda error=error: run(error))


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 2)], ids=str)
def test_torch_candidates_agree(stride: tuple[int, int, int]) -> None:
    x, weight = torch.randn(2, 3, 4, 5, 4), torch.randn(3, 1, 5, 3, 3)
    x64, w64 = x.double(), weight.double()
    y64 = depthwise.convolve(x64, w64, stride)
    g = torch.randn(y64.shape)
    for ways_of, args, want in (
        (depthwise_tune.forward_ways, (x, weight, stride), y64),
        (depthwise_tune.grad_input_ways, (g, weight, x.shape[2:], stride), depthwise.grad_input(g.double(), w64, x.shape[2:], stride)),
        (depthwise_tune.grad_weight_ways, (g, x, weight, stride), depthwise.grad_weight(g.double(), x64, (5, 3, 3), stride)),
    ):
        ways = ways_of(*args)
        assert list(ways) == ["torch NDHWC", "torch NCDHW"]
        assert all((way(*args).double() - want).abs().max() < 1e-4 for way in ways.values())


def test_candidates_are_ours_with_the_default_first_then_torchs() -> None:
    pytest.importorskip("triton")
    x, weight = torch.zeros(1, 32, 2, 4, 4).bfloat16(), torch.zeros(32, 1, 3, 3, 3)
    for ways in (
        depthwise_tune.forward_ways(x, weight, (1, 1, 1)),
        depthwise_tune.grad_input_ways(x, weight, x.shape[2:], (1, 1, 1)),
        depthwise_tune.grad_weight_ways(x, x, weight, (1, 1, 1)),
    ):
        kinds = [name.split()[0] for name in ways]
        assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"triton", "torch"}
        assert len(ways) == len(set(ways)) and list(ways)[-2:] == ["torch NDHWC", "torch NCDHW"]
    for other in (x.double(), x[:0]):  # in 64 bits, and of an empty batch, torch's alone
        assert list(depthwise_tune.forward_ways(other, weight, (1, 1, 1))) == ["torch NDHWC", "torch NCDHW"]


def test_without_triton_torchs_are_the_candidates(candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "csn.depthwise_tiles", raising=False)
    monkeypatch.delattr("csn.depthwise_tiles", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "csn.depthwise_triton", raising=False)
    assert list(depthwise_tune.forward_ways(X, torch.zeros(2, 1, 3, 3, 3), (1, 1, 1))) == ["torch NDHWC", "torch NCDHW"]


def test_a_user_without_a_home_has_choices_remembered_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert depthwise_tune._file().is_relative_to(tempfile.gettempdir())


def test_torch_sums_the_weight_gradient_of_short_types_in_float32() -> None:
    x, weight = torch.randn(2, 3, 4, 5, 4).bfloat16(), torch.randn(3, 1, 3, 3, 3)
    g = torch.randn(x.shape).bfloat16()
    want = depthwise.grad_weight(g.double(), x.double(), (3, 3, 3), (1, 1, 1))
    for layout in depthwise_tune.LAYOUTS.values():
        got = depthwise_tune._torch_grad_weight(g, x, weight, (1, 1, 1), layout)
        assert got.dtype == torch.float32 and (got.double() - want).abs().max() < 1e-5 * want.abs().max()


class Weights(TorchDispatchMode):
    """Notes the strides of the weight of every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, op: Any, _types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> object:
        if op in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            self.found.append(args[2 if "backward" in str(op) else 1].stride())
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "strides"), [("torch NCDHW", (27, 27, 9, 3, 1)), ("torch NDHWC", (27, 1, 9, 3, 1))])
@pytest.mark.parametrize("given", [torch.contiguous_format, NDHWC], ids=str)
def test_torchs_kernels_get_weights_of_their_own_layout(name: str, strides: tuple[int, ...], given: torch.memory_format) -> None:
    """A network's have the strides of channels_last_3d, by which torch would take the same kernel twice, whatever the layout of the maps."""
    x, weight, stride = torch.randn(2, 4, 3, 5, 5), torch.randn(4, 1, 3, 3, 3).to(memory_format=given), (1, 1, 1)
    with Weights() as weights:
        for ways, args in (
            (depthwise_tune.forward_ways, (x, weight, stride)),
            (depthwise_tune.grad_input_ways, (x, weight, x.shape[2:], stride)),
            (depthwise_tune.grad_weight_ways, (x, x, weight, stride)),
        ):
            ways(*args)[name](*args)  # type: ignore[operator]
    assert weights.found == [strides] * 3
