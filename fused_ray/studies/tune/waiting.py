"""Runs that wait for a runner, by group: who has begun a group goes on with it; what its runs share is built once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Waiting:
    """What is still to be given out. Which runner gets a run changes no result, only how often the same is built."""

    def __init__(self, items: Sequence[tuple[str, Any]]) -> None:
        """Each with its group, in the order in which they are best given out."""
        self._groups: dict[str, list[Any]] = {}
        for group, item in items:
            self._groups.setdefault(group, []).append(item)
        self._begun: set[str] = set()

    def take(self, last: str | None) -> tuple[str, Any]:
        """The next run, and its group, for a runner whose last run was of the group `last`; None: it is new.

        The rest of that group comes first, then the longest that nobody has begun, then the longest.
        """
        fresh = [group for group in self._groups if group not in self._begun]
        group = last if last in self._groups else max(fresh or self._groups, key=lambda name: len(self._groups[name]))
        assert group is not None
        self._begun.add(group)
        items = self._groups[group]
        item = items.pop(0)
        if not items:
            del self._groups[group]
        return group, item
