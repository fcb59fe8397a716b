"""Exported networks compute what the network does, at any batch size; torch.hub finds its entry points. About 35 s of one core."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import refused, run
from foreign import Foreign
from small_checkpoint import NAMES, small_checkpoint

import csn
from csn.export import TOLERANCE, export, portable
from csn.provenance import REPOSITORY
from csn.spec import UserError

VARIANTS = [csn.Variant(block="ip", depth=26, width=4), csn.Variant(block="bottleneck-DG", depth=26, groups=2, width=4, pool1=False)]


@pytest.mark.parametrize(("variant", "fold"), [(VARIANTS[0], False), (VARIANTS[1], True)], ids=["plain", "folded"])
def test_onnx_at_any_batch_size(variant: csn.Variant, fold: bool, tmp_path: Path) -> None:
    net = csn.load(small_checkpoint(tmp_path / "net.safetensors", variant=variant))
    done = export(net, tmp_path / "net.onnx", fold)
    assert 0 <= done.error < 1e-4 and (done.folding > 0) == fold and done.folding < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert session.get_inputs()[0].shape[1:] == [3, 4, 32, 32] and isinstance(session.get_inputs()[0].shape[0], str)
    x = torch.randn(5, 3, 4, 32, 32)
    (logits,) = session.run(None, {"clips": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, net(x).numpy(), atol=1e-4 * float(net(x).abs().max()))
    model = onnx.load(tmp_path / "net.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    header = json.loads(told["csn"])
    assert header["classes"] == list(NAMES) and header["input"]["mean"] == list(net.input.mean) and header["frames"] == 4
    names = {node.op_type for node in model.graph.node}
    assert "Conv" in names and not (fold and "BatchNormalization" in names)


def test_torch_export(tmp_path: Path) -> None:
    net = csn.load(Foreign("pytorchvideo", "ir", 50, width=4).save(tmp_path / "theirs"))
    done = export(net, str(tmp_path / "net.pt2"), fold=True, size=(8, 32, 32))
    assert done.error < 1e-4
    told = {"csn": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=told)
    x = torch.randn(3, 3, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), net(x), rtol=1e-4, atol=1e-4)
    assert json.loads(told["csn"])["source"]["format"] == "pytorchvideo"


def test_the_network_stays_as_it_is_and_the_copy_is_torch_alone(tmp_path: Path) -> None:
    net = csn.load(small_checkpoint(tmp_path / "net.safetensors"))
    copied = portable(net)
    assert not [m for m in copied.modules() if type(m).__module__.startswith("csn.") and type(m).__name__ in ("DepthwiseConv3d", "PointwiseConv3d")]
    assert [m for m in net.modules() if type(m).__name__ == "DepthwiseConv3d"]
    x = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(copied(x), net(x))


def test_a_clip_of_no_size_is_refused(tmp_path: Path) -> None:
    small_checkpoint(tmp_path / "net.safetensors")
    command = ["-m", "csn.export", tmp_path / "net.safetensors", "--to", tmp_path / "net.pt2", "--size"]
    assert "`--size` (=0 32 32) must be frames, height and width of at least 1" in refused(run(*command, "0", "32", "32"))


def test_what_does_not_compute_the_same_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = csn.load(small_checkpoint(tmp_path / "net.safetensors", variant=VARIANTS[0]))

    def wrong(given: torch.nn.Module) -> torch.nn.Module:
        copied = portable(given)
        copied.head.fc.bias.data += 100 * TOLERANCE
        return copied

    monkeypatch.setattr("csn.export.folded", wrong)
    with pytest.raises(UserError, match="differs from the network by"):
        export(net, tmp_path / "net.pt2", fold=True)
    assert not (tmp_path / "net.pt2").exists()
    with pytest.raises(UserError, match=r"must end in \.onnx or \.pt2"):
        export(net, tmp_path / "net.pth")


def test_logits_that_are_no_numbers_are_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = csn.load(small_checkpoint(tmp_path / "net.safetensors", variant=VARIANTS[0]))

    def broken(given: torch.nn.Module) -> torch.nn.Module:
        copied = portable(given)
        copied.head.fc.bias.data[0] = float("nan")
        return copied

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"differs from the network by nan of its largest logit; .*net.pt2 was not written"):
        patch.setattr("csn.export.portable", broken)
        export(net, tmp_path / "net.pt2")
    net.head.fc.weight.data.fill_(3e38)
    with pytest.raises(UserError, match="differs from the network by nan"):
        export(net, tmp_path / "net.pt2")
    assert not (tmp_path / "net.pt2").exists()


def test_a_network_in_training_stays_as_it_is(tmp_path: Path) -> None:
    net = csn.load(small_checkpoint(tmp_path / "net.safetensors", variant=VARIANTS[0])).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert export(net, tmp_path / "net.pt2").error < TOLERANCE and net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    with pytest.raises(UserError, match=r"\(=torch.float64\) must be of torch.float32; call net.float\(\) first"):
        export(net.double(), tmp_path / "double.pt2")
    assert not (tmp_path / "double.pt2").exists()


def test_the_command(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "net.safetensors", variant=VARIANTS[0])
    done = run("-m", "csn.export", path, "--to", tmp_path / "net.pt2", "--fold")
    assert done.returncode == 0, done.stderr
    assert "logits differ from the network's by at most" in done.stdout and "(folding by itself: " in done.stdout
    assert "must end in" in refused(run("-m", "csn.export", path, "--to", tmp_path / "net.txt"))


def test_hub(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "net.safetensors")
    hub = {"repo_or_dir": str(REPOSITORY), "source": "local"}
    net = torch.hub.load(model="load", path=str(path), **hub)
    assert net.classes == NAMES and not net.training
    with torch.device("meta"):
        for name, depth, block in (("ir_csn", 50, "bottleneck-D"), ("ip_csn", 26, "ip"), ("resnet3d", 18, "simple"), ("resnet3d", 26, "bottleneck")):
            net = torch.hub.load(model=name, depth=depth, num_classes=7, **hub)
            assert net.variant == csn.Variant(block=block, depth=depth) and net.head.fc.out_features == 7
