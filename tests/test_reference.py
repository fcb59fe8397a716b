"""Numbers that a reader rests on, against a second way to get them: a training written out, blocks box by box, metrics, lines, clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import csn
from csn import evaluate as testing
from csn import finetune
from csn.blocks import ConvBN, Residual
from csn.collect import line_of
from csn.data import Sample, Split, loader
from csn.data.loader import Reader, TrainClips, load, reader_of, train_batches
from csn.evaluate import Scores, evaluate
from csn.recipes import PAPER_32_FT, SMALL, SMOKE, SPORTS1M, UCF101_FT
from csn.spec import Run, Variant, VideoSet
from csn.table import table_of
from csn.train import Place, train


def test_training_is_what_it_is_written_out(data: Path, tmp_path: Path) -> None:
    """An epoch of two steps of two micro-batches, seed 3: history and weights, by torch's plain SGD. (Rounding grows with every step.)"""
    recipe = replace(SMOKE, batch=8, micro_batch=4, lr=0.0002, warmup=0, epochs=1, clips_per_epoch=16)
    run = Run(variant=Variant(block="ip", depth=26, width=8, pool1=False), recipe=recipe, seed=3)
    split = load(recipe, data, "train")
    reader = reader_of(recipe, data, {"train": split})
    found = train(run, split, reader, tmp_path, Place())

    torch.manual_seed(3)
    net = csn.build(run.variant, len(split.classes), recipe.frames)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net = net.to(memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    decayed, free = ([p for name, p in net.named_parameters() if name.endswith("bias") == bias] for bias in (False, True))
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    sgd = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)
    batches = train_batches(split, recipe, 3, 0, reader)
    mean, std = (torch.tensor(one).view(3, 1, 1, 1) for one in (recipe.mean, recipe.std))
    losses, hits = [], []
    for rate in (recipe.lr, recipe.lr / 2):  # half a cosine over two steps
        sgd.zero_grad()
        for _ in range(2):
            clips, labels, _ = next(batches)
            logits = net((clips.permute(0, 4, 1, 2, 3).float() / 255 - mean) / std)
            (F.cross_entropy(logits, labels) / 2).backward()
            losses += F.cross_entropy(logits.detach(), labels, reduction="none").tolist()
            hits += (logits.argmax(1) == labels).tolist()
        for group in sgd.param_groups:
            group["lr"] = rate
        sgd.step()
    assert len(losses) == len(hits) == 16
    expected = {"epoch": 1, "lr": recipe.lr / 2, "loss": np.mean(losses), "clip_top1": 100 * np.mean(hits)}
    assert found.history == [pytest.approx(expected, rel=1e-3)]
    ours, written, first = (torch.cat([value.flatten().double() for value in state.values()]) for state in (found.net.state_dict(), net.state_dict(), before))
    assert (ours - written).norm() <= 0.05 * (written - first).norm()


S, NO = (2, 2, 2), (1, 1, 1)
BOXES = {  # kernel, groups (0: as many as channels), stride, ReLU, of a block that strides
    "simple": [(3, 1, S, True), (3, 1, NO, False)],
    "simple-G": [(3, 4, S, True), (3, 4, NO, False)],
    "simple-D": [(3, 0, S, True), (3, 0, NO, False)],
    "bottleneck": [(1, 1, NO, True), (3, 1, S, True), (1, 1, NO, False)],
    "bottleneck-G": [(1, 1, NO, True), (3, 4, S, True), (1, 1, NO, False)],
    "bottleneck-D": [(1, 1, NO, True), (3, 0, S, True), (1, 1, NO, False)],
    "bottleneck-DG": [(1, 4, NO, True), (3, 0, S, True), (1, 4, NO, False)],
    "ip": [(1, 1, NO, True), (1, 1, NO, False), (3, 0, S, True), (1, 1, NO, False)],
}


