"""The learned filters: written from a finished run, drawn from the file, and what happens where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused, run

from csn import plots
from csn.checkpoints import facts, network
from csn.depthwise import DepthwiseConv3d
from csn.filters import COLUMNS, filters_path, main, read_filters
from csn.recipes import SMOKE
from csn.resnet3d import build
from csn.spec import Block, Run, UserError, Variant


def finished(folder: Path, block: Block) -> torch.nn.Module:
    """A folder of a run with the weights of an untrained network."""
    torch.manual_seed(0)
    one = Run(variant=Variant(block=block, depth=26, width=8, pool1=False), recipe=SMOKE, seed=0)
    net = build(one.variant, 80, SMOKE.frames)
    folder.mkdir(parents=True)
    network.write(folder / "weights.safetensors", facts.of_run(one, [str(i) for i in range(80)], net), net.state_dict(), run=one.to_dict())
    return net


def test_the_strongest_filters_of_three_layers(tmp_path: Path) -> None:
    net = finished(tmp_path / "runs" / "smoke-x", "bottleneck-D")
    assert main([str(tmp_path / "runs" / "smoke-x"), "--home", str(tmp_path)]) == 0
    name, layers = read_filters(tmp_path)
    own = {name: module.weight.detach().numpy()[:, 0] for name, module in net.named_modules() if isinstance(module, DepthwiseConv3d)}
    assert name == "smoke-x" and list(layers) == [list(own)[i] for i in (0, len(own) // 2, len(own) - 1)]
    for layer, found in layers.items():
        norms = np.linalg.norm(own[layer].reshape(len(own[layer]), -1), axis=1)
        np.testing.assert_allclose(found, own[layer][np.argsort(-norms, kind="stable")[:8]], rtol=1e-3)
    figure = plots.learned_filters(name, layers)
    assert len(figure.axes) == 3 * 8 and all(len(ax.images) == 3 for ax in figure.axes)
    plots.plt.close(figure)


def test_without_a_file_there_is_nothing_to_draw_and_the_figure_says_so(tmp_path: Path) -> None:
    assert read_filters(tmp_path) == ("", {})
    [ax] = plots.learned_filters("", {}).axes
    assert "no filters yet: python -m csn.filters" in ax.texts[0].get_text()
    plots.plt.close("all")


@pytest.mark.parametrize("content", ["", "x,y\n", ",".join(COLUMNS) + "\nrun,layer,0,abc\n", ",".join(COLUMNS) + "\nrun,layer,0,1\n",
                                     ",".join(COLUMNS) + "\nrun,layer,0" + 54 * ",1" + "\n", "x" * 200_000])  # fmt: skip
def test_a_damaged_file_is_refused(content: str, tmp_path: Path) -> None:
    filters_path(tmp_path).parent.mkdir()
    filters_path(tmp_path).write_text(content)
    with pytest.raises(UserError, match=r"filters\.csv is no file of filters .*run python -m csn\.filters again"):
        read_filters(tmp_path)


def test_what_is_no_run_with_filters_is_refused(tmp_path: Path) -> None:
    assert "is no folder of a finished run" in refused(run("-m", "csn.filters", tmp_path / "none", "--home", tmp_path))
    finished(tmp_path / "plain", "bottleneck")
    assert "has no depthwise convolution" in refused(run("-m", "csn.filters", tmp_path / "plain", "--home", tmp_path))
    assert not filters_path(tmp_path).exists()
