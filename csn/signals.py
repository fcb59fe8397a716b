"""The signals by which a person, a terminal or a cluster ends a command or a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def hangup() -> tuple[signal.Signals, ...]:
    """The signal of a terminal that is closed, unless it is ignored, as under nohup."""
    return () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object], *signals: signal.Signals) -> Iterator[None]:
    """Have handler(number, frame) called for these signals within the block, whatever was done with them before.

    In a thread other than the main one, to which Python brings no signal, they stay as they are; so does one that a library handles.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: was for number in signals if (was := signal.getsignal(number)) is not None}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
