"""Processes of several networks that take turns, one step each, in a random order, in several sittings: what benchmarks/step.py times.

A sitting ends with its processes, the next begins with new ones; the networks of a sitting are built all at once, and warmed up one by one.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from csn.spec import UserError

STEP = Path(__file__).with_name("step.py")


def begin(args: argparse.Namespace, mode: str, net: str, python: str) -> subprocess.Popen[str]:
    """The process of a network, which builds it and waits."""
    options = [f"--{k}={getattr(args, k)}" for k in ("device", "threads", "batch", "frames", "crop", "dtype")]
    command = [python, str(STEP), f"--serve={net}", f"--mode={mode}", *options, *(["--compile"] if net.endswith(" compiled") else [])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # its threads sleep soon after a step


def ask(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@dataclass
class Sitting:
    """Of one process: its network's weights, the bytes it held before its steps, the seconds of its first step, which compiles, and (seconds, processor
    seconds, peak memory) of each that counts."""

    weights: int
    before: int
    first: float
    laps: list[list[float]] = field(default_factory=list)


def take_turns(args: argparse.Namespace, mode: str, nets: dict[str, str], base: str) -> Iterator[list[dict[str, Sitting]]]:
    """After every round, the sittings so far. nets maps a network's name/depth/layout to the interpreter that it runs with; base is the one
    that the others are compared to."""
    order = random.Random(0)
    sittings: list[dict[str, Sitting]] = []
    for _ in range(args.sittings):
        processes, sitting = sit_down(args, mode, nets, base)
        sittings.append(sitting)
        for _ in range(args.rounds):
            for net in order.sample(list(processes), len(processes)):
                ask(processes[net])
                sitting[net].laps.append(json.loads(processes[net].stdout.readline()))  # type: ignore[union-attr]
            yield sittings
        for process in processes.values():
            process.communicate()


def sit_down(args: argparse.Namespace, mode: str, nets: dict[str, str], base: str) -> tuple[dict[str, subprocess.Popen[str]], dict[str, Sitting]]:
    """A new process, warmed up, for each of nets that runs here. Raises UserError where base does not."""
    begun = {net: begin(args, mode, net, python) for net, python in nets.items()}
    processes, sitting = {}, {}
    for net, process in begun.items():
        with suppress(BrokenPipeError):
            ask(process)
        for line in process.stdout or ():  # the packages print notices of their own
            if line.startswith("ready"):
                weights, before, first = line.split()[1:]
                processes[net], sitting[net] = process, Sitting(int(weights), int(before), float(first))
                break
        else:
            print(f"{net} does not run here and is left out", file=sys.stderr)
    if base not in processes:
        raise UserError(f"{base}, which the others are compared to, does not run here; why stands above.")
    return processes, sitting
