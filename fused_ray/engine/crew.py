"""The actors of a pool, one in a slot: started together, and each replaced by a new one when it dies.

A new actor is asked for at once and joins when it has started, however late that is: where no node has room, when one
comes. Nobody waits for it but who says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayError

from fused_ray.engine.cluster import alive
from fused_ray.engine.reason import reason
from fused_ray.errors import ClientFailedError
from fused_ray.types import Identity

_POLL = 0.5
"""Seconds of one look at whether an actor has joined."""


class Crew:
    """Actors by slot. `create` makes the actor of a slot: on the node planned for it, or on any."""

    def __init__(self, slots: int, create: Callable[[int, bool], Any], starts: int) -> None:
        self._create, self._starts = create, starts
        self._actors: dict[int, Any] = {}
        self._tried = [0] * slots
        """How often the actor of a slot has died before it had started."""
        self._starting: dict[Any, int] = {}
        """What actors that start will say of themselves, and their slots."""
        self._identities: dict[int, Identity] = {}
        self.failure: str | None = None
        """Why an actor could not start, if one could not."""
        for slot in range(slots):
            self._start(slot, anywhere=False)

    @property
    def ready(self) -> list[int]:
        """The slots whose actors have started, ascending."""
        return sorted(self._identities)

    @property
    def starting(self) -> list[Any]:
        """What becomes ready when an actor that was asked for has started, or cannot."""
        return [*self._starting]

    @property
    def beginners(self) -> list[Any]:
        """The actors that were asked for and have not joined."""
        return [self._actors[slot] for slot in self._starting.values()]

    def __getitem__(self, slot: int) -> Any:
        return self._actors[slot]

    def identity(self, slot: int) -> Identity:
        """What the actor of a slot said of itself when it had started."""
        return self._identities[slot]

    def join(self, timeout: float = 0.0) -> list[int]:
        """The slots whose actors have started since the last call; waits so many seconds for one."""
        if not self._starting:
            return []
        ended, _ = ray.wait(self.starting, timeout=timeout)
        if ended and len(self._starting) > 1:
            ended, _ = ray.wait(self.starting, num_returns=len(self._starting), timeout=0)
        joined = []
        for ref in ended:
            slot = self._starting.pop(ref)
            try:
                self._identities[slot] = ray.get(ref)
                joined.append(slot)
            except RayError as error:
                self._again(slot, error)
        return joined

    def lose(self, slot: int) -> None:
        """The actor of a slot died or cannot be reached: its place is asked for once more, or any where it is gone."""
        node = self._identities.pop(slot).node
        with contextlib.suppress(RayError):
            ray.kill(self._actors[slot])
        self._start(slot, anywhere=node not in alive())

    def wait(self, limit: float) -> None:
        """Until an actor is there. Raises ClientFailedError if none is within so many seconds."""
        deadline = time.monotonic() + limit
        while not self._identities:
            self.join(_POLL)
            if not self._identities and (time.monotonic() > deadline or not self._starting):
                why = f"the last that was tried: {self.failure}" if self.failure else "no node has room for one"
                raise ClientFailedError(
                    f"every client actor died and no new one started within {limit:g} s (engine.start_timeout; {why}); "
                    "make room for it"
                )

    def close(self) -> None:
        """End every actor, also those that are still asked for."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._starting.clear()
        self._identities.clear()

    def _start(self, slot: int, anywhere: bool) -> None:
        actor = self._actors[slot] = self._create(slot, anywhere)
        self._starting[actor.identity.remote()] = slot

    def _again(self, slot: int, error: RayError) -> None:
        """An actor ended before it had started; one whose node is gone is asked for elsewhere and does not count."""
        self._tried[slot] += not isinstance(error, ActorUnschedulableError)
        raised = isinstance(error, ActorDiedError) and error.actor_init_failed
        if raised or self._tried[slot] == self._starts:
            self.failure = reason(error)
        if self._tried[slot] < self._starts:
            self._start(slot, anywhere=True)
