"""The signals that end a command or a run."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from csn.signals import handled, hangup


def test_a_closed_terminal_is_heard_unless_it_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert hangup() == (signal.SIGHUP,)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert hangup() == ()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_handled_within_the_block_only() -> None:
    before, heard = signal.getsignal(signal.SIGUSR2), list[int]()
    with pytest.raises(KeyError), handled(lambda number, _: heard.append(number), signal.SIGUSR2, signal.SIGTERM):
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)
        raise KeyError
    assert heard == [signal.SIGUSR2, signal.SIGTERM] and signal.getsignal(signal.SIGUSR2) == before


def test_a_thread_other_than_the_main_one_leaves_them_as_they_are() -> None:
    def inside() -> object:
        with handled(lambda number, _: None, signal.SIGUSR2):
            return signal.getsignal(signal.SIGUSR2)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == signal.getsignal(signal.SIGUSR2)
