"""How long something goes on: from how often its parts are still to come and how long they took so far."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

RECENT = 5
"""How many of a part's last measurements count; their median does not mind a slow first one."""


def typical(took: Sequence[float]) -> float:
    """Seconds that the next part takes, by those of the parts so far, of which there is one at least."""
    return statistics.median(took[-RECENT:])


def seconds_left(
    left: Mapping[str, float], took: Mapping[str, Sequence[float]], cost: Mapping[str, float]
) -> float | None:
    """Seconds until all parts are done; None before any was measured.

    `left` says how often each kind of part is still to come, a part of one counting as a fraction; `took` the seconds
    of those that are done. A kind that was not measured yet takes as long as the measured one whose `cost` is nearest
    to its own, in proportion to both costs.
    """
    measured = {kind: typical(seconds) for kind, seconds in took.items() if seconds}
    if not measured:
        return None

    def each(kind: str) -> float:
        if kind in measured:
            return measured[kind]
        like = min(measured, key=lambda known: abs(cost[known] - cost[kind]))
        return measured[like] * cost[kind] / cost[like]

    return sum(count * each(kind) for kind, count in left.items() if count > 0)


class Remaining:
    """Runs of several kinds, one by one or side by side. Times are seconds of a clock that only goes forward."""

    def __init__(self, kinds: Sequence[str], cost: Mapping[str, float]) -> None:
        self._waiting, self._cost = Counter(kinds), cost
        self._took: dict[str, list[float]] = {}
        self._running: dict[str, tuple[str, float]] = {}
        self._side = 1

    def begin(self, name: str, kind: str, now: float) -> None:
        """A run of some kind has begun."""
        self._waiting[kind] -= 1
        self._running[name] = kind, now
        self._side = max(self._side, len(self._running))

    def end(self, name: str, now: float) -> None:
        """It is over."""
        if name in self._running:
            kind, began = self._running.pop(name)
            self._took.setdefault(kind, []).append(now - began)

    def skip(self, kind: str) -> None:
        """A run of this kind is over that never began."""
        self._waiting[kind] -= 1

    def seconds_left(self, now: float, expected: float | None = None) -> float | None:
        """Seconds until the last one is over; `expected` is what the one that goes on is known to take in all.

        As many go on side by side as did so far at most. None before any was measured.
        """
        took = dict(self._took)
        if expected is not None:
            took |= {kind: [expected] for kind, _ in self._running.values()}
        left = 0.0
        for kind, began in self._running.values():
            each = seconds_left({kind: 1}, took, self._cost)
            if each is None:
                return None
            left += max(0.0, each - (now - began))
        later = seconds_left(self._waiting, took, self._cost)
        return None if later is None else (left + later) / self._side


def told(seconds: float) -> str:
    """A time for people."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5700 else f"{seconds / 3600:.1f} h"
