"""The one loop: schedule, accumulation, exact resume, divergence; and the one record of a run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors.torch
import torch

import csn
from csn import checkpoints
from csn.blocks import Residual
from csn.data.loader import Reader, TrainClips, keys, load, normalise, reader_of
from csn.evaluate import evaluate
from csn.execute import STOPPED, execute, main
from csn.files import Held, held
from csn.metrics import top_k
from csn.provenance import REPOSITORY
from csn.recipes import SMOKE
from csn.records import folder_of, read_record, resumable
from csn.spec import Run, UserError, Variant
from csn.train import Place, Stopped, Trained, learning_rate, optimizer, train

RUN = Run(variant=Variant(block="ip", depth=26, width=8), recipe=SMOKE, seed=0)


def test_warm_up_rises_then_half_a_cosine_falls_to_zero() -> None:
    recipe = replace(SMOKE, epochs=10, warmup=2, lr=0.4)
    rates = [learning_rate(recipe, step) for step in range(recipe.epochs * recipe.steps_per_epoch)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates[4] == 0.4 and all(a > b for a, b in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0.2)
    assert 0 < rates[-1] < 0.005


def test_a_checkpoint_of_another_run_is_refused(data: Path, tmp_path: Path) -> None:
    """Its weights would be given out as this run's."""
    split = load(SMOKE, data, "train")
    recipe = replace(SMOKE, epochs=2, warmup=0, clips_per_epoch=SMOKE.batch)
    run = replace(RUN, recipe=recipe)
    with pytest.raises(Stopped):
        train(run, split, reader_of(SMOKE, data, {"train": split}), tmp_path, Place(stop=lambda: True))
    for other in (replace(run, seed=1), replace(run, recipe=replace(recipe, lr=0.01)), replace(run, variant=Variant(depth=26, width=8))):
        with pytest.raises(UserError, match=rf"holds a checkpoint of {run.name}, not of {other.name}; give another folder, or delete this one"):
            train(other, split, reader_of(SMOKE, data, {"train": split}), tmp_path, Place())
    state, _ = checkpoints.load(tmp_path)
    assert state is not None
    del state["run"]  # as they were saved before
    checkpoints.save(tmp_path, state)
    assert len(train(run, split, reader_of(SMOKE, data, {"train": split}), tmp_path, Place()).history) == 2


def test_what_is_done_is_given_where_nothing_can_be_written_and_threads_stay_as_they_were(data: Path, tmp_path: Path) -> None:
    run = replace(RUN, recipe=replace(SMOKE, epochs=1, warmup=0, clips_per_epoch=SMOKE.batch))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    record = execute(run, tmp_path, data)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)
    (folder_of(run, tmp_path) / "lock").unlink()
    (folder_of(run, tmp_path) / "lock").mkdir()  # cannot be opened to write
    assert execute(run, tmp_path, data) == record


def test_runs_of_two_threads_are_those_of_one_after_the_other(data: Path, tmp_path: Path) -> None:
    """Together they would draw their weights from one generator."""
    recipe = replace(SMOKE, epochs=1, warmup=0, clips_per_epoch=SMOKE.batch)
    runs = [replace(RUN, recipe=recipe, seed=seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda run: execute(run, tmp_path / "together", data), runs))
    for run, record in zip(runs, together, strict=True):
        alone = execute(run, tmp_path / "alone", data)
        assert "error" not in record and record["history"] == alone["history"]
        weights = [(folder_of(run, tmp_path / home) / "weights.safetensors").read_bytes() for home in ("together", "alone")]
        assert weights[0] == weights[1]


def test_decay_is_on_weights_and_gamma_only() -> None:
    net = csn.build(csn.Variant(depth=26, width=8), 3)
    sgd = optimizer(net, SMOKE)
    names = {id(p): name for name, p in net.named_parameters()}
    decayed = {names[id(p)] for p in sgd.param_groups[0]["params"]}
    free = {names[id(p)] for p in sgd.param_groups[1]["params"]}
    assert sgd.param_groups[0]["weight_decay"] == 1e-4 and sgd.param_groups[1]["weight_decay"] == 0
    assert "head.fc.weight" in decayed and "stem.conv1.bn.weight" in decayed
    assert free == {name for name in names.values() if name.endswith(".bias")}
    assert sgd.defaults["nesterov"] and sgd.defaults["momentum"] == 0.9


