"""Published files become networks: numbers against an evaluation of each format written apart; class counts, statistics, names.

About 20 s of one core. CSN_TEST_LAYOUTS names a folder of full-size listings, {name: [shape, type]} as JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import refused, run
from foreign import Foreign, python2_pickle

import csn
from csn.checkpoints import containers
from csn.checkpoints.facts import metadata
from csn.checkpoints.formats import STATISTICS, recognise
from csn.checkpoints.network import WindowHead, load, write
from csn.checkpoints.reading import read, statistics_in
from csn.spec import UserError

NETWORKS = [
    ("vmz", "ip", 50), ("vmz", "ir", 50), ("vmz", "r3d", 50), ("vmz", "simple", 18), ("caffe2", "ip", 152), ("caffe2", "ir", 50),
    ("caffe2", "r3d", 26), ("caffe2", "simple", 34), ("mmaction2", "ip", 50), ("mmaction2", "ir", 152), ("pytorchvideo", "ir", 101),
]  # fmt: skip
BLOCKS = {"ip": "ip", "ir": "bottleneck-D", "r3d": "bottleneck", "simple": "simple"}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference relative to the largest value."""
    return float((a - b).detach().abs().max() / b.detach().abs().max())


@pytest.mark.parametrize(("form", "kind", "depth"), NETWORKS)
def test_logits_equal_those_of_the_format(form: str, kind: str, depth: int, tmp_path: Path) -> None:
    theirs = Foreign(form, kind, depth)
    net = csn.load(theirs.save(tmp_path / "weights.bin"))  # the name tells nothing
    assert net.variant == csn.Variant(block=BLOCKS[kind], depth=depth, width=8, pool1=kind != "simple")
    assert not net.training and net.facts.num_classes == 5
    torchvision = (form, kind) == ("vmz", "simple")
    eps, other = (1e-5, 1e-3) if form == "pytorchvideo" or torchvision else (1e-3, 1e-5)
    assert net.facts.format == ("torchvision" if torchvision else {"vmz": "vmz-pth", "caffe2": "vmz-caffe2"}.get(form, form))
    x = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, expected = net(x), theirs(x, eps, pool=kind != "simple")
        assert difference(logits, expected) < 1e-4
        assert difference(logits, theirs(x, other, pool=kind != "simple")) > 1e-3, "these statistics do not feel the epsilon"


def test_a_network_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models.video import R3D_18_Weights, r3d_18

    torch.manual_seed(0)
    theirs = r3d_18().eval()
    torch.save(theirs.state_dict(), tmp_path / "weights")
    net = csn.load(tmp_path / "weights")
    assert net.variant == csn.Variant(block="simple", depth=18, pool1=False)
    assert (net.classes[0], net.classes[399], net.input.frames) == ("abseiling", "zumba", 16)
    given, says = read(tmp_path / "weights")[0].input, R3D_18_Weights.KINETICS400_V1.transforms()
    assert ([given.crop, given.crop], given.short, list(given.mean), list(given.std)) == (says.crop_size, says.resize_size[0], says.mean, says.std)
    assert given.fps == 15 * given.stride  # its documentation: 16 frames at 15 a second
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert difference(net(x), theirs(x)) < 1e-4


def layouts() -> list[Path]:
    return sorted(Path(os.environ["CSN_TEST_LAYOUTS"]).glob("*.json")) if os.environ.get("CSN_TEST_LAYOUTS") else []


@pytest.mark.skipif(not layouts(), reason="CSN_TEST_LAYOUTS is not set")
@pytest.mark.parametrize("path", layouts(), ids=lambda path: path.stem)
def test_every_name_and_shape_of_the_full_size_listings(path: Path) -> None:
    listing = {name: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for name, (shape, kind) in json.loads(path.read_text()).items()}
    form, variant, classes = recognise(listing)
    form_name, _, network = path.stem.rpartition("_")
    assert form.name == {"vmz_pth": "vmz-pth", "vmz_c2_pkl": "vmz-caffe2"}.get(form_name, form_name)
    assert variant == csn.Variant(block=BLOCKS[network[:2]], depth=int(network[2:]), width=64) and classes == 400
    names = form.names(variant, classes)
    assert sorted(names.values()) == sorted(listing)
    with torch.device("meta"):
        ours = csn.build(variant, classes).state_dict()
    without = ours.keys() - names.keys()
    assert all(name.endswith("num_batches_tracked") for name in without)
    assert all(ours[mine].shape == listing[theirs].shape for mine, theirs in names.items())


