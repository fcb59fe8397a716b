"""Runs that begin from a checkpoint: what is taken over, what is frozen, exact resume; scores of a checkpoint file. About 25 s of one core."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused, run
from foreign import Foreign
from made_sets import real
from made_videos import write, write_folder
from small_checkpoint import small_checkpoint
from torch import nn

import csn
from csn import finetune
from csn.checkpoints import network
from csn.checkpoints.facts import of_run
from csn.checkpoints.formats import STATISTICS
from csn.checkpoints.network import start
from csn.checkpoints.reading import read
from csn.collect import read_lines
from csn.data.loader import load, reader_of
from csn.data.media import listing
from csn.data.moving_digits import CLASSES
from csn.data.scan import scan
from csn.evaluate import evaluate
from csn.execute import execute
from csn.finetune import table_of
from csn.recipes import SMOKE
from csn.records import folder_of
from csn.spec import Run, UserError, Variant, VideoSet
from csn.train import Place, Stopped, train

VARIANT = Variant(block="ip", depth=26, width=8)
TUNE = replace(SMOKE, pretrained="small.safetensors", freeze_bn=True)


@pytest.fixture
def file(data: Path) -> Path:
    (data / "checkpoints").mkdir(exist_ok=True)
    return small_checkpoint(data / "checkpoints" / "small.safetensors")


def norms(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if ".bn." in name}


def test_stopped_and_resumed_equals_uninterrupted(data: Path, file: Path, tmp_path: Path) -> None:
    run = Run(variant=VARIANT, recipe=TUNE, seed=0)
    splits = {name: load(TUNE, data, name) for name in ("train", "test")}
    reader = reader_of(TUNE, data, splits)
    torch.set_num_threads(1)
    nets = []
    for name, sittings in (("whole", 0), ("parts", 2)):
        (tmp_path / name).mkdir()
        for _ in range(sittings):
            with pytest.raises(Stopped):
                train(run, splits["train"], reader, tmp_path / name, Place(stop=lambda: True), file)
        trained = train(run, splits["train"], reader, tmp_path / name, Place(), file)
        other = replace(splits["train"], fingerprint="of others")
        with pytest.raises(UserError, match=r"The training videos of moving-digits are not those that this run began with; bring those back, or delete"):
            train(run, other, reader, tmp_path / name, Place(), file)
        assert trained.pretrained == hashlib.sha256(file.read_bytes()).hexdigest()
        nets.append(trained.net)
    before = csn.load(file)
    for (name, a), b in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(norms(nets[0]).values(), norms(before).values(), strict=True))  # frozen
    assert not torch.equal(nets[0].stem.conv1.conv.weight, before.stem.conv1.conv.weight)
    assert nets[0].head.fc.out_features == 80
    small_checkpoint(file, seed=1)
    with pytest.raises(UserError, match="is not the file this run began from"):
        train(run, splits["train"], reader, tmp_path / "parts", Place(), file)


def test_a_run_from_a_checkpoint_and_the_scores_of_its_weights(data: Path, file: Path, tmp_path: Path) -> None:
    run = Run(variant=VARIANT, recipe=replace(TUNE, freeze_bn=False), seed=0)
    record = execute(run, tmp_path, data)
    assert record["pretrained"] == {"file": "small.safetensors", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    weights = folder_of(run, tmp_path) / "weights.safetensors"
    net = csn.load(weights)
    assert net.classes == CLASSES and (net.input.frames, net.input.crop, net.input.short) == (4, 32, None)
    assert not any(torch.equal(a, b) for a, b in zip(norms(net).values(), norms(csn.load(file)).values(), strict=True))  # not frozen
    split = load(SMOKE, data, "test")
    ticks: list[tuple[int, int]] = []
    net = net.to(memory_format=torch.channels_last_3d)
    scores = evaluate(net, split, SMOKE, reader_of(SMOKE, data, {"test": split}), torch.device("cpu"), tick=lambda *now: ticks.append(now))
    assert scores.measures()["video_top1"].mean == record["video_top1"] and ticks[-1] == (80, 80)
    kept = np.load(weights.with_name("scores.npz"))["probs"].astype(np.float32)
    np.testing.assert_allclose(scores.probs, kept, atol=1e-3)


def test_the_classifier_stays_where_the_classes_are_the_same(file: Path) -> None:
    held = csn.load(file).head.fc.weight
    for classes, kept in ((("left", "right", "up"), True), (("up", "right", "left"), False), (("a", "b"), False)):
        net = csn.build(VARIANT, len(classes), 4)
        start(net, file, TUNE, classes)
        assert torch.equal(net.head.fc.weight, held) == kept


def test_a_run_of_no_steps_needs_the_classes_of_the_file(file: Path) -> None:
    tested = replace(TUNE, epochs=1, warmup=0, clips_per_epoch=0)
    start(csn.build(VARIANT, 3), file, tested, ("left", "right", "up"))
    for classes, told in ((("a", "b"), "has 3 classes, the data set has 2"), (("up", "right", "left"), "of other names, the data set has 3")):
        with pytest.raises(UserError, match=told):
            start(csn.build(VARIANT, len(classes)), file, tested, classes)


def test_another_network_or_other_statistics_are_refused(file: Path) -> None:
    with pytest.raises(UserError, match=r"`pretrained` \(=small\.safetensors\) is Variant.*'ip'.*the run's network .*'bottleneck-D'"):
        start(csn.build(replace(VARIANT, block="bottleneck-D"), 3), file, TUNE, ("a",))
    grey = (0.2, 0.2, 0.2)
    for name, recipe in (("mean", replace(TUNE, mean=grey)), ("std", replace(TUNE, std=grey))):
        with pytest.raises(UserError, match=rf"`{name}` \(=\(0\.2, 0\.2, 0\.2\)\) of the recipe must be that of `pretrained`"):
            start(csn.build(VARIANT, 3), file, recipe, ("a",))


def test_the_epsilon_of_batch_norm_goes_from_file_to_network_to_file(tmp_path: Path) -> None:
    """torchvision's is 1e-5, ours 1e-3, and its variances are small enough to tell: another epsilon is another network."""
    theirs = Foreign("vmz", "simple", 18, classes=3)
    file = theirs.save(tmp_path / "r3d_18.pth")
    variant = Variant(block="simple", depth=18, width=8, pool1=False)
    recipe = replace(TUNE, frames=8, stride=1, mean=STATISTICS["kinetics"][0], std=STATISTICS["kinetics"][1])
    net = csn.build(variant, 3)
    start(net, file, recipe, ("left", "right", "up"))
    network.write(tmp_path / "weights.safetensors", of_run(Run(variant=variant, recipe=recipe, seed=0), ("left", "right", "up"), net), net.state_dict())
    x = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, other = theirs(x, 1e-5, pool=False), theirs(x, 1e-3, pool=False)
        for found in (net.eval()(x), csn.load(tmp_path / "weights.safetensors")(x)):
            assert (found - expected).abs().max() < 0.01 * (other - expected).abs().max()


