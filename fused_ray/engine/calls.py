"""Calls on a crew of actors until all are answered: who starts next, how long it may take, what is made again.

An actor that computes several calls in a row keeps what they gave and hands it over with the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from fused_ray.config import EngineConfig
from fused_ray.core.pools import ClientDone
from fused_ray.engine.cluster import alive
from fused_ray.engine.crew import Crew
from fused_ray.engine.dispatch import Call, Dispatch
from fused_ray.engine.reason import reason
from fused_ray.engine.recovery import Action, Budget, Recovery, late, moved
from fused_ray.errors import ClientFailedError, FusedRayError

_POLL = 0.5
"""Seconds between two looks at whether the user wants to stop, and at what became of lost actors."""
_NOTICE = 20.0
"""Seconds within which Ray notices that a node is gone; it takes 13 as it comes."""


@dataclass(frozen=True)
class Request:
    """What calls of one kind have in common."""

    method: str
    arguments: Callable[[Call, bool], tuple[Any, ...]]
    """Of a call, and whether it is the last that its actor has to do so far."""
    what: str
    """What they are for, in words."""
    seconds: Callable[[int], float] = lambda item: 1.0
    """About how long an item takes: what takes longest starts first, and calls of lost actors are spread by it."""
    done: ClientDone = lambda count: None
    """Asked at every look whether to go on, with 0."""
    on_failure: Literal["fail", "skip", "wait"] = "fail"
    """What becomes of an item over which actors die too often, or that is late; those that are left out lack."""


@dataclass(frozen=True)
class Answer:
    """What a call gave: None if its actor keeps that for later; and the calls whose work is in it."""

    call: Call
    result: Any
    covered: list[Call]


class Calls:
    """Makes calls on a crew. `room` is how many a node works on at once, `lost` the nodes that were lost so far.

    `join` takes in actors that have started.
    """

    def __init__(
        self, crew: Crew, room: Mapping[str, int], engine: EngineConfig, lost: set[str], join: Callable[[], None]
    ) -> None:
        self._crew, self._room, self._engine, self._join, self._lost = crew, room, engine, join, lost
        self._budget = Budget(engine.max_attempts, engine.max_lost_nodes, _NOTICE, engine.start_timeout)
        self._recovery = Recovery(self._budget, lost)
        self._running: dict[Any, tuple[Call, float]] = {}

    def answers(self, calls: Iterable[Call], request: Request) -> Iterator[Answer]:
        """Make every call, one at a time per actor and no more than a node has room for; answers as they come.

        Calls without items are of their actor alone: when it dies, nobody else makes them.
        """
        dispatch = Dispatch(calls, self.node_of, self._room, request.seconds)
        self._recovery = Recovery(replace(self._budget, beyond=request.on_failure), self._lost)
        while True:
            for call in dispatch.start():
                arguments = request.arguments(call, not dispatch.more(call.slot))
                self._running[getattr(self._crew[call.slot], request.method).remote(*arguments)] = (
                    call,
                    time.monotonic(),
                )
            if not self._running and not self._recovery.deaths:
                return
            ended = self._wait()
            request.done(0)
            self._join()
            for ref in ended:
                call, _ = self._running.pop(ref)
                dispatch.end(call)
                if (answer := self._answer(ref, call, dispatch, request)) is not None:
                    yield answer
            self._check_time(dispatch, request)
            self._recover(dispatch, request)

    def node_of(self, slot: int) -> str:
        return self._crew.identity(slot).node

    def _wait(self) -> list[Any]:
        """The calls that have ended, after a while at most; it is over too when an actor has started."""
        refs = [*self._running, *self._crew.starting]
        if not refs:  # only the loss of a node, or that there is none, can still show
            time.sleep(_POLL)
            return []
        ended, _ = ray.wait(refs, timeout=min(_POLL, self._engine.client_timeout))
        if ended and len(refs) > 1:  # those that ended at the same time, in one go
            ended, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return [ref for ref in ended if ref in self._running]

    def _answer(self, ref: Any, call: Call, dispatch: Dispatch, request: Request) -> Answer | None:
        """A call's answer; None if its actor died. Raises what the call raised."""
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            raise self._explained(error, call, request) from None
        except RayError as error:
            self._died(call, dispatch, reason(error), sure=not isinstance(error, ActorUnavailableError))
            return None
        self._recovery.computed(call)
        return Answer(call, result, [] if result is None else self._recovery.handed_over(call.slot))

    def _died(self, call: Call, dispatch: Dispatch, why: str, sure: bool) -> None:
        """A call is over for its actor is; a new actor is asked for."""
        node, waiting = self.node_of(call.slot), dispatch.leave(call.slot)
        self._recovery.died(call, waiting, node, time.monotonic(), why, sure)
        self._crew.lose(call.slot)

    def _recover(self, dispatch: Dispatch, request: Request) -> None:
        """Do what can be done about the actors that died. Raises ClientFailedError when that is nothing."""
        if not self._recovery.deaths:
            return
        nodes, now = alive(), time.monotonic()
        ready = [slot for slot in self._crew.ready if self.node_of(slot) in nodes]
        strays: list[Call] = []
        for slot in sorted(self._recovery.deaths):
            action = self._recovery.step(slot, ready, nodes, now)
            if action is Action.GIVE_UP or not (ready or self._crew.starting):
                raise self._hopeless(slot, nodes, request)
            if action is Action.RETRY:
                dispatch.put(self._recovery.take(slot))
            elif action is Action.MOVE:
                strays += self._recovery.take(slot)
        dispatch.put(moved(strays, ready, request.seconds))

    def _check_time(self, dispatch: Dispatch, request: Request) -> None:
        """See to calls that have run for longer than their clients may take, one after the other.

        The actor of such a call is ended, and the clients of the call are tried one by one where it has several, left
        out where it has one. Raises ClientFailedError if the run ends instead.
        """
        if request.on_failure == "wait":
            return
        limit = self._engine.client_timeout
        found = late(self._running.values(), limit, time.monotonic())
        if found and request.on_failure == "skip":
            for ref in [ref for ref, (call, _) in self._running.items() if call in found]:
                call, _ = self._running.pop(ref)  # what it gives by now is too late
                if len(call.items) == 1:
                    self._recovery.leave_out(call.items[0])
                dispatch.end(call)
                self._died(call, dispatch, f"it had run for longer than {limit:g} s a client", sure=True)
        elif found:
            missing = "; ".join(f"{list(call.items)} on node {self.node_of(call.slot)[:12]}" for call in found)
            raise ClientFailedError(
                f"{request.what}: these have run for longer than {limit:g} s each (engine.client_timeout): {missing}"
            )

    def _explained(self, error: RayTaskError, call: Call, request: Request) -> FusedRayError:
        """The error that a call raised: ours as it is, any other with who and where."""
        if isinstance(error.cause, FusedRayError):
            return error.cause
        kind = "clients" if request.method == "train" else "blocks"
        where, cause = self.node_of(call.slot)[:12], error.cause
        return ClientFailedError(
            f"{request.what}, {kind} {list(call.items)}, node {where}: {type(cause).__name__}: {cause}"
        )

    def _hopeless(self, slot: int, nodes: set[str], request: Request) -> ClientFailedError:
        """Why the run ends at a death."""
        death, most = self._recovery.deaths[slot], self._engine.max_lost_nodes
        if len(self._lost) > most:
            names = ", ".join(sorted(name[:12] for name in self._lost))
            return ClientFailedError(
                f"{request.what}: {len(self._lost)} nodes were lost ({names}), more than the {most} of "
                "engine.max_lost_nodes; does something that runs there take their memory? Else raise the limit"
            )
        call, times = death.working_on, self._recovery.count(death.working_on, nodes)
        if times >= self._engine.max_attempts:
            single = request.method == "train" and len(call.items) == 1
            who = f"client {call.items[0]}" if single else f"{request.method} {list(call.items)}"
            return ClientFailedError(
                f"{request.what}, {who}, node {death.node[:12]}: its actor died {times} times ({death.why}); if memory "
                "ran out, lower train.batch_size or engine.prefix_cache_mb, or raise federation.clients_per_actor"
            )
        why = self._crew.failure or f"no node has had room for one for {self._engine.start_timeout:g} s"
        return ClientFailedError(
            f"{request.what}: all client actors died, the last one as follows: {death.why}; and no new one has "
            f"started (engine.start_timeout): {why}"
        )
