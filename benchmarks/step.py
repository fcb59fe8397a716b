"""Clips per second and peak memory of training and inference, beside the two public packages that have CSN.

    python benchmarks/step.py --peers PEERS/bin/python           CPU, 8 x 112 x 112, batch 4; neither package has depth 26
    python benchmarks/step.py --device cuda --frames 32 --crop 224 --depths 50 152 --batch 4 --dtype bf16

PEERS is an environment of its own, since one of them pins old packages:
    python -m venv PEERS
    PEERS/bin/pip install torch==2.14.1 torchvision==0.29.2 pytorchvideo==0.1.5 mmaction2==1.2.0 mmengine mmcv-lite

Every network runs in a process of its own; the processes take turns, one step each, so that whatever else the
machine does falls on all of them alike. Reported: the median over the rounds, and the median of the ratio to ir-CSN within a round
(in inference on a CPU to ir-CSN with its batch norm folded, csn.inference, as prediction uses it there), beside the ratio of their FLOPs; peak_mb of
the process, and mb_per_clip: what the steps added to what it held with the network built, divided by the batch. Ours keep the memory that
tensors free (csn.memory) and fuse SGD, as csn.train does; the others do so where it says kept, which leaves the networks to compare. On CUDA a training
step is one CUDA graph unless compiled, as in csn.train, and the same network with torch's own convolutions takes part, in both memory layouts
(torch-conv), and as torch runs it by itself, every kernel started by the processor (eager). The CSV is written after every round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peers import mmaction2, pytorchvideo
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WARM = 5  # steps before the first that counts: by the fourth a graph is made
PEERS = (50, 101, 152)  # the depths that the packages have
BLOCKS = {"ResNet3D": "bottleneck", "ir-CSN": "bottleneck-D", "ip-CSN": "ip"}


def ours(name: str, depth: int) -> nn.Module:
    import csn

    return csn.build(csn.Variant(block=BLOCKS[name], depth=depth), 400)


def prepare(args: argparse.Namespace) -> tuple[int, Callable[[], None]]:
    """Weights of the network args.serve, and a function that does one step."""
    name, depth, layout = args.serve.split("/")
    as_ours = name in BLOCKS or "kept" in layout
    if as_ours:
        from csn.memory import keep_memory

        keep_memory()
    net = {"pytorchvideo": pytorchvideo, "mmaction2": mmaction2}[name](int(depth)) if name not in BLOCKS else ours(name, int(depth))
    if "folded" in layout:
        from csn.inference import folded

        net = folded(net)  # type: ignore[arg-type]
    if "torch-conv" in layout:
        from csn.export import portable

        net = portable(net)  # type: ignore[arg-type]
    graphed = args.device == "cuda" and args.mode == "train" and "eager" not in layout and not args.compile
    layout = torch.channels_last_3d if layout.startswith("channels_last_3d") else torch.contiguous_format
    net = net.to(args.device, memory_format=layout).train(args.mode == "train")
    if args.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    clips = torch.randn(args.batch, 3, args.frames, args.crop, args.crop).to(args.device).contiguous(memory_format=layout)
    labels = torch.randint(400, (args.batch,), device=args.device)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=as_ours)
    if graphed:
        from csn import graph
    autocast = torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bf16")

    def learn(clips: torch.Tensor, labels: torch.Tensor) -> None:
        with autocast:
            logits = net(clips)
        nn.functional.cross_entropy(logits.float(), labels).backward()

    work = graph.Graphed(learn) if graphed else learn

    def train() -> None:
        sgd.zero_grad(set_to_none=not graphed)
        work(clips, labels)
        sgd.step()

    @torch.inference_mode()
    def infer() -> None:
        with autocast:
            net(clips)

    return sum(p.numel() for p in net.parameters() if p.ndim > 1), train if args.mode == "train" else infer


def held_now(device: str) -> int:
    """Bytes that this process holds: in the GPU's memory, or in all on a CPU."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def serve(args: argparse.Namespace) -> None:
    """Answer every line of standard input: the first when it is ready, the others with the seconds and memory of one step each."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    weights, step = prepare(args)
    sys.stdin.readline()  # networks are built all at once, and warmed up one by one: then each chooses its kernels undisturbed
    before = held_now(args.device)
    for _ in range(WARM):
        step()
    wait()
    print("ready", weights, before, flush=True)
    for _ in sys.stdin:
        began, worked = time.perf_counter(), time.process_time()
        step()
        wait()
        peak = torch.cuda.max_memory_allocated() if args.device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([time.perf_counter() - began, time.process_time() - worked, peak]), flush=True)


@cache
def flops_over_ir_csn(name: str, depth: int, frames: int, crop: int) -> float:
    """FLOPs of a clip through one of BLOCKS, over ir-CSN's; 1 for the other packages' ir-CSN."""
    import csn

    def flops(block: str) -> int:
        return csn.count(csn.build(csn.Variant(block=block, depth=depth), 400, frames), (3, frames, crop, crop)).flops

    return flops(BLOCKS[name]) / flops(BLOCKS["ir-CSN"]) if name in BLOCKS else 1.0


def begin(args: argparse.Namespace, mode: str, net: str, python: str) -> subprocess.Popen[str]:
    """The process of a network, which builds it and waits."""
    options = [f"--{k}={getattr(args, k)}" for k in ("device", "threads", "batch", "frames", "crop", "dtype")]
    command = [python, __file__, f"--serve={net}", f"--mode={mode}", *options, *(["--compile"] if net.endswith(" compiled") else [])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # its threads sleep soon after a step


def ask(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def take_turns(args: argparse.Namespace, mode: str, nets: dict[str, str]) -> Iterator[list[dict[str, Any]]]:
    """After every round, one row per network: nets maps its name/depth/layout to the interpreter that it runs with."""
    begun = {net: begin(args, mode, net, python) for net, python in nets.items()}
    processes = {}
    for net, process in begun.items():
        with suppress(BrokenPipeError):
            ask(process)
        for line in process.stdout or ():  # the packages print notices of their own
            if line.startswith("ready"):
                processes[net] = process, *map(int, line.split()[1:])
                break
        else:
            print(f"{net}: does not run here", file=sys.stderr)
    laps: dict[str, list[list[float]]] = {net: [] for net in processes}
    for _ in range(args.rounds):
        for net, (process, *_) in processes.items():
            ask(process)
            laps[net].append(json.loads(process.stdout.readline()))  # type: ignore[union-attr]
        yield rows_of(args, mode, {net: (weights, before, laps[net]) for net, (_, weights, before) in processes.items()})
    for process, *_ in processes.values():
        process.communicate()


def rows_of(args: argparse.Namespace, mode: str, measured: dict[str, tuple[int, int, list[list[float]]]]) -> list[dict[str, Any]]:
    """A row per network, from its weights, the memory before the steps, and (seconds, processor seconds, peak memory) of each step."""
    rows = []
    for net, (weights, before, laps) in measured.items():
        base = measured[f"ir-CSN/{net.split('/')[1]}/channels_last_3d{' folded' if mode == 'infer' and args.device == 'cpu' else ''}"][2]  # as it is used
        name, depth, layout = net.split("/")
        wall, cpu, peak = zip(*laps, strict=True)
        rows.append(
            {
                "mode": mode, "network": name, "depth": int(depth), "layout": layout, "rounds": len(laps), "weights_m": weights / 1e6,
                "clips_per_s": args.batch / median(wall), "ms": 1e3 * median(wall), "cpu_ms": 1e3 * median(cpu),
                "time_over_ir_csn": median(a / b[0] for a, b in zip(wall, base, strict=True)),
                "flops_over_ir_csn": flops_over_ir_csn(name, int(depth), args.frames, args.crop),
                "cpu_over_ir_csn": median(a / b[1] for a, b in zip(cpu, base, strict=True)),
                "peak_mb": max(peak) / 2**20, "mb_per_clip": (max(peak) - before) / args.batch / 2**20,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peers", help="interpreter of the environment with pytorchvideo and mmaction2; without it, ours alone")
    parser.add_argument("--depths", type=int, nargs="+", default=[50])
    parser.add_argument("--networks", nargs="+", choices=list(BLOCKS), default=["ir-CSN", "ResNet3D", "ip-CSN"])
    parser.add_argument("--modes", nargs="+", choices=["train", "infer"], default=["train", "infer"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--crop", type=int, default=112)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="add ours through torch.compile")
    parser.add_argument("--name", default="step", help="of the CSV and the figure")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="train", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args)
    from machine import RESULTS, describe, show, write

    keys = ("threads", "batch", "frames", "crop", "dtype")
    facts = describe(args.device) | {"setting": ", ".join(f"{k} {getattr(args, k)}" for k in keys)}
    rows: list[dict[str, Any]] = []
    for depth in args.depths:
        for mode in args.modes:
            nets = {}
            for name in dict.fromkeys(["ir-CSN", *args.networks]):
                nets[f"{name}/{depth}/channels_last_3d"] = sys.executable
                if mode == "infer":
                    nets[f"{name}/{depth}/channels_last_3d folded"] = sys.executable
                if args.compile:
                    nets[f"{name}/{depth}/channels_last_3d compiled"] = sys.executable
            if args.device == "cuda":
                others = ["channels_last_3d torch-conv", "NCDHW torch-conv"]
                others += ["NCDHW torch-conv eager", "channels_last_3d eager"] if mode == "train" else []
                for layout in others:
                    nets[f"ir-CSN/{depth}/{layout}"] = sys.executable
            if args.peers and depth in PEERS:
                for name in ("pytorchvideo", "mmaction2"):
                    for layout in ("as it comes", "channels_last_3d", "channels_last_3d kept"):
                        nets[f"{name}/{depth}/{layout}"] = args.peers
            done = rows
            for latest in take_turns(args, mode, nets):
                rows = done + latest
                write(args.name, rows, facts)
    show(f"{facts['setting']} on {facts.get('gpu', facts['processor'])}", rows)
    print(RESULTS / f"{args.name}.csv")
    figure(rows, facts, RESULTS / f"{args.name}.png")


def figure(rows: list[dict[str, Any]], facts: dict[str, str], file: Path) -> None:
    """Bars of clips/s, a panel per mode."""
    import matplotlib
    from machine import heading

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    frame = pd.DataFrame(rows)
    frame["what"] = frame.network + "-" + frame.depth.astype(str) + "\n" + frame.layout
    modes = list(frame["mode"].unique())
    fig, axes = plt.subplots(1, len(modes), figsize=(7 * len(modes), 0.5 * len(frame) / len(modes) + 1.2), squeeze=False)
    for ax, mode in zip(axes[0], modes, strict=True):
        sns.barplot(frame[frame["mode"] == mode], x="clips_per_s", y="what", color="C0", ax=ax)
        ax.set(title=mode, xlabel="clips per second", ylabel="")
    fig.suptitle(heading(facts), fontsize=10)
    fig.tight_layout()
    fig.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