def test_the_fields_have_rules() -> None:
    for name in ("/etc/file", "../file", "a/../../file"):
        with pytest.raises(UserError, match="`pretrained`"):
            replace(TUNE, pretrained=name)
    with pytest.raises(UserError, match=r"`freeze_bn` \(=True\) belongs to a `pretrained` network"):
        replace(SMOKE, freeze_bn=True)
    run = Run(variant=VARIANT, recipe=TUNE, seed=0)
    assert Run.from_dict(run.to_dict()) == run and run.name != Run(variant=VARIANT, recipe=SMOKE, seed=0).name


def test_the_command_tunes_on_a_folder_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file of three classes to a network of two, by the flags of the table scripts."""
    data, home = tmp_path / "data", tmp_path / "home"
    command = ["net.safetensors", "--kind", "folder", "--data", str(data), "--home", str(home)]
    more = ["--batch", "4", "--micro-batch", "2", "--epochs", "1", "--lr", "0.01", "--freeze-bn", "--no-mirror"]

    def why(*arguments: str) -> str:
        """The one sentence of a refusal."""
        assert finetune.run(arguments) == 2
        out, err = capsys.readouterr()
        assert not out and len(err.splitlines()) == 1 and err.startswith("error: ")
        return err

    (data / "checkpoints").mkdir(parents=True)
    assert "net.safetensors cannot be read" in why(*command)
    small_checkpoint(data / "checkpoints" / "net.safetensors")
    assert "has no folder of a class; put the training videos into" in why(*command)
    for split in ("train", "test"):
        for i in range(4):
            write(data / "folder" / split / ("up", "down")[i % 2] / f"{i}.mp4", 12, (40, 56))
    assert "run `python -m csn.data scan --dataset folder" in why(*command)
    scan(data / "folder", listing(data / "folder"))
    assert "must be at least 1" in why(*command, "--batch", "0") and "`lr` (=0.0) must be above 0" in why(*command, "--lr", "0")
    assert why(*command, *more, "--fold", "2").startswith("error: `fold` (=2) must be 1, 2 or 3 for ucf101 and hmdb51, 1 for folder.")
    assert why(*command, "--epochs", "0").startswith("error: `--epochs` (=0) must be at least 1.")
    assert why(*command, *more, "--scale", "small").startswith("error: Argument --scale: fine-tuning has a recipe of its own")
    assert finetune.run([*command, *more, "--plan"]) == 0 and "1 missing" in capsys.readouterr().out
    assert "The following arguments are required: --kind" in refused(run("-m", "csn.finetune", "net.safetensors", "--data", data))
    done = run("-m", "csn.finetune", *command, *more, "--seeds", "1", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    (line,) = read_lines(home / "results" / "paper" / "finetune_folder_net.csv")
    assert (line["row"], line["seed"], line["n_videos"], line["epochs"]) == ("net", "1", "4", "1") and line["video_top1"]
    net, before = csn.load(next(home.glob("runs/*/weights.safetensors"))), csn.load(data / "checkpoints" / "net.safetensors")
    assert net.classes == ("down", "up") and net.input == replace(before.input, crop=32)
    assert all(torch.equal(a, b) for a, b in zip(norms(net).values(), norms(before).values(), strict=True))
    assert finetune.run([*command, *more, "--seeds", "1", "--submit", "--plan", "--profile", "local"]) == 0 and "Nothing is missing" in capsys.readouterr().out


def test_the_recipe_that_follows_from_file_flags_and_videos(tmp_path: Path) -> None:
    """Five videos in steps of two are four clips an epoch; the short side from that of the file to a quarter more, as 256 to 320; lr 0.0001 a GPU of 4."""
    (tmp_path / "checkpoints").mkdir()
    small_checkpoint(tmp_path / "checkpoints" / "net.safetensors")
    for i in range(5):
        write(tmp_path / "folder" / "train" / ("up", "down")[i % 2] / f"{i}.mp4", 6, (40, 56))
    scan(tmp_path / "folder", listing(tmp_path / "folder"))
    command = ["net.safetensors", "--kind", "folder", "--data", str(tmp_path), "--batch", "2", "--micro-batch", "1"]
    (row,) = table_of(command)[0].rows
    assert row.recipe is not None and row.variant == VARIANT and row.recipe.data == VideoSet(kind="folder", classes=2)
    found = (row.recipe.clips_per_epoch, row.recipe.epochs, row.recipe.resize, row.recipe.crop, row.recipe.test_crop, row.recipe.mirror, row.recipe.freeze_bn)
    assert found == (4, 8, (40, 50), 32, 32, True, False) and row.recipe.lr == pytest.approx(0.0001 / 4 * 2)
    (other,) = table_of([*command[:-4], "--batch", "8", "--no-mirror", "--freeze-bn", "--lr", "0.3"])[0].rows
    assert other.recipe is not None and not other.recipe.mirror and other.recipe.freeze_bn
    assert (other.recipe.clips_per_epoch, other.recipe.lr) == (8, 0.3)  # fewer videos than clips of a step: some of them twice


def test_classes_that_tell_left_from_right_are_not_mirrored(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    small_checkpoint(tmp_path / "checkpoints" / "net.safetensors")
    root = real("something-v2", tmp_path / "something-v2")
    scan(root, listing(root))
    (row,) = table_of(["net.safetensors", "--kind", "something-v2", "--data", str(tmp_path), "--batch", "2", "--micro-batch", "2"])[0].rows
    assert row.recipe is not None and not row.recipe.mirror


def test_pictures_are_taken_as_they_are_whatever_rate_the_file_knows(tmp_path: Path) -> None:
    facts, state = read(small_checkpoint(tmp_path / "plain.safetensors"))
    (tmp_path / "checkpoints").mkdir()
    network.write(tmp_path / "checkpoints" / "net.safetensors", replace(facts, input=replace(facts.input, fps=30.0)), state)
    for split in ("train", "test"):
        for i in range(2):
            write_folder(tmp_path / "folder" / split / ("up", "down")[i] / "clip", frames=12)
    scan(tmp_path / "folder", listing(tmp_path / "folder"))
    command = ["net.safetensors", "--kind", "folder", "--data", str(tmp_path), "--batch", "2", "--micro-batch", "2"]
    (table, _) = table_of(command)
    assert table.rows[0].recipe is not None and table.rows[0].recipe.fps is None
    write(tmp_path / "folder" / "train" / "up" / "film.mp4", 12, (40, 56))
    scan(tmp_path / "folder", listing(tmp_path / "folder"))
    with pytest.raises(UserError, match=r"`fps` \(=30\) of the recipe needs a frame rate, which 2 of 3 videos"):  # nobody knows the rate of both
        table_of(command)
