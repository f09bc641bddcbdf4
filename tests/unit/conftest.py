"""Property tests that do not depend on how busy the machine is, and a terminal in memory."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

Shown = Callable[..., list[str]]


class Terminal(io.TextIOWrapper):
    """A stream in memory that says what it can show."""

    def __init__(self, encoding: str = "utf-8", tty: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    @property
    def text(self) -> str:
        """What was written."""
        written = self.buffer
        assert isinstance(written, io.BytesIO)
        return written.getvalue().decode(self.encoding)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """`shown(show, width, encoding)`: the lines that `show()` prints to a standard output of that kind."""

    def lines(show: Callable[[], object], width: int = 80, encoding: str = "utf-8") -> list[str]:
        terminal = Terminal(encoding)
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(width))
            patch.setattr(sys, "stdout", terminal)
            show()
        return terminal.text.splitlines()

    return lines


@pytest.fixture
def terminal() -> type[Terminal]:
    """The kind of stream."""
    return Terminal
