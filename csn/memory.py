"""The memory of a process: freed blocks are kept, for a training step takes the same ones every time; how much is held."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# glibc, malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Let the C library keep the memory that tensors free, in place of giving it back to the system at once.

    By default every large CPU tensor is mapped afresh, and the first touch of each of its pages interrupts the
    process. Call it before the first large tensor. The peak of memory stays; between steps it is no longer lent back. (Pages of 2 MiB
    were tried, too: a step of ir-CSN-50 took 0.98 to 1.00 of its time.)
    Returns whether it took effect: on Linux with glibc only.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_TOP_PAD, 2**26))


def trim() -> None:
    """Give what is free back to the system, with glibc: then what a process holds is what it uses."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Growth:
    """How much more memory a process holds, at its most, than when this was made: bytes of tensors on a GPU, resident on a CPU.

    On a CPU the memory at the end stands for the most, since keep_memory gives none back; what was free when this was made was given back
    then, or it would be used again unseen. device: a torch.device.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        else:
            trim()
        self.before = self.most()

    def most(self) -> int:
        if self.device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self.device)
        return resident()

    def bytes(self) -> int:
        return self.most() - self.before


def resident() -> int:
    """Bytes of main memory that this process holds; on systems that do not tell, the most that it held so far."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
