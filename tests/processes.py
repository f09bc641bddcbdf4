"""Programs that tests start, watch and end, with everything that those start themselves."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """A program with its output kept, and interrupted by SIGINT even where these tests are a background job.

    `options` are further ones of Popen, such as its folder and environment.
    """
    return subprocess.Popen(
        command,
        **options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    """Until something is true while the program runs."""
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The program and all that it started, Ray's workers in groups of their own too; none once it is over."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    return []


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for all of them, whichever have gone by themselves meanwhile."""
    for member in family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    process.communicate()
