"""Training through torch.compile: the same mathematics, exact resume, its warm-up told, one sentence without a compiler."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from csn.data.loader import load, reader_of
from csn.execute import execute
from csn.recipes import SMOKE
from csn.spec import Run, UserError, Variant
from csn.train import Place, Stopped, train

RECIPE = replace(SMOKE, epochs=2, warmup=1, clips_per_epoch=32, compile=True)
RUN = Run(variant=Variant(block="simple-D", depth=18, width=8), recipe=RECIPE, seed=0)
EAGER = replace(RUN, recipe=replace(RECIPE, compile=False))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_training_is_near_eager_and_resumes_to_the_bit(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    splits = {name: load(RECIPE, data, name) for name in ("train", "test")}
    reader = reader_of(RECIPE, data, splits)
    for name in "abc":
        (tmp_path / name).mkdir()
    told: list[dict[str, Any]] = []
    whole = train(RUN, splits["train"], reader, tmp_path / "a", Place(report=lambda **facts: told.append(facts)))
    assert [facts["phase"] for facts in told][:2] == ["compile", "train"]
    assert whole.compiling is not None and 0 < whole.compiling < whole.seconds
    with pytest.raises(Stopped):
        train(RUN, splits["train"], reader, tmp_path / "b", Place(stop=lambda: True))
    parts = train(RUN, splits["train"], reader, tmp_path / "b", Place())
    eager = train(EAGER, splits["train"], reader, tmp_path / "c", Place())
    assert eager.compiling is None and eager.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-5)
    for (name, a), b, c in zip(*(one.net.state_dict().items() for one in (whole,)), *(one.net.state_dict().values() for one in (parts, eager)), strict=True):
        assert torch.equal(a, b), name
        assert torch.allclose(a.float(), c.float(), atol=1e-4, rtol=1e-3), name
    assert RUN.name != EAGER.name and Run.from_dict(RUN.to_dict()) == RUN


def test_without_a_compiler_it_is_one_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(UserError, match=r"`compile` \(=True\) needs a C\+\+ compiler on a CPU; install g\+\+"):
        execute(RUN, tmp_path, data)
