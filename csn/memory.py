"""Keep freed memory in the process: a training step takes and returns the same blocks every time."""

from __future__ import annotations

import ctypes
import sys

# glibc, malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Let the C library keep the memory that tensors free, in place of giving it back to the system at once.

    By default every large CPU tensor is mapped afresh, and the first touch of each of its pages interrupts the
    process. Call it before the first large tensor. The peak of memory stays; between steps it is no longer lent back.
    Returns whether it took effect: on Linux with glibc only.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_TOP_PAD, 2**26))