def test_a_step_takes_the_same_samples_on_any_number_of_processes() -> None:
    alone = list(keys(SMOKE, 1, 0, 1))
    assert len(alone) == 3 * 4 and len(alone[0]) == 8
    for size in (2, 4):
        shares = [list(keys(SMOKE, 1, rank, size)) for rank in range(size)]
        per = 4 // size
        merged = [shares[rank][step * per + k] for step in range(3) for rank in range(size) for k in range(per)]
        assert merged == alone


def test_samples_depend_on_seed_epoch_and_position_only(data: Path) -> None:
    splits = {name: load(SMOKE, data, name) for name in ("train", "test")}
    reader = reader_of(SMOKE, data, splits)
    one, two = (TrainClips(splits["train"], SMOKE, seed, reader) for seed in (0, 1))
    first = one[(0, 5)]
    again = TrainClips(splits["train"], SMOKE, 0, Reader())[(0, 5)]  # read from the files this time
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert first[0].shape == (4, 32, 32, 3) and first[0].dtype == torch.uint8
    assert not torch.equal(one[(1, 5)][0], first[0]) and not torch.equal(two[(0, 5)][0], first[0])
    videos = [one.order(0)[i] for i in range(64)]
    assert len(set(videos)) == 64  # an epoch of fewer clips than videos repeats none


def test_normalise_gives_channels_last_floats() -> None:
    clips = torch.randint(0, 256, (2, 4, 6, 5, 3), dtype=torch.uint8)
    out = normalise(clips, SMOKE)
    assert out.shape == (2, 3, 4, 6, 5) and out.is_contiguous(memory_format=torch.channels_last_3d)
    expected = (clips[1, 2, 3, 4, 1].item() / 255 - SMOKE.mean[1]) / SMOKE.std[1]
    assert out[1, 1, 2, 3, 4].item() == pytest.approx(expected, abs=1e-5)


def test_stopped_and_resumed_equals_uninterrupted(data: Path, tmp_path: Path) -> None:
    splits = {name: load(SMOKE, data, name) for name in ("train", "test")}
    reader = reader_of(SMOKE, data, splits)
    torch.set_num_threads(1)
    whole = train(RUN, splits["train"], reader, tmp_path / "a", Place(checkpoint_every=1e9)) if (tmp_path / "a").mkdir() is None else None
    (tmp_path / "b").mkdir()
    for _ in range(3):
        with pytest.raises(Stopped):
            train(RUN, splits["train"], reader, tmp_path / "b", Place(stop=lambda: True))
    parts = train(RUN, splits["train"], reader, tmp_path / "b", Place())
    assert whole is not None and whole.history == parts.history and len(parts.history) == 2
    for (name, a), b in zip(whole.net.state_dict().items(), parts.net.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_bf16_trains_close_to_fp32(data: Path, tmp_path: Path) -> None:
    """Over eight steps too short to move a weight, of 32 clips each: batch norms of a few values magnify rounding (one
    micro-batch of 8 by 3.4 % of the loss, of 32 by 0.8 %, these eight by 0.2 %, standard deviations over seeds)."""
    splits = {name: load(SMOKE, data, name) for name in ("train", "test")}
    reader = reader_of(SMOKE, data, splits)
    losses = []
    for precision in ("fp32", "bf16"):
        run = replace(RUN, recipe=replace(SMOKE, precision=precision, epochs=1, warmup=0, lr=1e-6, clips_per_epoch=256, micro_batch=32))
        (tmp_path / precision).mkdir()
        losses.append(train(run, splits["train"], reader, tmp_path / precision, Place()).history[0]["loss"])
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.01)


@pytest.mark.parametrize("zero", [False, True])
def test_a_recipe_may_start_blocks_as_their_shortcuts(zero: bool, data: Path, tmp_path: Path) -> None:
    """After steps of no size gamma is where it began."""
    recipe = replace(SMOKE, zero_gamma=zero, epochs=1, warmup=0, lr=1e-12)
    split = load(recipe, data, "train")
    net = train(replace(RUN, recipe=recipe), split, reader_of(recipe, data, {"train": split}), tmp_path, Place()).net
    gammas = [module.body[-1].bn.weight.mean().item() for module in net.modules() if isinstance(module, Residual)]
    assert gammas == pytest.approx(8 * [0.0 if zero else 1.0], abs=1e-6)


