"""The terminal: text that is shown as it is, tables that fit, and Ray's own noise in a file.

Names, labels and paths are the user's: what stands in brackets in them is no markup, and what a terminal has no sign
for is shown in another way, not left out.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.box import Box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fused_ray.errors import RunDirectoryError
from fused_ray.storage.mirror import in_words

LOG_WIDTH = 160
"""Columns where nobody's window limits the width, as in a job's log."""

_RULE = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
"""A line below the head and no other, in signs that every terminal has."""
_LEVELS = "▁▂▃▄▅▆▇█"
_PLAIN = {"±": "+-", "†": "+", "×": "x", "…": "...", **dict(zip(_LEVELS, "_.,-~=+#", strict=True))}
"""Signs of our own, for terminals that have none of them."""
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""They turn the direction of whatever follows."""


class Screen(Console):
    """A console for any text: none of it is read as markup, and all of it is shown."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file=file, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(shown(in_words(text), self.encoding), **settings)

    def say(self, text: str, style: str = "") -> None:
        """One line, whatever its length: the terminal breaks it, so that a path can be copied."""
        self.print(text, style=style or None, soft_wrap=True)

    def tell(self, text: str) -> None:
        """A sentence: broken between words on a terminal, one line in a log."""
        self.print(text, soft_wrap=not self.is_terminal)


def shown(text: str, encoding: str) -> str:
    """The text in signs that an encoding has; others, and control characters, as backslash escapes."""
    visible = "".join(_escaped(sign) if _moves_cursor(sign) else sign for sign in text)
    try:
        visible.encode(encoding)
        return visible
    except UnicodeEncodeError:
        return "".join(_in(encoding, sign) for sign in visible)


def _moves_cursor(sign: str) -> bool:
    return (unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") and sign != "\n") or ord(sign) in _BIDI


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode() if ord(sign) > 127 else f"\\x{ord(sign):02x}"


def _in(encoding: str, sign: str) -> str:
    try:
        sign.encode(encoding)
        return sign
    except UnicodeEncodeError:
        return _PLAIN.get(sign) or _escaped(sign)


class Notes:
    """Prints each note once, however often it is told."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._seen = screen, set[str]()

    def __call__(self, notes: Iterable[str]) -> None:
        for note in notes:
            if note not in self._seen:
                self._seen.add(note)
                self._screen.say(f"note: {note}")


def make_screen(to_error: bool = False) -> Screen:
    """Standard output or error, wide enough for its tables where nobody's window limits it."""
    screen = Screen(sys.stderr if to_error else sys.stdout)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = max(screen.width, LOG_WIDTH)
    return screen


def make_table(
    head: Sequence[str], body: Iterable[Sequence[str]], left: Collection[str] = (), tight: bool = False
) -> Table:
    """Plain text in columns, those named in `left` to the left; a cell that is too wide goes on in the next line."""
    table = Table(box=_RULE, padding=(0, 0 if tight else 1, 0, 0), pad_edge=False, show_edge=False)
    for name in head:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for line in body:
        table.add_row(*line)
    return table


def fits(screen: Screen, table: Table) -> bool:
    """Whether no cell of a table has to go on in the next line."""
    return Measurement.get(screen, screen.options.update(max_width=10_000), table).maximum <= screen.width


def size(count: float) -> str:
    """Bytes for people, in powers of 1,000."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def number(value: float | None) -> str:
    """An accuracy for people."""
    return "-" if value is None else f"{value:.3f}"


def sparkline(shares: Iterable[float | None]) -> str:
    """A sign for each share of 1, the higher the more: eighths, of which 1 has the last; None is a gap."""
    return "".join(" " if share is None else _LEVELS[min(7, int(8 * share))] for share in shares)


@contextmanager
def progress_screen(path: Path) -> Iterator[Screen]:
    """The screen for the progress of what is written into a folder; Ray's own noise goes to ray.log there meanwhile."""
    with standard_error_to(path / "ray.log") as stream:
        screen = Screen(stream)
        screen.say(f"fused-ray: {path}")
        yield screen


@contextmanager
def standard_error_to(path: Path) -> Iterator[Any]:
    """What native code and Ray print to standard error goes to a file meanwhile; yields the screen's stream."""
    sys.stderr.flush()
    try:
        on_screen = sys.stderr.fileno() == 2
    except (OSError, ValueError):  # replaced by something without a descriptor, as in a notebook
        on_screen = False
    if not on_screen:
        yield sys.stderr
        return
    try:
        log = open(path, "ab")  # noqa: SIM115
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}") from None
    screen, encoding = os.dup(2), sys.stderr.encoding
    with log, os.fdopen(os.dup(screen), "w", buffering=1, encoding=encoding, errors="backslashreplace") as stream:
        os.dup2(log.fileno(), 2)
        try:
            yield stream
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
