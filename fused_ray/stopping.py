"""SIGTERM, which Slurm, Kubernetes and `ray job stop` send, ends a command as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a command that SIGTERM ended."""

_received: list[int] = []


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[list[int]]:
    """Inside, SIGTERM raises KeyboardInterrupt; yields the signals that came.

    Only the first one counts: what follows it must not disturb the end. Outside the main thread, which alone may
    handle signals, nothing changes.
    """
    global _received
    received: list[int] = []
    _received = received

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield received
    finally:
        _give_back(before)
        _received = []


def requested() -> bool:
    """Whether SIGTERM came. Python drops an exception that a handler raises within a callback or a finaliser: whoever
    works for long asks here as well.
    """
    return bool(_received)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """For starting Ray inside, which takes SIGTERM for itself: then it does what it did before.

    A SIGTERM that came meanwhile is delivered then.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # what Ray makes of it
        _give_back(before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        _give_back(before)


def _give_back(handler: Any) -> None:
    """Handle SIGTERM as before; None is a handler in C, which Python cannot set."""
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