@pytest.mark.parametrize("block", BOXES)
def test_blocks_box_by_box(block: str) -> None:
    """Of ip-CSN the added 1x1x1 has no ReLU unless asked for: with it, it is one more layer."""
    depth = 18 if block.startswith("simple") else 26
    groups = {"groups": 4} if block.endswith("G") else {}
    variant = Variant(block=block, depth=depth, width=16, **groups)  # type: ignore[arg-type]
    relu_inside = replace(variant, interior_relu=not variant.interior_relu) if block == "ip" else variant
    residual = Residual(variant, 16, 16, 16, S)
    found = []
    for box in residual.body:
        assert isinstance(box, ConvBN)
        weight = box.conv.weight
        assert isinstance(weight, nn.Parameter)
        own = 16 // weight.shape[1]
        found.append((weight.shape[2], 0 if own == 16 else own, tuple(box.conv.stride), box.relu))  # type: ignore[arg-type]
    expected = list(BOXES[block])
    if block == "ip":
        expected[1] = (1, 1, NO, variant.interior_relu)
        assert Residual(relu_inside, 16, 16, 16, S).body[1].relu != variant.interior_relu
    assert found == expected
    shortcut = residual.shortcut
    assert isinstance(shortcut, ConvBN) and not shortcut.relu and tuple(shortcut.conv.stride) == S  # type: ignore[arg-type]


def test_every_cell_of_a_line_is_the_record_s() -> None:
    table = table_of("table3_groups")
    row = next(row for row in table.rows if row.label == "bottleneck-G8")
    run = Run(variant=row.at(SMALL), recipe=SMALL, seed=7)
    record = {
        "params": 1_234_567, "flops": 2_345_678_901, "interactions": 3_456_789, "train_top1": 91.1234, "clip_top1": 82.2345, "video_top1": 73.3456,
        "video_top5": 94.4567, "n_videos": 801, "seconds": 65.4, "device": "CPU", "commit": "abc", "dirty": True, "auc": 55.5678, "log_loss": 0.6789012,
        "video_top1_interval": {"low": 70.1234, "high": 76.5678, "n": 801},
    }  # fmt: skip
    assert line_of(table, row, run, record) == {
        "table": "table3_groups", "row": "bottleneck-G8", "seed": "7", "scale": "small", "block": "bottleneck-G", "depth": "26", "groups": "8",
        "width": "16", "frames": "4", "crop": "32", "params_m": "1.234567", "gmacs": "2.345679", "interactions_m": "3.456789", "train_top1": "91.123",
        "clip_top1": "82.234", "video_top1": "73.346", "video_top5": "94.457", "n_videos": "801", "epochs": str(SMALL.epochs), "seconds": "65",
        "device": "CPU", "commit": "abc-dirty", "run": run.name, "error": "", "auc": "55.568", "log_loss": "0.67890", "video_top1_low": "70.123",
        "video_top1_high": "76.568",
    }  # fmt: skip


def test_metrics_of_scores_counted_by_hand() -> None:
    probs = np.array(
        [[0.3, 0.2, 0.15, 0.12, 0.11, 0.07, 0.05], [0.3, 0.2, 0.15, 0.12, 0.11, 0.07, 0.05], [0.3, 0.2, 0.15, 0.12, 0.11, 0.07, 0.05], [np.nan] * 7]
    )
    found = Scores(probs.astype(np.float32), np.array([1, 0.5, 0, 0], np.float32), np.array([0, 4, 5, 0]), ("a", "b", "c", "d"), ("d",)).measures()
    assert {name: one.mean for name, one in found.items()} == {"clip_top1": 37.5, "video_top1": 25.0, "video_top5": 50.0}
    two = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    found = Scores(two.astype(np.float32), np.array([1, 1, 0], np.float32), np.array([0, 1, 1]), ("a", "b", "c"), ()).measures()
    assert found["auc"].mean == 100 and found["log_loss"].mean == pytest.approx(-np.log([0.9, 0.6, 0.3]).mean(), rel=1e-5)


