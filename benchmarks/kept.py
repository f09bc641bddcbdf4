"""Pages whose tables come from comparisons: the rows that are kept beside them, and the part of the page they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
Rows = Sequence[Mapping[str, Any]]


def between(text: str, name: str, lines: Iterable[str]) -> str:
    """A page with these lines between its marks `<!-- name: begin -->` and `<!-- name: end -->`, which it must have."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{begin} ... {end} is not there"
    return "\n".join([f"{before}{begin}", "", *lines, f"{end}{after}"])


def without(rows: Rows, scenarios: Iterable[str]) -> list[Mapping[str, Any]]:
    """The rows of all other scenarios."""
    measured = set(scenarios)
    return [row for row in rows if row["scenario"] not in measured]
