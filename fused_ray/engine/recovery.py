"""What becomes of an actor's calls when the actor dies: pure decisions over calls, nodes and seconds. No Ray in it.

An actor dies with its node, or by itself, which its work may have caused. The two have budgets of their own. What a
dead node's actors had to do moves to the other actors at once. What an actor had to do that died by itself waits for a
new one, so that work which kills actors does not go round; without a new one it moves in the end. Whether a node is
gone may show only later: a death there then counts for nobody any more.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from fused_ray.engine.dispatch import Call


class Action(Enum):
    """What to do about the calls of an actor that died."""

    RETRY = "make them on the new actor of their slot"
    MOVE = "give them to the other actors"
    WAIT = "ask again later"
    GIVE_UP = "end the run"


@dataclass(frozen=True)
class Budget:
    """What is borne before a run ends."""

    deaths: int
    """Deaths of actors by themselves while they worked on one item."""
    nodes: int
    """Nodes lost in all."""
    notice: float
    """Seconds within which the loss of a node shows; an actor that died by itself is waited for as long."""
    start: float
    """Seconds that a new actor may take to start where no other is left."""
    beyond: Literal["fail", "skip", "wait"] = "fail"
    """What becomes of an item over which actors died too often: the run ends, it is left out, it is tried on."""


@dataclass(frozen=True)
class Death:
    """An actor's death: where, when (seconds), why in words, and its calls, which must all be made again."""

    node: str
    since: float
    why: str
    sure: bool
    """Whether the actor is known to be dead; else it cannot be reached, as when its node is gone."""
    working_on: Call
    again: tuple[Call, ...]


class Recovery:
    """Deaths while one set of calls is made, and what to do about each. `lost` are all nodes the pool has lost."""

    def __init__(self, budget: Budget, lost: set[str]) -> None:
        self._budget, self._lost = budget, lost
        self._kept: dict[int, list[Call]] = defaultdict(list)
        self._died_on: dict[Hashable, list[str]] = defaultdict(list)
        """By item, the nodes on which an actor died that worked on it."""
        self.deaths: dict[int, Death] = {}
        """By slot, those about which nothing has been done."""
        self._out: set[Hashable] = set()
        """Items that are left out."""

    def computed(self, call: Call) -> None:
        """A call is done, and what it gave lies with its actor."""
        self._kept[call.slot].append(call)

    def handed_over(self, slot: int) -> list[Call]:
        """All that an actor computed has arrived: the calls that are in it."""
        return self._kept.pop(slot, [])

    def died(self, call: Call, waiting: Iterable[Call], node: str, now: float, why: str, sure: bool) -> None:
        """The actor of a call's slot died, or cannot be reached, and what waited for it waits no longer.

        What it had computed and not handed over died with it, so all its calls of this round are made again: the one
        that it worked on first, item by item, so that a client whose work kills its actor is found.
        """
        parts = [replace(call, items=(item,), attempt=call.attempt + 1) for item in call.items]
        repeated = [replace(kept, attempt=kept.attempt + 1) for kept in self._kept.pop(call.slot, ())]
        for item in _blamed(call):
            self._died_on[item].append(node)
        self.deaths[call.slot] = Death(node, now, why, sure, call, (*parts, *repeated, *waiting))

    def leave_out(self, item: Hashable) -> None:
        """An item is not tried again; its actor is about to die."""
        self._out.add(item)

    def step(self, slot: int, ready: Collection[int], alive: Collection[str], now: float) -> Action:
        """What to do about a death, with the slots whose actors can be asked, and the nodes that are alive."""
        death = self.deaths[slot]
        waited, gone = now - death.since, death.node not in alive
        if gone:
            self._lost.add(death.node)
        too_often = self._budget.beyond != "wait" and self.count(death.working_on, alive) >= self._budget.deaths
        if too_often and self._budget.beyond == "skip" and (death.sure or waited > self._budget.notice):
            for item in death.working_on.items:  # one, for of several none is blamed
                self.leave_out(item)
            too_often = False
        if len(self._lost) > self._budget.nodes:
            return Action.GIVE_UP
        if too_often and (death.sure or waited > self._budget.notice):
            return Action.GIVE_UP
        if slot in ready:
            return Action.WAIT if too_often else Action.RETRY
        if ready and (gone or waited > self._budget.notice):
            return Action.MOVE
        return Action.GIVE_UP if not ready and waited > self._budget.start else Action.WAIT

    def count(self, call: Call, alive: Collection[str]) -> int:
        """How often actors died by themselves over a call; those of nodes that are gone do not count."""
        return max((sum(node in alive for node in self._died_on[item]) for item in _blamed(call)), default=0)

    def take(self, slot: int) -> tuple[Call, ...]:
        """Something is done about a death: the calls to make again."""
        again = self.deaths.pop(slot).again
        return tuple(call for call in again if len(call.items) != 1 or call.items[0] not in self._out)


def late(running: Iterable[tuple[Call, float]], limit: float, now: float) -> list[Call]:
    """Of calls and the seconds at which they began, those that have run for longer than `limit` seconds an item."""
    return [call for call, since in running if now - since > limit * max(1, len(call.items))]


def moved(calls: Sequence[Call], ready: Collection[int], weight: Callable[[int], float]) -> list[Call]:
    """Calls of lost slots as calls of the slots that are left, spread by the weights of their items."""
    parts = [replace(call, items=part) for call in calls for part in split(call.items, len(ready))]
    takers = spread([sum(map(weight, part.items)) for part in parts], dict.fromkeys(ready, 0))
    return [replace(part, slot=slot) for part, slot in zip(parts, takers, strict=True)]


def assigned(homes: Sequence[Sequence[int]], ready: Collection[int], weight: Callable[[int], int]) -> dict[int, int]:
    """Which slot computes each client: its own, or while that has no actor, one of the others."""
    slot_of = {client: slot for slot in ready for client in homes[slot]}
    strays = [client for slot, clients in enumerate(homes) if slot not in ready for client in clients]
    loads = {slot: sum(map(weight, homes[slot])) for slot in ready} if strays else {}
    return slot_of | dict(zip(strays, spread([weight(client) for client in strays], loads), strict=True))


def spread(weights: Sequence[float], loads: Mapping[int, float]) -> list[int]:
    """A slot for each weight: the heaviest first, each to the slot with the least load."""
    heap = [(load, slot) for slot, load in sorted(loads.items())]
    heapq.heapify(heap)
    found = [0] * len(weights)
    for at in sorted(range(len(weights)), key=lambda at: (-weights[at], at)):
        load, slot = heap[0]
        heapq.heapreplace(heap, (load + weights[at], slot))
        found[at] = slot
    return found


def split(items: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Items in about equal parts, in their order; no part is empty."""
    size = max(1, -(-len(items) // parts))
    return [tuple(items[at : at + size]) for at in range(0, len(items), size)]


def _blamed(call: Call) -> Sequence[Hashable]:
    """What a death counts for: the call's item, or its slot where it has none.

    Of several items nobody knows which it was: they are tried one by one, and then it counts.
    """
    if len(call.items) > 1:
        return ()
    return call.items or (f"slot {call.slot}",)
