"""How long something goes on: from how often its parts are still to come and how long they took so far."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

RECENT = 5
"""How many of a part's last measurements count; their median does not mind a slow first one."""


def seconds_left(
    left: Mapping[str, float], took: Mapping[str, Sequence[float]], cost: Mapping[str, float]
) -> float | None:
    """Seconds until all parts are done; None before any was measured.

    `left` says how often each kind of part is still to come, a part of one counting as a fraction; `took` the seconds
    of those that are done. A kind that was not measured yet takes as long as the measured one whose `cost` is nearest
    to its own, in proportion to both costs.
    """
    measured = {kind: statistics.median(found[-RECENT:]) for kind, found in took.items() if found}
    if not measured:
        return None

    def each(kind: str) -> float:
        if kind in measured:
            return measured[kind]
        like = min(measured, key=lambda known: abs(cost[known] - cost[kind]))
        return measured[like] * cost[kind] / cost[like]

    return sum(count * each(kind) for kind, count in left.items() if count > 0)


class Steps:
    """Steps of several kinds, one after the other. Times are seconds of any clock that only goes forward."""

    def __init__(self, kinds: Sequence[str], cost: Mapping[str, float]) -> None:
        self._kinds, self._cost = kinds, cost
        self._took: dict[str, list[float]] = {}
        self._number, self._began = -1, 0.0

    def begin(self, number: int, now: float) -> None:
        """The step of that number, from 0, has begun; the one that went on until now is over."""
        if number != self._number:
            if self._number >= 0:
                self._took.setdefault(self._kinds[self._number], []).append(now - self._began)
            self._number, self._began = number, now

    def seconds_left(self, now: float, expected: float | None = None) -> float | None:
        """Seconds until the last step is over; `expected` is what this one is known to take in all, if it is."""
        kind = self._kinds[self._number]
        took = {**self._took, kind: [expected]} if expected is not None else self._took
        here, after = ({kind: 1}, Counter(self._kinds[self._number + 1 :]))
        this, later = seconds_left(here, took, self._cost), seconds_left(after, took, self._cost)
        return None if this is None or later is None else max(0.0, this - (now - self._began)) + later


def told(seconds: float) -> str:
    """A time for people."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5700 else f"{seconds / 3600:.1f} h"
