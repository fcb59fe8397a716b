"""A small network in our format, written by the tests that use one."""

from __future__ import annotations

from pathlib import Path

import torch

import csn
from csn.checkpoints.facts import Facts, Input
from csn.checkpoints.network import write
from csn.recipes import SMOKE

NAMES = ("left", "right", "up")
INPUT = Input(SMOKE.mean, SMOKE.std, frames=4, stride=2, crop=32, short=40)


def small_checkpoint(path: Path, classes: tuple[str, ...] = NAMES, variant: csn.Variant | None = None, given: Input = INPUT, seed: int = 0) -> Path:
    """Write a random network whose batch norm has seen something: ip-CSN-26 of width 8 unless told otherwise."""
    variant = variant or csn.Variant(block="ip", depth=26, width=8)
    torch.manual_seed(seed)
    net = csn.build(variant, len(classes), given.frames)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(4, 3, given.frames, 32, 32))
        net.head.fc.weight.mul_(3)
    write(path, Facts(variant, len(classes), classes, given), net.state_dict())
    return path
