"""Which call starts next: pure bookkeeping of actors, nodes and what waits for them. It knows nothing of Ray.

An actor works on one call at a time, a node on no more than it has room for. Of a node's idle actors the one whose
waiting calls take longest is first. A step costs O(log actors).
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One actor call: its slot, what it works on (clients or test blocks), and how often it has been tried."""

    slot: int
    items: tuple[int, ...]
    attempt: int = 1


class Dispatch:
    """Calls that wait, and calls that run.

    `node_of` says where a slot's actor is now, `room` how many calls a node may work on at once, and `seconds` how long
    an item takes, about.
    """

    def __init__(
        self,
        calls: Iterable[Call],
        node_of: Callable[[int], str],
        room: Mapping[str, int],
        seconds: Callable[[int], float],
    ) -> None:
        self._waiting: dict[int, deque[Call]] = defaultdict(deque)
        self._left: dict[int, float] = defaultdict(float)
        """Seconds that what waits for a slot will take."""
        self._idle: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
        """By node, a heap of its idle slots for which something waits, those first that it takes longest, with how many
        calls that were. An entry that is no longer true is passed over when it comes up."""
        self._changed: dict[str, None] = {}
        """Nodes on which something may have become free to start since it was last asked."""
        self._busy: dict[str, int] = defaultdict(int)
        self._node_of, self._room, self._seconds = node_of, room, seconds
        self._home: dict[int, str] = {}
        """The node for which a slot was last entered as idle."""
        self._at: dict[int, str] = {}
        """The node on which a slot's running call was started."""
        for call in calls:
            self._waiting[call.slot].append(call)
            self._left[call.slot] += self._length(call)
        for slot in [*self._waiting]:
            self._rest(slot)

    def start(self) -> Iterator[Call]:
        """The calls that can start now; each counts as running from then on."""
        while self._changed:
            node, _ = self._changed.popitem()
            while self._idle[node] and self._busy[node] < self._room.get(node, 1):
                _, slot, count = heapq.heappop(self._idle[node])
                if slot in self._at or self._home.get(slot) != node or count != len(self._waiting[slot]):
                    continue
                self._busy[node] += 1
                self._at[slot] = node
                call = self._waiting[slot].popleft()
                self._left[slot] -= self._length(call)
                yield call

    def more(self, slot: int) -> bool:
        """Whether something waits for a slot."""
        return bool(self._waiting[slot])

    def end(self, call: Call) -> None:
        """A call is over, however it ended."""
        node = self._at.pop(call.slot)
        self._busy[node] -= 1
        self._changed[node] = None
        self._rest(call.slot)

    def put(self, calls: Iterable[Call]) -> None:
        """Further calls, in their order before what waits for their slots."""
        by_slot: dict[int, list[Call]] = defaultdict(list)
        for call in calls:
            by_slot[call.slot].append(call)
        for slot, further in by_slot.items():
            self._waiting[slot].extendleft(reversed(further))
            self._left[slot] += sum(map(self._length, further))
            self._rest(slot)

    def leave(self, slot: int) -> list[Call]:
        """A slot lost its actor: what waited for it, and waits no longer."""
        self._home.pop(slot, None)
        self._left.pop(slot, None)
        return [*self._waiting.pop(slot, ())]

    def _rest(self, slot: int) -> None:
        if slot not in self._at and (waiting := len(self._waiting[slot])):
            node = self._home[slot] = self._node_of(slot)
            heapq.heappush(self._idle[node], (-self._left[slot], slot, waiting))
            self._changed[node] = None

    def _length(self, call: Call) -> float:
        return sum(map(self._seconds, call.items))
