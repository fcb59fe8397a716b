"""Checkpoints: the state of a run in progress (resume), and whole networks in files, our own and published ones (network)."""

from csn.checkpoints.resume import discard, load, save

__all__ = ["discard", "load", "save"]
