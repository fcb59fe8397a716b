"""One run over several processes: the same samples, the same mathematics, the same predictions up to rounding.

The bound: after two steps of SGD in float32 the weights of 1, 2 and 4 processes agree to 1e-4 of the largest weight of each
tensor (or of 1), probabilities to 1e-3. Only the order of sums differs: gradients are added up per process first. Two steps,
because a fresh network with batch norm over 8 clips multiplies a rounding error by 100 and more a step (seen: 2e-7 of the
largest value of a tensor after one step, 1e-5 after two, 2e-2 after three).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from small_checkpoint import small_checkpoint

import csn
from csn import checkpoints
from csn.data import Split
from csn.data.loader import Reader, TrainClips, load
from csn.execute import STOPPED
from csn.provenance import REPOSITORY
from csn.recipes import SMOKE
from csn.records import folder_of, read_record
from csn.spec import Run, UserError, Variant
from csn.train import Place, train

RUN = Run(variant=Variant(block="ip", depth=26, width=8, pool1=False), recipe=replace(SMOKE, lr=0.002, epochs=2, warmup=0, clips_per_epoch=32), seed=0)
WORKER = """
import json, sys
from pathlib import Path
from csn.exchange import process_group
from csn.execute import STOPPED, execute
from csn.spec import Run
from csn.train import Stopped
with process_group("gloo"):
    try:
        record = execute(Run.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
        print(record.get("video_top1"), record.get("error"))
    except Stopped as stop:
        print(stop)
        sys.exit(STOPPED)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def scripts(size: int, script: str, *arguments: str) -> list[subprocess.Popen[str]]:
    """Begin a Python script with arguments in `size` processes that can meet, in the order of their ranks."""
    base = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size), "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}  # fmt: skip
    command = [sys.executable, "-c", script, *arguments]
    return [subprocess.Popen(command, env={**base, "RANK": str(r)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for r in range(size)]


def start(size: int, home: Path, data: Path, run: Run = RUN) -> list[subprocess.Popen[str]]:
    """Begin run on `size` processes."""
    return scripts(size, WORKER, json.dumps(run.to_dict()), str(home), str(data))


def ends(workers: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, last line of stdout, and stderr of each."""
    ended = [worker.communicate(timeout=1200) for worker in workers]
    return [(worker.returncode, out.splitlines()[-1] if out else "", err) for worker, (out, err) in zip(workers, ended, strict=True)]


def together(size: int, home: Path, data: Path, run: Run = RUN) -> list[tuple[int, str, str]]:
    """Run on `size` processes; what `ends` says of them."""
    return ends(start(size, home, data, run))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    home = tmp_path_factory.mktemp("one")
    assert together(1, home, data)[0][0] == 0
    return home


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_give_the_predictions_of_one(size: int, alone: Path, tmp_path: Path, data: Path) -> None:
    ended = together(size, tmp_path, data)
    assert [(code, err) for code, _, err in ended] == [(0, "")] * size  # and no warning
    assert len({out for _, out, _ in ended}) == 1  # all processes hold the same record
    one, many = (read_record(RUN, home) for home in (alone, tmp_path))
    assert one is not None and many is not None and many["processes"] == size
    for a, b in zip(one["history"], many["history"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    weights = [safetensors.torch.load_file(folder_of(RUN, home) / "weights.safetensors") for home in (alone, tmp_path)]
    for name, t in weights[0].items():
        assert (t - weights[1][name]).abs().max() <= 1e-4 * max(t.abs().max(), 1), name
    name = "stem.conv1.bn.running_mean"  # of all micro-batches: without merging, a process would know its own only
    assert (weights[0][name] - weights[1][name]).abs().max() < 1e-5 < weights[0][name].abs().max()
    scores = [np.load(folder_of(RUN, home) / "scores.npz") for home in (alone, tmp_path)]
    assert (scores[0]["videos"] == scores[1]["videos"]).all() and len(set(scores[1]["videos"])) == many["n_videos"] == 80
    np.testing.assert_allclose(scores[0]["probs"].astype(float), scores[1]["probs"].astype(float), atol=1e-3)


def test_frozen_batch_norm_stays_as_it_is_on_several_processes(tmp_path: Path, data: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "checkpoints").mkdir(exist_ok=True)  # the shared data may have one by now
    file = small_checkpoint(tmp_path / "data" / "checkpoints" / "tuned.safetensors")
    recipe = replace(RUN.recipe, pretrained=file.name, freeze_bn=True)
    run = Run(variant=Variant(block="ip", depth=26, width=8), recipe=recipe, seed=0)
    weights = []
    for size in (1, 2):
        ended = together(size, tmp_path / str(size), tmp_path / "data", run)
        assert [(code, err) for code, _, err in ended] == [(0, "")] * size
        weights.append(safetensors.torch.load_file(folder_of(run, tmp_path / str(size)) / "weights.safetensors"))
    before = csn.load(file).state_dict()
    for name, t in weights[0].items():
        assert (t - weights[1][name]).abs().max() <= 1e-4 * max(t.abs().max(), 1), name
        if ".bn." in name:
            assert torch.equal(t, before[name]) and torch.equal(weights[1][name], before[name]), name
    assert not torch.equal(weights[1]["stem.conv1.conv.weight"], before["stem.conv1.conv.weight"])


ALIKE = """
import os
import torch
import torch.distributed as dist
import csn
from pathlib import Path
from csn.exchange import Exchange, meet, process_group
from csn.spec import UserError
from csn.train import Place
with process_group("gloo"):
    rank = dist.get_rank()
    meet(7, Place(rank=rank, size=2), Path("runs"))
    try:
        meet(rank, Place(rank=rank, size=2), Path("runs"))
        raise AssertionError("checkpoints of two steps")
    except UserError as error:
        assert "`runs` shows a checkpoint of step 1 to one process and of step 0 to another" in str(error)
    torch.manual_seed(rank)
    net = csn.build(csn.Variant(block="ip", depth=26, width=8), 5).to(memory_format=torch.channels_last_3d)
    exchange = Exchange(net, Place(rank=rank, size=2), 1)
    torch.nn.functional.cross_entropy(net(torch.randn(2, 3, 4, 32, 32)), torch.tensor([1, 2])).backward()
    assert all(w.grad.stride() == w.stride() for w in net.parameters())
    assert torch.isclose(exchange.gradients.abs().sum(), sum(w.grad.abs().sum() for w in net.parameters())) and exchange.gradients.any()
    for k, weight in enumerate(net.parameters()):
        weight.grad.fill_((rank + 1) * k)
    exchange.add_up()
    assert all((w.grad == 3 * k).all() for k, w in enumerate(net.parameters()))
    print(sum(w.double().sum().item() for w in net.parameters()))
"""


DAMAGED = """
import json, sys
from pathlib import Path
import torch.distributed as dist
from csn.data.loader import Reader, load
from csn.exchange import process_group
from csn.spec import Run
from csn.train import Place, train
with process_group("gloo"):
    run, place = Run.from_dict(json.loads(sys.argv[1])), Place(rank=dist.get_rank(), size=2)
    reader = Reader()
    reader.given_up[sys.argv[4]] = "made up."
    print(train(run, load(run.recipe, Path(sys.argv[2]), "train"), reader, Path(sys.argv[3]), place).damaged)
"""


def test_a_video_that_one_process_could_not_read_is_named_by_all(tmp_path: Path, data: Path) -> None:
    split = load(RUN.recipe, data, "train")
    clips = TrainClips(split, RUN.recipe, RUN.seed, Reader())
    first, second = ({int(i) for epoch in range(2) for i in clips.order(epoch)[k : k + 16]} for k in (0, 16))  # by the process that reads them
    name = split.samples[min(second - first)].video
    ended = ends(scripts(2, DAMAGED, json.dumps(RUN.to_dict()), str(data), str(tmp_path), name))
    assert [(code, out) for code, out, _ in ended] == [(0, str([name]))] * 2, ended


LEAVE = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from csn.exchange import process_group
def threads():
    return any("gloo" in (task / "comm").read_text() for task in Path("/proc/self/task").iterdir())
try:
    with process_group("gloo"):
        weight = torch.zeros(1, requires_grad=True)
        sgd = torch.optim.SGD([weight])
        dist.all_reduce(weight.detach())
        before = threads()
        if sys.argv[1] == "error":
            if dist.get_rank() == 0:
                raise ValueError("of the first")
            dist.all_reduce(weight.detach())
finally:
    print(before, threads())
"""


FAULT = """
import json, sys
from pathlib import Path
import torch.distributed as dist
import csn.execute
from csn.exchange import process_group
from csn.spec import Run, UserError
fault = {"user": UserError("5 of 80 videos are damaged."), "crash": KeyError("odd")}[sys.argv[4]]
def work(run, folder, data, place):
    def stop():
        raise fault
    if place.rank == int(sys.argv[5]):
        place.stop = stop
    return whole(run, folder, data, place)
whole, csn.execute.work = csn.execute.work, work
with process_group("gloo"):
    record = csn.execute.execute(Run.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
    print(record["error"])
"""


FAULTS = {"user": "5 of 80 videos are damaged.", "crash": "KeyError: 'odd'"}


@pytest.mark.parametrize(("kind", "rank"), [("user", 1), ("crash", 0)])
def test_the_record_tells_the_fault_that_came_first_whosever_it_was(kind: str, rank: int, tmp_path: Path, data: Path) -> None:
    ended = ends(scripts(2, FAULT, json.dumps(RUN.to_dict()), str(tmp_path), str(data), kind, str(rank)))
    record, told = read_record(RUN, tmp_path), FAULTS[kind]
    assert record is not None and record["error"] == told and record["retry"], (record, ended)
    assert all(told in out + err for _, out, err in ended)
    if kind == "user":  # it is tried again, and then nothing is left of it
        assert together(1, tmp_path, data)[0][0] == 0 and "error" not in (read_record(RUN, tmp_path) or {"error": ""})
        assert not (folder_of(RUN, tmp_path) / "fault").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
@pytest.mark.parametrize("end", ["whole", "error"])
def test_who_leaves_leaves_no_thread_of_gloo_and_keeps_nobody_waiting(end: str) -> None:
    """A thread that is left aborts the process at its exit, now and then. Others hear of an error in the midst of an all-reduce."""
    ended = ends(scripts(2, LEAVE, end))
    assert [out for _, out, _ in ended] == ["True False"] * 2, ended
    if end == "whole":
        assert [(code, err) for code, _, err in ended] == [(0, "")] * 2
    else:
        assert [code for code, _, _ in ended] == [1, 1]
        assert ended[0][2].endswith("ValueError: of the first\n") and "RuntimeError" in ended[1][2]


SHARED = """
import warnings
from copy import deepcopy
import torch
import torch.distributed as dist
import csn
from csn.exchange import process_group
warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of sizes of 1, which have no order
with process_group("gloo"):
    torch.manual_seed(0)
    net = csn.build(csn.Variant(block="bottleneck-D", depth=26, width=8), 5).double().to(memory_format=torch.channels_last_3d)
    clips, labels = torch.randn(2, 2, 3, 4, 32, 32).double(), torch.tensor([[1, 2], [4, 0]])
    twin, rank = torch.nn.parallel.DistributedDataParallel(deepcopy(net)), dist.get_rank()
    torch.nn.functional.cross_entropy(twin(clips[rank]), labels[rank]).backward()
    for half in range(2):  # each with the batch norm of its own clips
        (torch.nn.functional.cross_entropy(net(clips[half]), labels[half]) / 2).backward()
    for (name, weight), shared in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(weight.grad, shared.grad, rtol=1e-9, atol=1e-12) and weight.grad.any(), name
"""


def test_networks_stand_in_distributed_data_parallel() -> None:
    assert [(code, err) for code, _, err in ends(scripts(2, SHARED))] == [(0, "")] * 2


def test_processes_meet_begin_alike_and_add_up_their_gradients() -> None:
    ended = ends(scripts(2, ALIKE))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert ended[0][1] == ended[1][1] != ""


def test_processes_that_do_not_divide_the_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`processes` \(=3\) must divide the 4 micro-batches of a step"):
        train(RUN, Split((), ()), Reader(), tmp_path, Place(size=3))


@pytest.mark.parametrize(("size", "phase"), [(2, "data"), (1, "test"), (2, "test")])
def test_who_is_asked_to_stop_takes_all_along_and_the_next_sitting_goes_on(size: int, phase: str, alone: Path, tmp_path: Path, data: Path) -> None:
    workers, progress = start(size, tmp_path, data), folder_of(RUN, tmp_path) / "progress.json"
    while not (progress.exists() and json.loads(progress.read_text())["phase"] == phase):
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.005)
    workers[0 if phase == "data" else -1].send_signal(signal.SIGTERM)  # one of them only
    ended = ends(workers)
    assert [code for code, _, _ in ended] == [STOPPED] * size, ended
    steps = RUN.recipe.epochs * RUN.recipe.steps_per_epoch
    told = r"stopped at step 1 of 2" if phase == "data" else r"stopped at video \d+ of \d+ of the (test|train videos); training is over"
    assert all(re.fullmatch(told, out) for _, out, _ in ended), ended
    state, _ = checkpoints.load(folder_of(RUN, tmp_path))
    assert state is not None and state["step"] == (1 if phase == "data" else steps)
    assert read_record(RUN, tmp_path) is None and together(1, tmp_path, data)[0][0] == 0
    one, stopped = (read_record(RUN, home) or {} for home in (alone, tmp_path))
    assert [epoch["loss"] for epoch in stopped["history"]] == pytest.approx([epoch["loss"] for epoch in one["history"]], rel=1e-4)
    assert stopped["history"][: len(state["history"])] == state["history"]  # no step again
    if size == 1:
        measures = ("history", "clip_top1", "video_top1", "train_top1")
        assert [stopped[name] for name in measures] == [one[name] for name in measures]
