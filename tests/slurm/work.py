"""Jobs that the tests submit in place of a training; the nodes import this file."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def write_record(name: str, home: Path, **facts: Any) -> None:
    folder = home / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"record.{os.getpid()}"
    part.write_text(json.dumps({"run": name, "job": os.environ["SLURM_JOB_ID"], **facts}))
    part.replace(folder / "record.json")


@dataclass(frozen=True)
class Nothing:
    """Writes a record at once."""

    name: str
    home: Path

    def __call__(self) -> None:
        write_record(self.name, self.home, video_top1=1.0)


@dataclass(frozen=True)
class Meeting:
    """All tasks join and add up their ranks + 1; the first one records the sum."""

    name: str
    home: Path

    def __call__(self) -> None:
        from csn.launch import joined

        with joined("cpu") as (rank, _):
            import torch
            import torch.distributed as dist

            total = torch.tensor(float(rank + 1))
            dist.all_reduce(total)
            if rank == 0:
                write_record(self.name, self.home, total=total.item(), size=dist.get_world_size())


@dataclass(frozen=True)
class Hog:
    """One of the tasks takes memory until it is killed for it; the others wait."""

    rank: int

    def __call__(self) -> None:
        taken = []
        while int(os.environ["SLURM_PROCID"]) != self.rank:
            time.sleep(1)
        while True:
            taken.append(bytearray(os.urandom(1 << 20)) * 200)
            time.sleep(0.2)
