"""The benchmarks' own arithmetic: ratios of a round, facts of a machine, limits that keep what needs a GPU below nine minutes."""

from __future__ import annotations

import re
import subprocess
import sys
from argparse import Namespace
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from conftest import run

import csn
from csn.depthwise import NDHWC, DepthwiseConv3d, depthwise_conv3d
from csn.provenance import REPOSITORY, cpu_name
from csn.spec import UserError

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import accuracy
import decode
import depthwise as layers
import kernels
import limits
import machine
import peers
import scaling
import step
import turns
import ways

GPU = (("step", "--device cuda"), ("depthwise", "--device cuda"), ("scaling", "--device cuda"), ("norm", ""), ("kernels", ""), ("compile_ahead", "bf16"))


def test_a_network_is_compared_to_ir_csn_within_a_round() -> None:
    args = Namespace(batch=4, frames=8, crop=64)
    sitting = {
        "ir-CSN/26/channels_last_3d": turns.Sitting(10, 2**20, 0.5, [[1.0, 1.0, 5 * 2**20], [4.0, 2.0, 9 * 2**20]]),
        "ResNet3D/26/channels_last_3d": turns.Sitting(30, 2**20, 0.5, [[3.0, 2.0, 2**20], [8.0, 4.0, 2**20]]),
        "pytorchvideo/26/as it comes": turns.Sitting(10, 2**20, 7.5, [[2.0, 1.0, 2**20], [8.0, 2.0, 2**20]]),
    }
    base, resnet, peer = step.rows_of(args, "train", [sitting])
    assert base["rounds"] == 2 and base["clips_per_s"] == 4 / 2.5 and base["mb_per_clip"] == 2.0
    assert (base["time_over_ir_csn"], resnet["time_over_ir_csn"], peer["time_over_ir_csn"]) == (1.0, 2.5, 2.0)
    assert base["flops_over_ir_csn"] == peer["flops_over_ir_csn"] == 1.0 and 2 < resnet["flops_over_ir_csn"] < 4
    assert (resnet["lowest"], resnet["highest"], resnet["weights_m"]) == (2.5, 2.5, 3e-5)
    assert (base["first_step_s"], peer["first_step_s"]) == (0.5, 7.5)