def test_a_video_is_the_mean_of_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two videos of three views; the share of right views is another number than whether their mean is right."""
    probs = {0: [[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]], 1: [[0.1, 0.9], [0.8, 0.2], [0.2, 0.8]]}
    split = Split(tuple(Sample(Path(name), (k,), name) for k, name in enumerate("ab")), ("x", "y"))
    views = [(torch.full((3, 1), 3.0 * k) + torch.arange(3.0).view(3, 1), k, True) for k in (0, 1)]
    monkeypatch.setattr(testing, "test_videos", lambda *_: iter(views))
    monkeypatch.setattr(testing.Forward, "__call__", lambda _, part: np.array([probs[int(at) // 3][int(at) % 3] for at in part[:, 0]], np.float32))
    for at_once in (2, 3, 100):
        found = evaluate(nn.Identity(), split, replace(SMOKE, views_per_batch=at_once), Reader(), torch.device("cpu"))
        assert np.allclose(found.probs, [[0.4, 0.6], [1.1 / 3, 1.9 / 3]]) and np.allclose(found.clip, [2 / 3, 2 / 3])
        assert found.measures()["video_top1"].mean == 50 and found.measures()["clip_top1"].mean == pytest.approx(200 / 3)


def films(labels: tuple[int, ...] = (0,)) -> tuple[Split, Reader]:
    """Three films whose frames tell film, number, row and column."""
    shape = np.indices((9, 80, 96))
    kept = {name: np.stack([np.full((9, 80, 96), 80 * k) + shape[0], 5 + shape[1], 5 + shape[2]], -1).astype(np.uint8) for k, name in enumerate("abc")}
    return Split(tuple(Sample(Path(name), labels, name) for name in "abc"), ("x", "y", "z")), Reader(kept)


def test_clips_are_drawn_anew_in_every_epoch_and_at_every_position() -> None:
    split, reader = films((0, 1, 2))
    recipe = replace(
        SMOKE, data=VideoSet(kind="folder", classes=3), frames=4, stride=2, crop=32, resize=None, mirror=True, batch=12, micro_batch=12, clips_per_epoch=12
    )
    clips = TrainClips(split, recipe, 1, reader)
    orders = [clips.order(epoch).tolist() for epoch in range(4)]
    assert all(sorted(order[k : k + 3]) == [0, 1, 2] for order in orders for k in range(0, 12, 3))  # passes over the films
    assert len({tuple(order) for order in orders}) == 4
    assert all(len({tuple(order[k : k + 3]) for k in range(0, 12, 3)}) > 1 for order in orders)  # each pass in an order of its own
    taken = [[clips[epoch, position] for position in range(12)] for epoch in range(8)]
    whole = [clip.numpy() for epoch in taken for clip, _, _ in epoch]
    assert {label for epoch in taken for _, label, _ in epoch} == {0, 1, 2}
    mirrored = np.mean([clip[0, 0, 0, 2] > clip[0, 0, -1, 2] for clip in whole])
    assert 0.35 < mirrored < 0.65  # of 96
    assert all((np.diff(clip[:, 0, 0, 0].astype(int)) == 2).all() for clip in whole)  # the stride
    for position in range(2):  # of one film, in one epoch and in another: not the same cut
        same = {clip.numpy().tobytes() for epoch in range(8) for clip, _, _ in [clips[epoch, position]]}
        assert len(same) > 4
    first = [clips[0, position][0].numpy() for position in range(12) if clips.order(0)[position] == 0]
    assert len({clip[:, :, :, 1:].tobytes() for clip in first}) > 1
    plain = TrainClips(split, replace(recipe, mirror=False), 1, reader)
    assert all(clip[0, 0, 0, 2] < clip[0, 0, -1, 2] for clip in (plain[0, position][0].numpy() for position in range(12)))


def test_tests_resize_to_the_shorter_of_the_sides_to_train_on() -> None:
    split, reader = films()
    recipe = replace(SMOKE, frames=4, stride=2, crop=32, resize=(40, 64), test_crop=40, test_clips=1, test_crops=1)
    views = loader.TestVideos(split, recipe, reader).views(0)
    assert views.shape == (1, 4, 40, 40, 3) and views[0, 0, 0, 0, 1] < 10 and views[0, 0, -1, 0, 1] > 78  # all rows of a frame are in it


def test_values_of_recipes_that_sources_give() -> None:
    """csn.recipes names the source of each."""
    assert (PAPER_32_FT.lr, PAPER_32_FT.epochs, PAPER_32_FT.warmup) == (0.0005, 58, 16) and finetune.RATE == 2.5e-5
    assert UCF101_FT.data.fold == 1 and SPORTS1M.data.classes == 487
