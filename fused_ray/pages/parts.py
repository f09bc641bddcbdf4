"""What a page of results is made of: sections of sentences, tables, charts, in plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

_BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_UNITS = {**_BYTES, **_TIMES, "%": 0.01}
_NUMBER = re.compile(r"([+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?)\s*(%|[A-Za-z]+)?")

Rows = Sequence[Sequence[str]]


def worth(text: str) -> float | None:
    """What a cell is sorted by: the number that it begins with, by its unit; None where it begins with none."""
    found = _NUMBER.match(text)
    if not found:
        return None
    return float(found[1].replace(",", "")) * _UNITS.get(found[2] or "", 1.0)


@dataclass(frozen=True)
class Words:
    """Sentences, a paragraph each, or the items of a list."""

    KIND: ClassVar[str] = "words"
    lines: Sequence[str]
    listed: bool = False


@dataclass(frozen=True)
class Terms:
    """Names, and what stands for each."""

    KIND: ClassVar[str] = "terms"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Plain text in columns; the first one names the row. A reader may sort it."""

    KIND: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Rows
    folded: bool = False
    """Whether it is shown on request only."""
    left: Sequence[str] = ()
    """Columns of text, beside the first one."""
    marked: Sequence[int] = ()
    """Rows that stand out."""


@dataclass(frozen=True)
class Chart:
    """A picture with a caption. Its figures are in a table of the same section."""

    KIND: ClassVar[str] = "chart"
    svg: Markup
    caption: str
    legend: Sequence[tuple[str, Markup]] = ()
    """What stands for what: name and sign."""


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    KIND: ClassVar[str] = "code"
    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Tile:
    """One figure, large, and what it is to be held against."""

    name: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Tiles:
    """The figures to look at first."""

    KIND: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


Part = Words | Terms | Table | Chart | Code | Tiles


@dataclass(frozen=True)
class Section:
    """What is told of one matter. Without parts it is left out."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Subject:
    """A run or a study."""

    title: str
    kind: str
    """What it is, in a word."""
    about: str
    """One line below the title."""
    sections: Sequence[Section]
    verdict: str = ""
    """The word, where there is one verdict on all of it."""
    leading: Sequence[Part] = field(default=())
    """What stands before all sections."""