def test_depthwise_convolutions_by_torch_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and gradients of a whole network with them alone exchanged."""
    torch.manual_seed(0)
    ours = csn.build(csn.Variant(block="ip", depth=26, width=8), 3, 4).double()
    theirs, clips = deepcopy(ours), torch.randn(2, 3, 4, 32, 32).double()
    peers.exchange_depthwise(theirs)
    assert sum(isinstance(m, peers.TorchDepthwise) for m in theirs.modules()) == 8 and not any(isinstance(m, DepthwiseConv3d) for m in theirs.modules())
    for net in (ours, theirs):
        net(clips).square().sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine.grad, other.grad), name
    module = next(m for m in theirs.to(memory_format=NDHWC).modules() if isinstance(m, peers.TorchDepthwise))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(torch.nn.functional, "conv3d", lambda x, weight, *_, **__: seen.extend((x, weight)) or x)
    module(torch.randn(1, len(module.weight), 2, 3, 3).to(memory_format=NDHWC))
    assert [t.stride()[1] for t in seen] == [18, 27]  # torch takes a kernel for NDHWC where either has its strides


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("size", [(2, 3, 4, 6, 5), (1, 2, 1, 1, 3), (3, 1, 3, 4, 4)], ids=str)
def test_every_way_to_a_gradient_is_that_gradient(size: tuple[int, ...], stride: tuple[int, int, int]) -> None:
    x, weight = torch.randn(size).contiguous(memory_format=NDHWC), torch.randn(size[1], 1, 3, 3, 3)
    g = torch.randn_like(depthwise_conv3d(x, weight, stride))
    for found in ways.WAYS.values():
        wanted = found["torch NCDHW"](g.double(), x.double(), weight.double(), stride)
        for name, way in found.items():
            assert way(g, x, weight, stride).shape == wanted.shape, name
            assert (way(g, x, weight, stride) - wanted).abs().max() < 1e-5 * wanted.abs().max(), name


def test_the_ways_are_added_up_over_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, ways):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    flags = "--batch 1 --frames 4 --crop 32 --width 8 --threads 1 --rounds 2 --name own"
    monkeypatch.setattr(sys, "argv", ["ways.py", *flags.split()])
    threads = torch.get_num_threads()
    ways.main()
    torch.set_num_threads(threads)
    rows = pd.read_csv(tmp_path / "own.csv", comment="#")
    whole, parts = rows[rows["shape"] == "network"].set_index(["direction", "way"]), rows[rows["shape"] != "network"]
    assert list(whole.index) == [(direction, way) for direction, some in ways.WAYS.items() for way in some] and set(whole.layers) == {16}
    for key, own in parts.groupby(["direction", "way"]):
        assert whole.ms[key] == pytest.approx((own.ms * own.layers).sum()) and whole.error[key] == own.error.max()
        assert whole.over_ours[key] == pytest.approx(whole.ms[key] / whole.ms[key[0], "ours"])
    assert (tmp_path / "own.png").stat().st_size > 10_000


def test_every_sitting_has_its_own_ratios_and_memory() -> None:
    args = Namespace(batch=1, frames=8, crop=64)
    ours, theirs = "ir-CSN/26/channels_last_3d", "pytorchvideo/26/as it comes"
    first = {ours: turns.Sitting(10, 2**20, 0.5, [[1.0, 1.0, 3 * 2**20]] * 3), theirs: turns.Sitting(10, 2**20, 0.5, [[3.0, 2.0, 2**21]] * 3)}
    alone = {ours: turns.Sitting(10, 0, 9.0, [[5.0, 5.0, 4 * 2**20]] * 3)}  # theirs did not run
    last = {ours: turns.Sitting(10, 0, 0.5, [[2.0, 2.0, 2**20]]), theirs: turns.Sitting(10, 3 * 2**20, 0.5, [[2.0, 2.0, 6 * 2**20]])}
    base, peer = step.rows_of(args, "train", [first, alone, last])
    assert (base["rounds"], base["ms"], base["lowest"], base["highest"]) == (7, 2000.0, 1.0, 1.0)
    assert (base["first_step_s"], peer["first_step_s"]) == (9.0, 0.5)
    assert (base["peak_mb"], base["mb_per_clip"]) == (4.0, 4.0) and (peer["peak_mb"], peer["mb_per_clip"]) == (6.0, 3.0)
    assert (peer["rounds"], peer["time_over_ir_csn"], peer["lowest"], peer["highest"], peer["cpu_over_ir_csn"]) == (4, 3.0, 1.0, 3.0, 2.0)


def test_a_step_is_measured_by_new_processes_in_every_sitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--modes infer --networks ir-CSN --depths 26 --frames 4 --crop 32 --batch 1 --threads 1 --sittings 2 --rounds 3 --name own"
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["step.py", *flags.split()])
    begun = list[str]()
    monkeypatch.setattr(turns, "begin", lambda args, mode, net, python, begin=turns.begin: begun.append(net) or begin(args, mode, net, python))
    assert step.main() == 0
    plain, folded = "ir-CSN/26/channels_last_3d", "ir-CSN/26/channels_last_3d folded"
    assert begun == [plain, folded] * 2 and "sittings 2" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "own.csv", comment="#").set_index("layout")
    assert (
        list(rows.index) == ["channels_last_3d", "channels_last_3d folded"]
        and set(rows.rounds) == {6}
        and (rows.ms > 0).all()
        and (rows.first_step_s > 0).all()
    )
    assert (rows.loc["channels_last_3d folded", ["time_over_ir_csn", "lowest", "highest"]] == 1.0).all()
    assert (rows.lowest <= rows.time_over_ir_csn).all() and (rows.time_over_ir_csn <= rows.highest).all()
    assert (tmp_path / "own.png").stat().st_size > 10_000


def test_layers_are_those_of_the_network() -> None:
    found = layers.layers(26, 8, 64, 16)
    assert sum(found.values()) == 8 and found[(16, 8, 16, 16, (1, 1, 1))] == 2


def test_a_reader_that_reads_nothing_has_empty_cells() -> None:
    rows = [{"file": "a", "reader": name, "plan": "decord", "clips_per_core_second": speed, "exact": 1.0, "error": error}
            for name, speed, error in (("door", 8.0, ""), ("decord", 10.0, ""), ("pyav", None, "RuntimeError"))]  # fmt: skip
    door, plain, pyav = decode.summary(rows)[:3]
    assert (door["speed_over_decord"], plain["speed_over_decord"], door["safe_exact"]) == (0.8, 1.0, 1)
    assert pyav["speed_over_decord"] is pyav["clips_per_core_second"] is None
    without = decode.summary([{**row, "error": "RuntimeError"} if row["reader"] == "decord" else row for row in rows])
    assert without[0]["speed_over_decord"] is None


def test_training_is_compared_seed_by_seed(tmp_path: Path) -> None:
    ours = accuracy.pd.DataFrame({"row": ["a", "a", "b"], "seed": [0, 1, 0], "train_top1": [90.0, 92.0, 1.0], "video_top1": [80.0, 84.0, 1.0]})
    lines = [accuracy.beside(ours, "a", seed, {"train_top1": 90.0, "video_top1": 82.0 + seed, "commit": "00e1"}) for seed in (0, 1)]
    both = {"train_top1_ours": 92.0, "train_top1_torch": 90.0, "video_top1_ours": 84.0, "video_top1_torch": 83.0}
    assert lines[1] == {"row": "a", "seed": 1, **both, "commit": "00e1"}
    other = [{**line, "row": "b"} for line in lines]
    told = "(n 2) train_top1 +1.0 [-11.7, +13.7], video_top1 -0.5 [-19.6, +18.6]"
    assert accuracy.differences(lines + other) == f"a {told}; b {told}"
    assert not any(isinstance(m, DepthwiseConv3d) for m in accuracy.by_torch(csn.Variant(block="ip", depth=26, width=8), 3, 4).modules())

    file = tmp_path / "accuracy.csv"
    assert accuracy.kept(file, set()) == []
    accuracy.pd.DataFrame(lines + other).to_csv(file, index=False)
    assert accuracy.kept(file, {("a", 1), ("b", 0), ("b", 2)}) == [lines[0], other[1]]


def test_a_machine_without_git_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert machine.describe("cpu")["commit"] == "unknown"


def test_nothing_measured_leaves_the_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    file = machine.write("own", [{"a": 1.5, "b": "x"}, {"a": None, "b": "y"}], {"setting": "one", "load": "0"})
    assert file.read_text() == "# setting: one\n# load: 0\na,b\n1.5,x\n,y\n"
    with pytest.raises(UserError, match="Nothing was measured"):
        machine.write("own", [], {"setting": "two"})
    assert file.read_text().startswith("# setting: one") and [path.name for path in tmp_path.iterdir()] == ["own.csv"]


def test_a_table_tells_once_what_all_rows_share(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"mode": "train", "time_over_ir_csn": 1.0 + k / 7, "layout": "channels_last_3d", "x": None if k else 2.0} for k in range(2)]
    machine.show("One", rows)
    told = capsys.readouterr().out
    assert "One; mode train, layout channels_last_3d" in " ".join(told.split()) and "1.14" in told and "None" not in told and "time over ir csn" in told
    machine.show("Two", rows[:1], "mode", "x")
    told = capsys.readouterr().out
    assert "train" in told and "layout" not in told


@pytest.mark.parametrize(
    ("script", "flags", "sentence"),
    [
        ("step", "--depths 27", "invalid choice: 27"), ("step", "--rounds 0", "whole number above 0, not 0"),
        ("step", "--sittings 0", "whole number above 0, not 0"),
        ("step", "--name a/b", "without a folder, not a/b"),
        ("step", "--peers /none/python", r"`--peers` \(=/none/python\) must be a Python that builds both .*No such file"),
        ("step", f"--peers {sys.executable}", "must be a Python that builds both .*No module named 'pytorchvideo'"),
        ("limits", "--threads -1", "whole number above 0, not -1"), ("depthwise", "--depths 18", "invalid choice: 18"),
        ("scaling", "runs --runs 7", r"`--runs` \(=7\) must be a multiple of five"), ("scaling", "step --axes width height", "invalid choice: 'height'"),
        ("decode", "/none", r"`paths` \(=/none\) must be a video or a folder"),
        ("decode", str(REPOSITORY / "csn" / "data"), "must hold files of less than 30 MB; none is"),
        ("accuracy", "--rows nope --home /none", r"unknown row \(=nope\)"), ("compile_ahead", "fp8", r"`dtype` \(=fp8\) must be one of fp32"),
        *((name, flags, "needs an NVIDIA GPU") for name, flags in GPU),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(script: str, flags: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if sentence.endswith("GPU"):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags.split()])
    with pytest.raises(SystemExit) as ended:
        machine.script(import_module(script).main)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and re.fullmatch(f"error: .*{sentence}.*\n", told), told


def test_an_interrupted_benchmark_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        machine.script(main)
    assert ended.value.code == 130 and capsys.readouterr().err == "interrupted; what was measured is written\n"


def test_a_shape_of_two_depths_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    args = Namespace(depths=[26, 50], frames=4, crop=32, width=8, batch=1, device="cpu", dtype="fp32", rounds=1)
    measured: list[int] = []
    monkeypatch.setattr(layers, "times", lambda candidates, *_: (measured.append(1), dict.fromkeys(candidates, float(len(measured))))[1])
    *_, rows = layers.measure(args, 1e9)
    first, second = ([row for row in rows if row["depth"] == depth] for depth in args.depths)
    shapes = {(row["shape"], row["stride"], row["direction"]): row["ours_ms"] for row in first}
    shared = [row for row in second if (row["shape"], row["stride"], row["direction"]) in shapes]
    assert len(measured) == len({(row["shape"], row["stride"], row["direction"]) for row in rows}) < len(rows)
    assert shared and all(row["ours_ms"] == shapes[row["shape"], row["stride"], row["direction"]] for row in shared)
    assert sum(row["layers"] for row in second if row["direction"] == "forward") == 16


def test_memory_of_steps_is_what_they_need_beyond_the_network() -> None:
    """In a process of its own, as every network has: what building freed is given back first, and the peak counts from there."""
    code = """