def test_the_final_test_does_not_depend_on_views_per_batch(data: Path) -> None:
    splits = {name: load(SMOKE, data, name) for name in ("train", "test")}
    reader = reader_of(SMOKE, data, splits)
    torch.manual_seed(0)
    net = csn.build(RUN.variant, 80, 4).to(memory_format=torch.channels_last_3d)
    scores = [evaluate(net, splits["test"], replace(SMOKE, views_per_batch=n), reader, torch.device("cpu")) for n in (3, 64)]
    np.testing.assert_allclose(scores[0].probs, scores[1].probs, atol=1e-5)
    assert scores[0].probs.sum(1) == pytest.approx(1, abs=1e-5)
    assert len(scores[0].videos) == 80 and top_k(scores[0].probs, scores[0].labels, 80).all()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"step": 1})
    checkpoints.save(tmp_path, {"step": 2})
    assert checkpoints.load(tmp_path) == ({"step": 2}, [])
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "last.ckpt").write_bytes(content)
    assert checkpoints.load(tmp_path) == ({"step": 1}, ["last.ckpt"])
    (tmp_path / "before.ckpt").write_bytes(b"")
    assert checkpoints.load(tmp_path) == (None, ["last.ckpt", "before.ckpt"])
    checkpoints.discard(tmp_path)
    assert checkpoints.load(tmp_path) == (None, [])
    for end in ("save", "discard"):  # what a process left that was killed while it saved goes with the next one's
        (tmp_path / ".12ab34cd.new.ckpt").write_bytes(b"half")
        checkpoints.save(tmp_path, {"step": 3}) if end == "save" else checkpoints.discard(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == (["last.ckpt"] if end == "save" else [])


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
@pytest.mark.parametrize("damaged", [False, True])
def test_whenever_a_save_is_killed_a_whole_state_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, damaged: bool) -> None:
    """After none, one, two or all of its renames, the last checkpoint damaged or not, and once more in the next save."""
    checkpoints.save(tmp_path, {"step": 1})
    checkpoints.save(tmp_path, {"step": 2})
    if damaged:
        (tmp_path / "last.ckpt").write_bytes(b"damaged")
    for step, known in ((3, 1 if damaged else 2), (4, 3 if moves else 1 if damaged else 2)):
        left = iter(range(moves))

        def rename(self: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return self.rename(target)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "replace", rename)
            checkpoints.save(tmp_path, {"step": step})
        state, _ = checkpoints.load(tmp_path)
        assert state == {"step": step if moves else known} and resumable(tmp_path)


def test_one_record_a_run(data: Path, tmp_path: Path) -> None:
    record = execute(RUN, tmp_path, data)
    folder = folder_of(RUN, tmp_path)
    assert read_record(RUN, tmp_path) == json.loads(json.dumps(record))
    for name in ("spec", "commit", "versions", "device", "threads", "started", "seconds", "history", "data", "damaged_videos", "host"):
        assert record[name] not in (None, ""), name
    assert Run.from_dict(record["spec"]) == RUN
    assert len(record["history"]) == SMOKE.epochs
    cost = csn.count(csn.build(RUN.variant, 80, 4), (3, 4, 32, 32))
    assert (record["params"], record["flops"], record["interactions"]) == (cost.params, cost.flops, cost.interactions)
    scores = np.load(folder / "scores.npz")
    assert scores["probs"].shape == (80, 80)
    assert 100 * (scores["probs"].argmax(1) == scores["labels"]).mean() == pytest.approx(record["video_top1"], abs=1.3)
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    csn.build(RUN.variant, 80, 4).load_state_dict(weights)
    assert not (folder / "last.ckpt").exists() and not (folder / "progress.json").exists()
    stamp = (folder / "record.json").stat().st_mtime_ns
    assert execute(RUN, tmp_path, data) == read_record(RUN, tmp_path)
    assert (folder / "record.json").stat().st_mtime_ns == stamp


