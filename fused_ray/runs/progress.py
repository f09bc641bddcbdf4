"""How far a run is, made of its events, for a display or whoever else asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fused_ray.config import RunConfig, schedule
from fused_ray.runs.events import ClientsDone, Event, Noted, RoundBegins, RoundOver, RunBegins
from fused_ray.runs.remaining import seconds_left, typical

RECENT = 64
"""How many finished rounds a progress carries."""


@dataclass(frozen=True)
class Finished:
    """A round that is over. Accuracies are those after it, None where it makes no model; bytes as all clients sent."""

    phase: str
    round: int
    rounds: int
    ra: float | None
    fa: float | None
    bytes_up: int
    seconds: float
    """Since the start of the run."""


@dataclass(frozen=True)
class Progress:
    """Where a run is. Seconds since the start of the run, bytes as sent by all clients in the last finished round."""

    phase: str = "start"
    round: int = 0
    rounds: int = 0
    finished: int = 0
    """How many of the phase's rounds are finished."""
    clients_done: int = 0
    clients: int = 0
    ra: float | None = None
    fa: float | None = None
    bytes_up: int = 0
    seconds: float = 0.0
    round_seconds: float | None = None
    """What a round of the phase takes, by its last ones; None before the first one is finished."""
    seconds_left: float | None = None
    """Until the last round of the whole run, by an estimate; None before the first round is finished."""
    failures: int = 0
    """How often a client failed and was left out, in the rounds that were heard of."""
    recent: tuple[Finished, ...] = ()
    """The last finished rounds, so that who looks only now and then misses none."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """What the user should know from the start, such as nodes that are not bit-comparable."""


class Estimate:
    """How long a run goes on: by the rounds that its phases have, those that are finished, and what they took."""

    def __init__(self, config: RunConfig) -> None:
        self.rounds, self._cost = schedule.rounds(config), schedule.cost(config)
        self.finished: dict[str, int] = {}
        self._took: dict[str, list[float]] = {}

    def over(self, phase: str, round: int, seconds: float) -> None:
        """A round is over, and took that long."""
        self.finished[phase] = round
        self._took.setdefault(phase, []).append(seconds)

    def each(self, phase: str) -> float | None:
        """Seconds of a round of a phase; None before any was."""
        took = self._took.get(phase)
        return typical(took) if took else None

    def left(self, phase: str = "", share: float = 0.0) -> float | None:
        """Seconds until the last round is over, that share of the phase's next one being done; None before any was."""
        left = {name: float(count - self.finished.get(name, 0)) for name, count in self.rounds.items()}
        if phase in left:
            left[phase] -= share
        return seconds_left(left, self._took, self._cost)


class Teller:
    """A sink that tells a listener how far the run is, after every event that changes that."""

    def __init__(self, config: RunConfig, listener: Callable[[Progress], None]) -> None:
        self._listener = listener
        self._started = self._round_started = time.monotonic()
        self._estimate, self._decides = Estimate(config), config.deployment.decides
        self._progress = Progress()

    def __call__(self, event: Event) -> None:
        before = self._progress
        match event:
            case RunBegins():
                self._estimate.finished = dict(event.finished)
            case Noted():
                self._tell(notes=(*before.notes, event.text))
            case RoundBegins():
                self._round_started = time.monotonic()
                self._tell(
                    phase=event.phase,
                    round=event.round,
                    rounds=event.rounds,
                    finished=event.round - 1,
                    clients_done=0,
                    clients=event.clients,
                )
            case ClientsDone():
                self._tell(clients_done=before.clients_done + event.count)
            case RoundOver():
                self._over(event)

    def _over(self, event: RoundOver) -> None:
        now, before = time.monotonic(), self._progress
        self._estimate.over(event.phase, event.round, now - self._round_started)
        missing = event.row["clients_expected"] - event.row["clients_used"]
        over = Finished(
            phase=event.phase,
            round=event.round,
            rounds=event.rounds,
            ra=event.metrics.get("ra"),
            fa=event.metrics.get("fa"),
            bytes_up=event.bytes_up,
            seconds=now - self._started,
        )
        self._tell(
            finished=event.round,
            ra=before.ra if over.ra is None else over.ra,
            fa=before.fa if over.fa is None else over.fa,
            bytes_up=over.bytes_up,
            recent=(*before.recent[1 - RECENT :], over),
            failures=before.failures + (0 if self._decides else missing),
        )

    def _tell(self, **changes: Any) -> None:
        now = replace(self._progress, seconds=time.monotonic() - self._started, **changes)
        share = now.clients_done / max(1, now.clients) if now.round > now.finished else 0.0
        self._progress = replace(
            now, round_seconds=self._estimate.each(now.phase), seconds_left=self._estimate.left(now.phase, share)
        )
        self._listener(self._progress)