import sys
sys.path.insert(0, "benchmarks")
import step, torch
from csn.memory import keep_memory
keep_memory()
torch.ones(2**27)  # as folding leaves behind
before = step.start_peak("cpu")
torch.ones(2**25)
print(step.peak("cpu") - before)
"""
    assert int(run("-c", code).stdout) == pytest.approx(2**27, rel=0.1)


def test_what_needs_a_gpu_is_limited_to_nine_minutes() -> None:
    script = REPOSITORY / "benchmarks" / "gpu.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    found = re.findall(r"^ *(?:CSN_DEPTHWISE=triton )?(?:part|step|tests|layers) (\w+) (\d+) ", script.read_text(), re.MULTILINE)
    limits = [int(seconds) for _, seconds in found]
    assert len({name for name, _ in found}) == len(found) == 12 and sum(limits) < 540
    assert f"add up to {sum(limits)}" in script.read_text()
    alone = subprocess.run(["bash", script, "", "nothing"], capture_output=True, text=True, check=False)
    assert alone.returncode in (0, 2) and "==" not in alone.stdout  # a GPU and no part of that name, or none
    for name in re.findall(r"(?:benchmarks|experiments|tests)/\w+\.py", script.read_text()):
        assert Path(REPOSITORY / name).exists(), name


def test_limits_are_shares_of_a_step_and_rates_of_its_products() -> None:
    rows = limits.rows_of("train", {"ReLU": 1.0, "products": 3.0}, 6e6, 8.0, 0.5)
    told = [(row["work"], row["share"], row["gflop_per_s"], row["best_gflop_per_s"]) for row in rows]
    assert told == [("products", 0.75, 4.0, 8.0), ("ReLU", 0.25, None, None)]
    dense, values = limits.multiply_adds(8, 112, 50, "infer")
    assert 2.3e9 < dense < 2.65e9 and 1.4e7 < values < 1.8e7  # 10.578 GMACs at 224 pixels are a quarter at 112
    stem = 64 * 8 * 56 * 56 * 3 * 3 * 7 * 7
    assert limits.multiply_adds(8, 112, 50, "train")[0] == 3 * dense - stem


def test_kernels_are_counted_by_kind_of_work(tmp_path: Path) -> None:
    watched = {
        "sums_kernel": (2.0, 3.0), "unpool_kernel": (1.0, 0.5), "nvjet_sm90_splitK_NTT": (4.0, 1.0), "sm90_xmma_fprop_implicit_gemm_bf16": (1.0, 2.0),
        "void cutlass::Kernel2<cutlass_80_tensorop_s16816gemm_bf16>": (1.0, 0.25), "forward_kernel": (5.0, 1.5), "Memset (Device)": (1.0, 0.125),
        "multi_tensor_apply_kernel": (1.0, 0.125), "blocks_kernel": (1.0, 0.25), "CUDAFunctor_add<float>": (3.0, 0.25), "softmax": (1.0, 0.5),
    }  # fmt: skip
    rows = kernels.rows_of("train", "ir-CSN", watched, 10.0)
    found = {row["work"]: (row["kernels"], row["ms"], row["share"]) for row in rows}
    assert found == {
        "batch norm, ReLU, sum": (2, 3.0, 0.3), "convolutions": (1, 2.0, 0.2), "depthwise": (5, 1.5, 0.15), "1x1x1 products": (5, 1.25, 0.125),
        "pooling": (1, 0.5, 0.05), "other": (1, 0.5, 0.05), "optimiser, zeros": (2, 0.25, 0.025), "copies, casts": (1, 0.25, 0.025),
        "sums of gradients": (3, 0.25, 0.025), "idle": (0, 0.5, 0.05),
    }  # fmt: skip
    assert [row["ms"] for row in rows[:-1]] == sorted((row["ms"] for row in rows[:-1]), reverse=True) and rows[-1]["work"] == "idle"
    assert kernels.rows_of("train", "ir-CSN", watched, 9.0)[-1]["ms"] == 0.0
    kernels.figure(rows + kernels.rows_of("train", "ResNet3D", watched, 12.0), {"setting": "one", "processor": "two"}, tmp_path / "kernels.png")
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")


def test_figures_show_the_rows_of_the_files(tmp_path: Path) -> None:
    facts = {"setting": "two threads", "processor": "one"}
    rows = limits.rows_of("train", {"products": 600.0, "ReLU": 200.0}, 3e10, 200.0, 50.0)
    limits.figure(rows, facts, tmp_path / "limits.png")
    (panel,) = plt.gcf().axes
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["products", "ReLU", "(copy of all feature maps)"]
    assert [bar.get_width() for bar in panel.patches] == [600, 200, 50] and panel.texts[0].get_text() == "75.0 %, 100 GFLOP/s"
    scaling.plans_figure([{"script": "table1.py", "plan_s": 0.25}], facts, tmp_path / "plans.png")
    assert [bar.get_width() for bar in plt.gcf().axes[0].patches] == [0.25]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("limits.png", "plans.png"))
    plt.close("all")


def test_the_time_of_a_step_is_told_by_kind_of_work() -> None:
    args = Namespace(serve="ir-CSN/26/channels_last_3d", mode="train", device="cpu", dtype="fp32", compile=False, threads=1, batch=2, frames=4, crop=32)
    total = limits.spent(step.prepare(args)[1], 1)
    assert set(total) == {*limits.KINDS, "depthwise", "other"} and total.pop("other") >= 0  # what is left of an unwatched step
    assert min(total.values()) > 0
    folded = Namespace(**{**vars(args), "serve": "ir-CSN/26/channels_last_3d folded", "mode": "infer"})
    found = limits.spent(step.prepare(folded)[1], 1)
    assert min(found["products"], found["depthwise"]) > 0 and found["batch norm"] == found["optimiser"] == 0


def test_a_processor_is_named_with_family_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    one = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
    monkeypatch.setattr(Path, "read_text", lambda self: f"{one}\n{one}")
    assert cpu_name() == "AMD EPYC (family 25 model 17)"
    monkeypatch.setattr(Path, "read_text", lambda self: "model name\t: Neoverse\n")
    assert cpu_name() == "Neoverse"