def test_the_window_head_averages_the_logits_of_all_windows() -> None:
    """PyTorchVideo: AvgPool3d (4, 7, 7) of stride 1, the classifier at each position, then the mean."""
    fc = torch.nn.Linear(6, 3)
    head, x = WindowHead(fc), torch.randn(2, 6, 5, 8, 9)
    windows = torch.nn.AvgPool3d((4, 7, 7), stride=1)(x)
    expected = fc(windows.permute(0, 2, 3, 4, 1)).mean((1, 2, 3))
    torch.testing.assert_close(head(x), expected)
    assert difference(head(x), fc(x.mean((2, 3, 4)))) > 1e-3
    torch.testing.assert_close(head(x[:, :, :2, :3, :3]), fc(x[:, :, :2, :3, :3].mean((2, 3, 4))))  # a small map: one window
    net = csn.build(csn.Variant(block="ip", depth=26, width=4), 3)
    net.head = head
    with pytest.raises(UserError, match="head, WindowHead, has no dense form"):
        csn.fully_convolutional(net)


CAFFE2 = ([110.201, 100.64, 95.9966], [58.1489, 56.4701, 55.3324])  # caffe2/video/video_input_op.h, of values 0..255
KINETICS = ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])  # VMZ pt/vmz/func/test.py
SEEN = {  # frames, of how many one, crop, short side, frames a second (None: as they come), mean, std
    ("vmz", "ip"): (32, 2, 224, 256, 30, KINETICS),  # test.py takes every frame of a film at 15 a second
    ("caffe2", "ir"): (32, 2, 224, 256, None, CAFFE2),  # VMZ c2/scripts/test_irCSN_152_kinetics.sh: a short side of 256
    ("caffe2", "simple"): (32, 2, 112, 128, None, CAFFE2),  # VMZ c2/tools/train_net.py: the defaults of crop_size and scale_h
    ("mmaction2", "ip"): (32, 2, 224, 256, None, KINETICS),  # configs/recognition/csn, val_pipeline
    ("pytorchvideo", "ir"): (32, 2, 224, 256, None, ([0.45] * 3, [0.225] * 3)),  # as SlowFast, slowfast/config/defaults.py
}


@pytest.mark.parametrize(("form", "kind"), SEEN)
def test_a_network_sees_videos_as_its_makers_show_them(form: str, kind: str, tmp_path: Path) -> None:
    """What no file tells, and what answers depend on."""
    given = read(Foreign(form, kind, 18 if kind == "simple" else 50, width=4).save(tmp_path / "weights"))[0].input
    *clip, (mean, std) = SEEN[form, kind]
    assert [given.frames, given.stride, given.crop, given.short, given.fps] == clip
    scale = 255 if form == "caffe2" else 1
    assert [scale * value for value in given.mean] == pytest.approx(mean) and [scale * value for value in given.std] == pytest.approx(std)


def test_input_statistics_follow_the_format(tmp_path: Path) -> None:
    assert csn.load(Foreign("vmz", "ir", 50).save(tmp_path / "a")).input.mean == STATISTICS["kinetics"][0]
    assert csn.load(Foreign("pytorchvideo", "ir", 50).save(tmp_path / "b")).input.std == (0.225, 0.225, 0.225)
    caffe2 = csn.load(Foreign("caffe2", "ir", 50).save(tmp_path / "c")).input
    assert [255 * value for value in caffe2.mean] == pytest.approx([110.201, 100.64, 95.9966])
    backbone = Foreign("mmaction2", "ir", 50)
    text = "model = dict(data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], format_shape='NCTHW'))"
    names = [f"class {i}" for i in range(5)]
    net = csn.load(backbone.save(tmp_path / "d", meta={"cfg": text, "dataset_meta": {"classes": names}}))
    assert net.input.mean == pytest.approx(STATISTICS["imagenet"][0]) and net.input.std == pytest.approx(STATISTICS["imagenet"][1])
    assert net.classes == tuple(names) and not net.facts.notes
    bytes_only = "dict(mean=[0, 0, 0], std=[255, 255, 255])"
    assert read(backbone.save(tmp_path / "f", meta={"cfg": bytes_only}))[0].input.std == (1, 1, 1)
    titles = [dict(read(Foreign(form, "ir", 50).save(tmp_path / form))[0].rows())["format"].split(", sha")[0] for form in ("mmaction2", "backbone")]
    assert titles == ["MMAction2", "MMAction2, backbone"]
    silent, _ = read(backbone.save(tmp_path / "e"))
    assert silent.input.mean == STATISTICS["kinetics"][0] and "IG-65M" in silent.notes[0]
    write(tmp_path / "ours.safetensors", silent, _)
    assert read(tmp_path / "ours.safetensors")[0].notes == silent.notes  # what was assumed once is not forgotten by a conversion
    chosen, _ = read(tmp_path / "e", "imagenet")
    assert chosen.input.mean == STATISTICS["imagenet"][0] and not chosen.notes


