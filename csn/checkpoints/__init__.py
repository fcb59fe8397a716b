"""Checkpoints: the state of a run in progress (resume), and whole networks in files, our own and published ones (network)."""

from csn.checkpoints.resume import BEFORE, LAST, discard, load, save, write_atomic

__all__ = ["BEFORE", "LAST", "discard", "load", "save", "write_atomic"]
