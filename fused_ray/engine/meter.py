"""What Ray's metrics endpoint, and so Prometheus, tells of a run while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ray.util.metrics import Counter, Gauge

_NOW = {
    "round": "round that goes on",
    "rounds": "rounds of its phase",
    "round_seconds": "wall seconds of a round of that phase, by its last ones",
    "seconds": "wall seconds since the start of the run",
    "seconds_left": "wall seconds until its last round, by an estimate",
}
"""Gauges of what goes on."""
_AFTER = {
    "ra": "accuracy on the retained test view after the last finished round",
    "fa": "the same on the forgotten one",
}
"""Gauges of a finished round."""
_TAGS = ("run", "phase")


class Finished(Protocol):
    """A finished round."""

    @property
    def phase(self) -> str:
        """The phase that it is of."""
        ...

    @property
    def bytes_up(self) -> int:
        """Protocol bytes that all clients sent."""
        ...


class Told(Protocol):
    """Where a run is, with an attribute for each gauge of what goes on, None where that is not known."""

    @property
    def phase(self) -> str:
        """The phase that goes on."""
        ...

    @property
    def recent(self) -> Sequence[Finished]:
        """The last finished rounds, with an attribute for each gauge of them."""
        ...


class Meter:
    """Gauges, `ray_fused_ray_ra` and the like, and counters of rounds and bytes, for one run by its name."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._now, self._after = _gauges(_NOW), _gauges(_AFTER)
        self._rounds = Counter("fused_ray_finished_rounds", "finished rounds", _TAGS)
        self._bytes = Counter("fused_ray_bytes_up", "protocol bytes that all clients sent", _TAGS)
        self._last: Finished | None = None

    def tell(self, told: Told) -> None:
        """Set what is known now; it is called after each finished round, before the next one is finished."""
        self._set(self._now, told, told.phase)
        if told.recent and told.recent[-1] is not self._last:
            self._last = last = told.recent[-1]
            self._set(self._after, last, last.phase)
            self._rounds.inc(1, self._tags(last.phase))
            if last.bytes_up:
                self._bytes.inc(last.bytes_up, self._tags(last.phase))

    def _set(self, gauges: dict[str, Gauge], source: object, phase: str) -> None:
        for name, gauge in gauges.items():
            if (value := getattr(source, name)) is not None:
                gauge.set(float(value), self._tags(phase))

    def _tags(self, phase: str) -> dict[str, str]:
        return {"run": self._run, "phase": phase}


def _gauges(meanings: dict[str, str]) -> dict[str, Gauge]:
    return {name: Gauge(f"fused_ray_{name}", meaning, _TAGS) for name, meaning in meanings.items()}