def test_a_divergence_is_a_record_that_says_why(data: Path, tmp_path: Path) -> None:
    run = replace(RUN, recipe=replace(SMOKE, lr=1e30))
    record = execute(run, tmp_path, data)
    assert "the loss is nan" in record["error"] or "the loss is inf" in record["error"]
    assert "epoch" in record["error"] and "video_top1" not in record
    assert execute(run, tmp_path, data) == read_record(run, tmp_path)


def test_a_crash_is_recorded_and_tried_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("the device went away")

    with monkeypatch.context() as patch:
        patch.setattr("csn.train.train", crash)
        assert execute(RUN, tmp_path, data)["error"] == "RuntimeError: the device went away"
    assert "error" not in execute(RUN, tmp_path, data)


def test_a_run_on_a_numbered_gpu_makes_it_the_current_one(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def current(device: torch.device) -> None:
        raise UserError(f"current: {device}")

    monkeypatch.setattr("csn.execute.device_of", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", current)
    with pytest.raises(UserError, match="current: cuda:1"):
        execute(RUN, tmp_path, data, "cuda:1")


def test_what_a_signal_ended_is_stopped_and_no_crash(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster sends it to the processes that make data, too, and a record of their end would be told for good."""

    def ended(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise UserError("A process that writes or reads videos ended.")

    monkeypatch.setattr("csn.execute.work", ended)
    with pytest.raises(Stopped, match=r"^stopped \(A process that writes or reads videos ended\)$"):
        execute(RUN, tmp_path, data)
    assert read_record(RUN, tmp_path) is None


def test_two_processes_on_one_run(data: Path, tmp_path: Path) -> None:
    with held(folder_of(RUN, tmp_path)), pytest.raises(Held, match=rf"is being worked on by process {os.getpid()}"):
        execute(RUN, tmp_path, data)


def test_a_damaged_record_is_one_sentence(tmp_path: Path) -> None:
    folder = folder_of(RUN, tmp_path)
    folder.mkdir(parents=True)
    for text in ("{", "[]", '{"run": "other"}'):
        (folder / "record.json").write_text(text)
        with pytest.raises(UserError, match=r"record.json is damaged \(.*\); delete it"):
            read_record(RUN, tmp_path)
    for name, read in (("record.json", lambda: read_record(RUN, tmp_path)), ("last.ckpt", lambda: checkpoints.load(folder))):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()  # what cannot be read may be whole
        with pytest.raises(UserError, match=rf"{name} cannot be read \(Is a directory\); mend"):
            read()


def test_what_is_wrong_with_a_command_is_what_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    for content, flags, sentence in (
        ("{", (), "run.json cannot be read (Expecting"), ("{}", (), "The run description is damaged or of another version ('recipe')"),
        (json.dumps(RUN.to_dict()), ("--threads", "0"), "`--threads` (=0) must be at least 1."),
        (json.dumps(RUN.to_dict()), ("--workers", "-1"), "`--workers` (=-1) must be at least 0."),
        (json.dumps(RUN.to_dict()), ("--checkpoint-every", "-1"), "`--checkpoint-every` (=-1.0) must be at least 0 seconds."),
        (json.dumps(RUN.to_dict()), ("--home", str(path)), "Cannot write the folder"),
    ):  # fmt: skip
        path.write_text(content)
        assert main([str(path), "--home", str(tmp_path), *flags]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and sentence in err


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 3 MB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_in_the_middle_of_a_run_loses_nothing(data: Path, small_disk: Path) -> None:
    run = replace(RUN, variant=Variant(block="simple", depth=18, width=8))
    (small_disk / "filler").write_bytes(bytes(200_000))
    with pytest.raises(UserError, match=r"Cannot write .*ckpt \(No space left on device\); free space there and run the same command again"):
        execute(run, small_disk, data, checkpoint_every=0)
    folder = folder_of(run, small_disk)
    assert not [p for p in folder.iterdir() if ".ckpt." in p.name]
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    assert "error" not in execute(run, small_disk, data)


def start(run: Run, home: Path, data: Path, *more: str) -> subprocess.Popen[bytes]:
    folder = folder_of(run, home)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run.to_dict()))
    command = [sys.executable, "-m", "csn.execute", str(folder / "run.json"), "--home", str(home), "--data", str(data), "--checkpoint-every", "0", *more]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)


def saved_at(folder: Path) -> int:
    """When the last checkpoint was written; 0 where there is none, as for a moment between two renames."""
    with suppress(FileNotFoundError):
        return (folder / "last.ckpt").stat().st_mtime_ns
    return 0


def test_ten_kills_at_random_moments_change_nothing(data: Path, tmp_path: Path) -> None:
    """kill -9 while it trains, saves or tests; the final weights and results equal those of an uninterrupted run."""
    run = replace(RUN, variant=Variant(block="bottleneck-D", depth=26, width=8), recipe=replace(SMOKE, epochs=30, clips_per_epoch=64))
    assert start(run, tmp_path / "whole", data).wait(300) == 0
    rng = random.Random(1)
    folder, kills = folder_of(run, tmp_path / "killed"), 0
    while kills < 10:
        process = start(run, tmp_path / "killed", data)
        before, deadline = saved_at(folder), time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and saved_at(folder) in (0, before):
            time.sleep(0.01)  # it trains again: a kill before that would meet no new state
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
    assert kills >= 5, "the run ended before it could be killed often enough"
    while kills < 10:  # it had finished: the record must survive these
        process = start(run, tmp_path / "killed", data)
        time.sleep(rng.uniform(0, 2))
        process.kill()
        process.wait()
        kills += 1
    assert start(run, tmp_path / "killed", data).wait(300) == 0
    whole, killed = (folder_of(run, tmp_path / name) for name in ("whole", "killed"))
    assert (whole / "weights.safetensors").read_bytes() == (killed / "weights.safetensors").read_bytes()
    a, b = (read_record(run, tmp_path / name) for name in ("whole", "killed"))
    assert a is not None and b is not None and a["train_memory_mb_per_clip"] > 0
    for name in ("train_top1", "clip_top1", "video_top1", "video_top5", "n_videos", "history", "flops"):
        assert a[name] == b[name], name


@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGHUP)])
def test_a_signal_saves_and_says_so(data: Path, tmp_path: Path, workers: int, number: signal.Signals) -> None:
    """A signal to the whole group, as a cluster and a terminal send it: the processes that load are not disturbed."""
    run = replace(RUN, recipe=replace(SMOKE, epochs=200))
    process = start(run, tmp_path, data, "--workers", str(workers))
    progress = folder_of(run, tmp_path) / "progress.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (progress.exists() and json.loads(progress.read_text()).get("phase") == "train"):
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait(60) == STOPPED, (folder_of(run, tmp_path) / "log.txt").read_text()
    state, damaged = checkpoints.load(folder_of(run, tmp_path))
    assert state is not None and 0 < state["step"] < 400 and not damaged


def test_a_folder_of_real_files_trains_to_a_record_and_names_its_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """root/<split>/<class>/<file>, scanned once; one damaged file in each split: replaced in training, a miss in the test.

    What only the training met, as where a disk fails for a while, is named too.
    """
    from csn.data import moving_digits
    from csn.data.media import listing
    from csn.data.scan import index_file, scan
    from csn.spec import VideoSet

    recipe = replace(SMOKE, data=VideoSet(kind="folder", classes=2), clips_per_epoch=32, resize=(36, 44), mirror=True, test_crops=3)
    run = replace(RUN, recipe=recipe)
    root = tmp_path / "folder"
    for split in ("train", "test"):
        for i in range(40):
            moving_digits.write_video(root / split / ("up", "down")[i % 2] / f"{i}.mp4", moving_digits.draw(SMOKE.data, split, i))
        (root / split / "up" / "0.mp4").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"has no index of its videos; run `python -m csn.data scan --dataset folder"):
        execute(run, tmp_path / "home", tmp_path)
    scan(root, listing(root), index_file(root), workers=2, seconds=60)
    trainer = csn.train.train
    monkeypatch.setattr("csn.train.train", lambda *arguments: replace(trainer(*arguments), damaged=["met once"]))
    record = execute(run, tmp_path / "home", tmp_path)
    assert "error" not in record, record
    assert record["n_videos"] == 40 and 0 <= record["video_top1"] <= 97.5
    assert [sorted(names) for names in record["damaged_videos"].values()] == [["met once", "train/up/0.mp4"], ["test/up/0.mp4"]]
    assert record["missing_videos"] == {"train": 0, "test": 0}


def test_what_is_told_within_an_epoch_is_of_the_clips_seen_so_far(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step, on a clock that jumps; all parameters have the rate of the step; memory is told of one clip."""
    told: list[dict[str, float]] = []
    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr("csn.train.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("csn.train.Growth", lambda device: Mock(bytes=lambda: 4096))
    split = load(SMOKE, data, "train")
    run = replace(RUN, recipe=replace(SMOKE, epochs=1, warmup=0, lr=1e-6, clips_per_epoch=256, micro_batch=16))
    trained = train(run, split, reader_of(SMOKE, data, {"train": split}), tmp_path, Place(report=lambda **facts: told.append(facts)))
    assert [facts["step"] for facts in told] == list(range(1, 9)) and trained.memory == 256
    assert [facts["loss"] for facts in told] == pytest.approx(8 * [trained.history[0]["loss"]], rel=0.2)
    assert [facts["clip_top1"] * facts["step"] * 32 / 100 for facts in told] == pytest.approx([round(f["clip_top1"] * f["step"] * 0.32) for f in told])
    state, _ = checkpoints.load(tmp_path)
    assert state is not None and [group["lr"] for group in state["sgd"]["param_groups"]] == 2 * [learning_rate(run.recipe, 7)]


def test_the_time_of_a_training_is_that_of_all_its_sittings(data: Path, tmp_path: Path) -> None:
    split = load(SMOKE, data, "train")
    reader = reader_of(SMOKE, data, {"train": split})
    with pytest.raises(Stopped):
        train(RUN, split, reader, tmp_path, Place(stop=lambda: True))
    state, _ = checkpoints.load(tmp_path)
    assert state is not None
    checkpoints.save(tmp_path, {**state, "seconds": state["seconds"] + 1000})
    assert 1000 < train(RUN, split, reader, tmp_path, Place()).seconds < 2000


def test_a_record_is_measured_on_the_final_network(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies from the weights that it leaves, by another way; the cost of a training clip, smaller than a view here."""
    run = replace(RUN, recipe=replace(SMOKE, epochs=20, warmup=0, micro_batch=16, test_crop=40, test_clips=3))
    trainer, discard = csn.train.train, checkpoints.discard

    def slow(*arguments: Any) -> Trained:
        return replace(trainer(*arguments), seconds=1000.0)

    def after_the_record(folder: Path) -> None:
        assert (folder / "record.json").exists()  # a kill in between loses nothing
        discard(folder)

    monkeypatch.setattr("csn.train.train", slow)
    monkeypatch.setattr(checkpoints, "discard", after_the_record)
    record = execute(run, tmp_path, data)
    assert "error" not in record, record
    folder = folder_of(run, tmp_path)
    net = csn.build(run.variant, 80, 4).to(memory_format=torch.channels_last_3d)
    net.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
    splits = {name: load(run.recipe, data, name) for name in ("train", "test")}
    reader = reader_of(run.recipe, data, splits)
    train_scores, test_scores = (evaluate(net, splits[name], run.recipe, reader, torch.device("cpu")) for name in ("train", "test"))
    assert record["train_seconds"] == 1000 and 1000 < record["seconds"] < 2000
    scores = np.load(folder / "scores.npz")
    np.testing.assert_allclose(scores["probs"], test_scores.probs, atol=1e-3)
    assert (scores["clip"] == test_scores.clip).all() and (scores["labels"] == test_scores.labels).all()
    fit, measures = train_scores.measures(), test_scores.measures()
    assert record["train_top1"] == fit["video_top1"].mean
    assert {name: record[name] for name in measures} == {name: one.mean for name, one in measures.items()}
    assert record["flops"] == csn.count(csn.build(run.variant, 80, 4), (3, 4, 32, 32)).flops


def test_a_run_computes_on_the_threads_it_is_given(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*_: object) -> None:
        raise UserError(f"{torch.get_num_threads()} threads")

    monkeypatch.setattr("csn.train.train", told)
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            with pytest.raises(UserError, match=f"{threads} threads"):
                execute(RUN, tmp_path, data, threads=threads)
    finally:
        torch.set_num_threads(before)