@pytest.mark.parametrize("classes", [359, 400, 487])
def test_any_number_of_classes_kept_or_replaced(classes: int, tmp_path: Path) -> None:
    path = Foreign("caffe2", "ir", 50, classes=classes, width=4).save(tmp_path / "weights")
    net = csn.load(path)
    assert net.head.fc.weight.shape == (classes, 128) and len(net.classes) == (400 if classes == 400 else 0)
    fresh = csn.load(path, num_classes=7)
    assert fresh.head.fc.weight.shape == (7, 128) and fresh.classes == () and fresh.facts.num_classes == 7
    assert torch.equal(fresh.stem.conv1.bn.running_var, net.stem.conv1.bn.running_var)
    assert fresh.head.fc.weight.std() > 0 and bool((fresh.head.fc.bias == 0).all())
    with pytest.raises(UserError, match="`num_classes`"):
        csn.load(path, num_classes=-1)


def test_a_backbone_without_classifier(tmp_path: Path) -> None:
    path = Foreign("backbone", "ip", 50, width=4).save(tmp_path / "weights")
    with pytest.raises(UserError, match="has no classifier; give num_classes"):
        csn.load(path)
    assert csn.load(path, 3)(torch.zeros(1, 3, 8, 32, 32)).shape == (1, 3)


def test_counters_may_be_absent_and_half_precision_is_widened(tmp_path: Path) -> None:
    theirs = Foreign("mmaction2", "ir", 50, width=4)
    theirs.state = {name: tensor.half() for name, tensor in theirs.state.items() if not name.endswith("num_batches_tracked")}
    net = csn.load(theirs.save(tmp_path / "weights"))
    assert net.head.fc.weight.dtype == torch.float32 and net.stem.conv1.bn.num_batches_tracked == 0


def test_what_is_missing_and_what_is_left_over_are_both_listed(tmp_path: Path) -> None:
    theirs = Foreign("vmz", "ip", 50, width=4)
    del theirs.state["layer2.1.conv3.1.running_var"]
    theirs.state["layer1.0.conv1.0.bias"] = torch.zeros(4)
    theirs.state["fc.bias"] = torch.zeros(9)
    with pytest.raises(UserError) as caught:
        csn.load(theirs.save(tmp_path / "weights"))
    told = str(caught.value)
    for part in ("missing: layer2.1.conv3.1.running_var;", "left over: layer1.0.conv1.0.bias;", "another shape: fc.bias (9, 5 wanted)"):
        assert part in told
    theirs = Foreign("vmz", "ip", 50, width=4)
    theirs.state["stem.1.running_var"][2] = -1
    theirs.state["fc.weight"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"without sensible numbers: stem\.1\.running_var, fc\.weight"):
        csn.load(theirs.save(tmp_path / "weights"))


def test_depths_nobody_has_are_refused(tmp_path: Path) -> None:
    theirs = Foreign("vmz", "ir", 50, width=4)
    theirs.state = {name: tensor for name, tensor in theirs.state.items() if not name.startswith("layer3.5")}
    with pytest.raises(UserError, match="stages of 3, 4, 5, 3 blocks"):
        csn.load(theirs.save(tmp_path / "weights"))


