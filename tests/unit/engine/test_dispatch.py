"""Which call starts next, with toy actors on simulated nodes."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fused_ray.engine.dispatch import Call, Dispatch


def alike(item: int) -> float:
    return 1.0


def test_the_actor_with_most_waiting_calls_is_first_and_a_node_takes_no_more_than_it_has_room_for() -> None:
    calls = [Call(0, (0,)), Call(1, (1,)), Call(1, (2,)), Call(2, (3,))]
    dispatch = Dispatch(calls, {0: "a", 1: "a", 2: "b"}.__getitem__, {"a": 1, "b": 1}, alike)
    assert sorted(call.items for call in dispatch.start()) == [(1,), (3,)]
    assert list(dispatch.start()) == []
    dispatch.end(calls[1])
    assert [call.items for call in dispatch.start()] == [(0,)]  # one waits for each now, and the lower slot is first
    dispatch.end(calls[0])
    assert [call.items for call in dispatch.start()] == [(2,)]


def test_what_takes_longest_is_first_however_few_calls_that_is() -> None:
    calls = [Call(0, (0,)), Call(0, (1,)), Call(1, (2,)), Call(2, (3, 4, 5))]
    dispatch = Dispatch(calls, lambda slot: "a", {"a": 1}, lambda item: 10.0 if item == 2 else 1.0)
    order = []
    while started := list(dispatch.start()):
        order += started
        dispatch.end(started[0])
    assert [call.items for call in order] == [(2,), (3, 4, 5), (0,), (1,)]


def test_what_is_put_before_a_slots_calls_counts_for_its_length() -> None:
    calls = [Call(0, (0,)), Call(1, (1,)), Call(1, (2,))]
    dispatch = Dispatch(calls, lambda slot: "a", {"a": 1}, float)
    assert [call.items for call in dispatch.start()] == [(1,)]  # 1 + 2 seconds against none
    dispatch.end(calls[1])
    dispatch.put([Call(0, (5,), 2)])
    assert [call.items for call in dispatch.start()] == [(5,)]  # 5 + 0 against 2


def test_an_actor_works_on_one_call_at_a_time() -> None:
    calls = [Call(0, (0,)), Call(0, (1,))]
    dispatch = Dispatch(calls, lambda slot: "a", {"a": 8}, alike)
    assert list(dispatch.start()) == calls[:1]
    assert list(dispatch.start()) == []


def test_what_is_repeated_comes_before_what_waits_and_frees_the_node_that_was_lost() -> None:
    nodes = {0: "lost", 1: "lost"}
    calls = [Call(0, (0, 1)), Call(0, (2,)), Call(1, (3,))]
    dispatch = Dispatch(calls, nodes.__getitem__, {"lost": 1, "new": 1}, alike)
    assert list(dispatch.start()) == calls[:1]
    dispatch.end(calls[0])
    assert dispatch.leave(0) == calls[1:2]
    assert [call.items for call in dispatch.start()] == [(3,)]  # nothing starts where there is no actor
    nodes[0] = "new"
    dispatch.put([Call(0, (0,), 2), Call(0, (1,), 2), calls[1]])
    order = []
    while started := list(dispatch.start()):
        order += started
        dispatch.end(started[0])
    assert [call.items for call in order] == [(0,), (1,), (2,)]


def test_a_slot_takes_over_what_another_left() -> None:
    """What it has counts anew, whether it is idle or works; nothing starts twice."""
    calls = [Call(0, (0,)), Call(0, (1,)), Call(1, (2,)), Call(2, (3,))]
    dispatch = Dispatch(calls, {0: "a", 1: "b", 2: "b"}.__getitem__, {"a": 1, "b": 1}, alike)
    first = list(dispatch.start())
    assert [call.items for call in first] == [(2,), (0,)]  # slot 2 waits for room
    dispatch.end(calls[0])
    dispatch.put([Call(2, call.items, 2) for call in (calls[0], *dispatch.leave(0))])
    assert list(dispatch.start()) == []
    assert dispatch.more(2)
    assert not dispatch.more(1)
    dispatch.end(calls[2])
    order = []
    while started := list(dispatch.start()):
        order += started
        dispatch.end(started[0])
    assert [call.items for call in order] == [(0,), (1,), (3,)]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=30),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
    st.randoms(use_true_random=False),
)
def test_every_call_runs_once_in_its_slots_order(slots: list[tuple[int, int]], room: list[int], random: Any) -> None:
    node_of = {slot: slot % 3 for slot in range(6)}
    calls = [Call(slot, (number,)) for number, (slot, _) in enumerate(slots)]
    dispatch = Dispatch(calls, lambda slot: str(node_of[slot]), {str(node): room[node] for node in range(3)}, alike)
    running: list[Call] = []
    order: list[Call] = []
    while True:
        started = list(dispatch.start())
        order += started
        running += started
        busy = Counter(node_of[call.slot] for call in running)
        assert all(busy[node] <= room[node] for node in busy)
        assert len({call.slot for call in running}) == len(running)
        if not running:
            break
        dispatch.end(running.pop(random.randrange(len(running))))
    assert sorted(order, key=lambda call: call.items) == calls
    for slot in range(6):
        mine = [call for call in calls if call.slot == slot]
        assert [call for call in order if call.slot == slot] == mine


def test_a_round_of_1000_actors_on_50_nodes_is_booked_in_no_time() -> None:
    calls = [Call(slot, (slot, part)) for slot in range(1000) for part in range(4)]
    spent = []
    for _ in range(5):
        clock = time.process_time()
        dispatch = Dispatch(calls, lambda slot: str(slot % 50), {str(node): 8 for node in range(50)}, alike)
        running, over = list(dispatch.start()), 0
        while running:
            over += 1
            dispatch.end(running.pop())
            running += dispatch.start()
        spent.append(time.process_time() - clock)
        assert over == len(calls)
    assert min(spent) < 0.1  # seconds of CPU; 0.01 on a quiet machine
