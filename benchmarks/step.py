"""Clips per second and peak memory of training and inference, beside the two public packages that have CSN.

    python benchmarks/step.py --peers PEERS/bin/python           CPU, 8 x 112 x 112, batch 4; neither package has depth 26
    python benchmarks/step.py --device cuda --frames 32 --crop 224 --depths 50 152 --batch 4 --dtype bf16

PEERS is an environment of its own, since one of them pins old packages:
    python -m venv PEERS
    PEERS/bin/pip install torch==2.14.1 torchvision==0.29.2 pytorchvideo==0.1.5 mmaction2==1.2.0 mmengine mmcv-lite

Every network runs in a process of its own, on the same clips; the processes take turns, one step each, in a random order, so that whatever else the
machine does falls on all of them alike. A sitting ends with its processes, the next begins with new ones (benchmarks/turns.py): on a CPU, five
processes that trained the same network in turn were seen to be up to a quarter apart. Reported: the median over the rounds of all sittings, and the
median of the ratio to ir-CSN within a round (in inference on a CPU to ir-CSN with its batch norm folded, csn.inference, as prediction uses it there),
with the lowest and the highest of the sittings' own medians, beside the ratio of their FLOPs; first_step_s, the longest first step of a process, in
which kernels are chosen and compiled (but those on disk from before); peak_mb, the most that a process held in a step, and
mb_per_clip: what of that the steps added to the network built, divided by the batch.

Ours keep the memory that tensors free (csn.memory) and fuse SGD, as csn.train does; the others do so where it says kept, which leaves the networks to
compare. On CUDA a step is one CUDA graph unless compiled, as in csn.train and csn.evaluate, and the same network with torch's own convolutions takes
part, in both memory layouts (torch-conv), with the depthwise ones alone exchanged (torch-depthwise: in NCDHW, in which torch is faster, with the
conversions), and as torch runs it by itself, every kernel started by the processor (eager). The CSV is written after every round; the exit status
is 1 when a network could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peers import exchange_depthwise, mmaction2, pytorchvideo
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from turns import Sitting, take_turns

from csn.flags import Parser, file_name, positive
from csn.memory import trim
from csn.spec import require

WARM = 5  # steps before the first that counts: by the fourth a graph is made
DEPTHS, PEERS = (26, 50, 101, 152), (50, 101, 152)  # ours; those that the packages have
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
    if "torch-depthwise" in layout:
        exchange_depthwise(net)
    graphed = args.device == "cuda" and "eager" not in layout and not args.compile
    layout = torch.channels_last_3d if layout.startswith("channels_last_3d") else torch.contiguous_format
    net = net.to(args.device, memory_format=layout).train(args.mode == "train")
    if args.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    torch.manual_seed(1)  # the same for every network, whatever building it drew
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
        if not (graphed and work.graph):  # as csn.train does where a step is one micro-batch
            sgd.zero_grad()
        work(clips, labels)
        sgd.step()

    def look(clips: torch.Tensor) -> torch.Tensor:
        with autocast:
            return net(clips)

    see = graph.Graphed(look) if graphed else look

    @torch.inference_mode()
    def infer() -> None:
        see(clips)

    return sum(p.numel() for p in net.parameters() if p.ndim > 1), train if args.mode == "train" else infer


def start_peak(device: str) -> int:
    """Bytes that this process holds, in the GPU's memory, or in all on a CPU; the peak counts from here on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    trim()  # or the steps would take up unseen what building and folding left behind
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of resident memory becomes what is resident
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def serve(args: argparse.Namespace) -> None:
    """Answer every line of standard input: the first when it is ready, the others with the seconds and memory of one step each."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    try:
        weights, step = prepare(args)
        sys.stdin.readline()  # networks are built all at once, and warmed up one by one: then each chooses its kernels undisturbed
        before = start_peak(args.device)
        began = time.perf_counter()
        step()
        wait()
        first = time.perf_counter() - began
        for _ in range(WARM - 1):
            step()
        wait()
    except Exception as error:  # whatever keeps a network from running is told in its place
        sys.exit(f"{args.serve}: {type(error).__name__}: {error}")
    print("ready", weights, before, first, flush=True)
    for _ in sys.stdin:
        began, worked = time.perf_counter(), time.process_time()
        step()
        wait()
        print(json.dumps([time.perf_counter() - began, time.process_time() - worked, peak(args.device)]), flush=True)


@cache
def flops_over_ir_csn(name: str, depth: int, frames: int, crop: int) -> float:
    """FLOPs of a clip through one of BLOCKS, over ir-CSN's; 1 for the other packages' ir-CSN."""
    import csn

    def flops(block: str) -> int:
        return csn.count(csn.build(csn.Variant(block=block, depth=depth), 400, frames), (3, frames, crop, crop)).flops

    return flops(BLOCKS[name]) / flops(BLOCKS["ir-CSN"]) if name in BLOCKS else 1.0


def base_of(args: argparse.Namespace, mode: str, depth: str) -> str:
    """The network that others of its depth are compared to: ir-CSN as it is used."""
    return f"ir-CSN/{depth}/channels_last_3d{' folded' if mode == 'infer' and args.device == 'cpu' else ''}"


def peak_of(sitting: Sitting) -> float:
    return max(memory for _, _, memory in sitting.laps)


def rows_of(args: argparse.Namespace, mode: str, sittings: list[dict[str, Sitting]]) -> list[dict[str, Any]]:
    """A row per network that ran, from the sittings that it took part in."""
    rows = []
    for net in dict.fromkeys(net for sitting in sittings for net in sitting):
        name, depth, layout = net.split("/")
        own = [sitting[net] for sitting in sittings if net in sitting]
        base = [sitting[base_of(args, mode, depth)] for sitting in sittings if net in sitting]
        wall, cpu, _ = zip(*(lap for sitting in own for lap in sitting.laps), strict=True)
        pairs = [list(zip(mine.laps, beside.laps, strict=True)) for mine, beside in zip(own, base, strict=True)]
        times, cpus = ([[lap[k] / beside[k] for lap, beside in sitting] for sitting in pairs] for k in (0, 1))
        rows.append(
            {
                "mode": mode, "network": name, "depth": int(depth), "layout": layout, "rounds": len(wall), "weights_m": own[0].weights / 1e6,
                "clips_per_s": args.batch / median(wall), "ms": 1e3 * median(wall), "cpu_ms": 1e3 * median(cpu),
                "time_over_ir_csn": median(chain(*times)), "lowest": min(map(median, times)), "highest": max(map(median, times)),
                "flops_over_ir_csn": flops_over_ir_csn(name, int(depth), args.frames, args.crop), "cpu_over_ir_csn": median(chain(*cpus)),
                "first_step_s": max(s.first for s in own), "peak_mb": max(map(peak_of, own)) / 2**20,
                "mb_per_clip": max(peak_of(s) - s.before for s in own) / args.batch / 2**20,
            }
        )  # fmt: skip
    return rows


def peers_there(python: str) -> str:
    """python, an interpreter that builds both packages' networks. Raises UserError."""
    try:
        found = subprocess.run([python, str(Path(__file__).with_name("peers.py"))], capture_output=True, text=True, check=False)
        told = found.stderr.strip().splitlines()[-1:] if found.returncode else []
    except OSError as error:
        told = [error.strerror or str(error)]
    require(not told, "--peers", python, f"must be a Python that builds both packages' CSN ({''.join(told)}); see --help for its environment")
    return python


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peers", help="interpreter of the environment with pytorchvideo and mmaction2; without it, ours alone")
    parser.add_argument("--depths", type=int, nargs="+", choices=DEPTHS, default=[50])
    parser.add_argument("--networks", nargs="+", choices=list(BLOCKS), default=["ir-CSN", "ResNet3D", "ip-CSN"])
    parser.add_argument("--modes", nargs="+", choices=["train", "infer"], default=["train", "infer"])
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--crop", type=positive, default=112)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--sittings", type=positive, help="times that every process is begun anew (5; on cuda 1)")
    parser.add_argument("--rounds", type=positive, default=5, help="of a sitting (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="add ours through torch.compile")
    parser.add_argument("--name", type=file_name, default="step", help="of the CSV and the figure")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="train", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.sittings = args.sittings or (1 if args.device == "cuda" else 5)
    if args.serve:
        serve(args)
        return 0
    import machine

    machine.on_cuda(args)
    peers = peers_there(args.peers) if args.peers else None
    keys = ("threads", "batch", "frames", "crop", "dtype", "sittings")
    facts = machine.describe(args.device) | {"setting": ", ".join(f"{k} {getattr(args, k)}" for k in keys)}
    rows: list[dict[str, Any]] = []
    wanted = 0
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
                others = ["channels_last_3d torch-conv", "NCDHW torch-conv", "channels_last_3d torch-depthwise"]
                others += ["NCDHW torch-conv eager", "channels_last_3d eager"]
                for layout in others:
                    nets[f"ir-CSN/{depth}/{layout}"] = sys.executable
            if peers and depth in PEERS:
                for name in ("pytorchvideo", "mmaction2"):
                    for layout in ("as it comes", "channels_last_3d", "channels_last_3d kept"):
                        nets[f"{name}/{depth}/{layout}"] = peers
            done, wanted = rows, wanted + len(nets)
            for sittings in take_turns(args, mode, nets, base_of(args, mode, str(depth))):
                rows = done + rows_of(args, mode, sittings)
                machine.write(args.name, rows, facts)
    told = ("mode", "network", "depth", "layout", "clips_per_s", "ms", "time_over_ir_csn", "flops_over_ir_csn", "first_step_s", "mb_per_clip")
    machine.show(f"{facts['setting']} on {facts.get('gpu', facts['processor'])}", rows, *told)
    print(machine.RESULTS / f"{args.name}.csv")
    figure(rows, facts, machine.RESULTS / f"{args.name}.png")
    return int(len(rows) < wanted)


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
    if any(flag.startswith("--serve=") for flag in sys.argv):  # with an interpreter that may lack what the tables need
        sys.exit(main())
    from machine import script

    script(main)