def test_python_2_wrote_what_the_tests_write() -> None:
    blobs = {"a_w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.full(300, 0.1, np.float32)}
    import pickle

    held = pickle.loads(python2_pickle(blobs), encoding="latin1")["blobs"]
    assert all(np.array_equal(held[name], blobs[name]) for name in blobs) and len(held) == 2


def test_ours_carries_all_that_goes_with_a_network(tmp_path: Path) -> None:
    path = Foreign("pytorchvideo", "ir", 50, width=4).save(tmp_path / "theirs")
    facts, state = read(path)
    facts = replace(facts, classes=("a", "b", "c", "d", "é"))
    write(tmp_path / "ours.safetensors", facts, state)
    net, theirs = load(tmp_path / "ours.safetensors"), load(path)
    assert (net.facts.variant, net.input, net.facts.eps, net.classes) == (facts.variant, facts.input, 1e-5, facts.classes)
    assert net.facts.source == ("pytorchvideo", containers.read(path).sha256) and isinstance(net.head, WindowHead)
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(x), theirs(x))
    write(tmp_path / "again.safetensors", net.facts, read(tmp_path / "ours.safetensors")[1])
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()
    small = replace(facts.input, short=80, crop=112)
    for wrong, sentence in (
        (replace(facts, classes=("a",)), r"wrong\.safetensors was not written, for the facts of the network are wrong: 5 classes have 1 names\."),
        (replace(facts, num_classes=4, classes=()), r"`num_classes` \(=4\) of the facts must be that of the network, 5\."),
        (replace(facts, input=replace(facts.input, std=(0.0, 1.0, 1.0))), "std, fps are "),
        (replace(facts, input=small), "crop 112 is larger than the short side, 80"),
    ):
        with pytest.raises(UserError, match=sentence):
            write(str(tmp_path / "wrong.safetensors"), wrong, state)
    assert not (tmp_path / "wrong.safetensors").exists()
    held = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    safetensors.torch.save_file(held, tmp_path / "bare.safetensors", {"csn": "{}"})
    with pytest.raises(UserError, match="its header is damaged or of another version"):
        load(tmp_path / "bare.safetensors")
    told = json.loads(metadata(net.facts)["csn"])
    for change in (
        {"classes": ["a"]}, {"num_classes": "5"}, {"input": {**told["input"], "crop": "x"}}, {"input": {**told["input"], "frames": 0}},
        {"input": {**told["input"], "std": [0.2, 0.2, 0]}}, {"input": {**told["input"], "mean": [0.2, 0.2]}}, {"input": {**told["input"], "short": 0}},
        {"input": {**told["input"], "fps": -1}}, {"bn_eps": -1}, {"bn_eps": float("nan")}, {"source": {"format": 1, "sha256": "a"}},
        {"variant": {**told["variant"], "width": 8.0}}, {"variant": ["ip"]},
        {"variant": {**told["variant"], "interior_relu": []}}, {"variant": {**told["variant"], "more": 1}},
    ):  # fmt: skip
        safetensors.torch.save_file(held, tmp_path / "bare.safetensors", {"csn": json.dumps({**told, **change})})
        with pytest.raises(UserError, match="its header is damaged or of another version"):
            load(tmp_path / "bare.safetensors")
    safetensors.torch.save_file(held, tmp_path / "bare.safetensors", {"csn": "[" * 10**5})
    with pytest.raises(UserError, match="its header is damaged or of another version"):
        load(tmp_path / "bare.safetensors")


def test_odd_headers_are_refused_in_a_sentence_or_read_as_silent(tmp_path: Path) -> None:
    path = Foreign("mmaction2", "ip", 50, classes=5, width=4).save(tmp_path / "theirs")
    facts, state = read(path)
    told = json.loads(metadata(facts)["csn"])
    for width in (10**12, 10**30):
        told["variant"]["width"] = width
        safetensors.torch.save_file(state, tmp_path / "wide.safetensors", {"csn": json.dumps(told)})
        with pytest.raises(UserError, match=rf"wide.safetensors is refused: a network of width {width} and 5 classes cannot be built"):
            load(tmp_path / "wide.safetensors")
    content = safetensors.torch.save(state)
    size = int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": None, **json.loads(content[8 : 8 + size])}).encode()
    (tmp_path / "null.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    with pytest.raises(UserError, match=r"null.safetensors is refused"):
        load(tmp_path / "null.safetensors")
    told["variant"]["width"], told["bn_eps"] = 4, 10**400
    safetensors.torch.save_file(state, tmp_path / "eps.safetensors", {"csn": json.dumps(told)})
    with pytest.raises(UserError, match="its header is damaged or of another version"):
        load(tmp_path / "eps.safetensors")
    assert statistics_in({"config": "mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3]"}) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))  # of values 0..1 as they are
    for text in ("mean=[1..2, 3, 4], std=[1, 1, 1]", "mean=[0.4, 0.4, 0.4], std=[0, 0, 0]"):
        assert statistics_in({"config": text}) is None


def test_the_command_describes_and_converts(tmp_path: Path) -> None:
    path = Foreign("caffe2", "ip", 50, classes=3, width=4).save(tmp_path / "weights.pkl")
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    done = run("-m", "csn.checkpoints", path, "--to", tmp_path / "out.safetensors", "--classes", tmp_path / "names.txt")
    assert done.returncode == 0, done.stderr
    for part in ("ip-CSN-50", "VMZ, Caffe2", "0.43216 0.39467 0.37646", "0.001", "32 frames at stride 2", "Written:"):
        assert part in done.stdout, done.stdout
    assert csn.load(tmp_path / "out.safetensors").classes == ("one", "two", "three")
    (tmp_path / "names.txt").write_text("one\n")
    assert "names 1 classes, the checkpoint has 3" in refused(run("-m", "csn.checkpoints", path, "--classes", tmp_path / "names.txt"))
