"""What becomes of a dead actor's calls, with toy actors on simulated nodes and a clock of numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_ray.engine.dispatch import Call, Dispatch
from fused_ray.engine.recovery import Action, Budget, Recovery, assigned, late, moved, split, spread

BUDGET = Budget(deaths=3, nodes=2, notice=20.0, start=180.0)
ALL = {"a", "b", "c"}


def dead(
    call: Call, *, kept: tuple[Call, ...] = (), waiting: tuple[Call, ...] = (), node: str = "a", sure: bool = True
) -> Recovery:
    """A recovery that has just heard, at second 100, that a call's actor died."""
    recovery = Recovery(BUDGET, set())
    for earlier in kept:
        recovery.computed(earlier)
    recovery.died(call, waiting, node, 100.0, "killed", sure)
    return recovery


# -- what is left out


def beyond(policy: str, call: Call, deaths: int) -> tuple[Recovery, list[Action]]:
    """Actors die again and again over a call, while others are there; what was done about each death."""
    recovery, actions = Recovery(replace(BUDGET, beyond=policy), set()), []
    for _ in range(deaths):
        recovery.died(call, (Call(0, (7,)),), "a", 100.0, "killed", True)
        actions.append(recovery.step(0, [0, 1], ALL, 101.0))
        if actions[-1] is Action.RETRY and len(actions) < deaths:
            recovery.take(0)
    return recovery, actions


def test_the_third_death_over_a_client_ends_the_run_leaves_it_out_or_is_one_of_many() -> None:
    assert beyond("fail", Call(0, (4,)), 3)[1] == [Action.RETRY, Action.RETRY, Action.GIVE_UP]
    recovery, actions = beyond("skip", Call(0, (4,)), 3)
    assert actions == [Action.RETRY] * 3
    assert recovery.take(0) == (Call(0, (7,)),)
    recovery, actions = beyond("wait", Call(0, (4,)), 5)
    assert actions == [Action.RETRY] * 5
    assert recovery.take(0) == (Call(0, (4,), 2), Call(0, (7,)))


def test_of_several_clients_none_is_left_out_before_each_was_tried_alone() -> None:
    recovery, actions = beyond("skip", Call(0, (4, 5)), 3)
    assert actions == [Action.RETRY] * 3
    assert recovery.take(0) == (Call(0, (4,), 2), Call(0, (5,), 2), Call(0, (7,)))


def test_who_is_late_is_not_tried_again_when_its_actor_ends() -> None:
    recovery = Recovery(replace(BUDGET, beyond="skip"), set())
    recovery.leave_out(4)
    recovery.died(Call(0, (4,)), (Call(0, (7,)),), "a", 100.0, "killed", True)
    assert recovery.step(0, [0], ALL, 101.0) is Action.RETRY
    assert recovery.take(0) == (Call(0, (7,)),)


# -- what is made again


def test_all_calls_of_the_round_are_made_again_and_the_one_that_was_worked_on_item_by_item() -> None:
    recovery = dead(Call(0, (4, 5)), kept=(Call(0, (0, 1)), Call(0, (2, 3))), waiting=(Call(0, (6, 7)),))
    assert recovery.take(0) == (
        *(Call(0, (4,), 2), Call(0, (5,), 2)),
        *(Call(0, (0, 1), 2), Call(0, (2, 3), 2)),
        Call(0, (6, 7)),
    )
    assert recovery.deaths == {}


def test_what_was_handed_over_is_not_made_again() -> None:
    recovery = Recovery(BUDGET, set())
    recovery.computed(Call(0, (0,)))
    recovery.computed(Call(1, (9,)))
    recovery.computed(Call(0, (1,)))
    assert recovery.handed_over(0) == [Call(0, (0,)), Call(0, (1,))]
    recovery.died(Call(0, (2,)), (), "a", 0.0, "killed", True)
    assert recovery.take(0) == (Call(0, (2,), 2),)


def test_a_call_without_items_is_nobody_elses() -> None:
    assert dead(Call(0, ())).take(0) == ()


# -- retry, move, wait, give up

STEPS: list[tuple[str, list[int], set[str], float, Action]] = [
    ("a new actor is there", [0, 1], ALL, 101, Action.RETRY),
    ("a new actor is there, on another node", [0], {"b"}, 101, Action.RETRY),
    ("the node is gone, and others are left", [1], {"b"}, 100, Action.MOVE),
    ("the actor alone died: its slot gets a new one", [1], ALL, 101, Action.WAIT),
    ("no new actor came", [1], ALL, 121, Action.MOVE),
    ("nobody is left", [], ALL, 121, Action.WAIT),
    ("nobody is left, not even the node", [], {"b"}, 279, Action.WAIT),
    ("nobody is left for too long", [], {"b"}, 281, Action.GIVE_UP),
]


@pytest.mark.parametrize(("ready", "alive", "now", "expected"), [step[1:] for step in STEPS], ids=[s[0] for s in STEPS])
def test_a_step(ready: list[int], alive: set[str], now: float, expected: Action) -> None:
    assert dead(Call(0, (0, 1))).step(0, ready, alive, now) is expected


def kill(recovery: Recovery, call: Call, nodes: list[str], sure: bool = True) -> None:
    """The call's actor dies on these nodes, one after the other."""
    for node in nodes:
        if recovery.deaths:
            recovery.take(call.slot)
        recovery.died(call, (), node, 100.0, "killed", sure)


def test_a_client_that_kills_its_actor_three_times_ends_the_run() -> None:
    recovery = Recovery(BUDGET, set())
    kill(recovery, Call(0, (5,)), ["a", "a"])
    assert recovery.step(0, [0, 1], ALL, 100) is Action.RETRY
    kill(recovery, Call(0, (5,)), ["b"])
    assert recovery.count(Call(0, (5,)), ALL) == 3
    assert recovery.step(0, [0, 1], ALL, 100) is Action.GIVE_UP


def test_a_client_that_goes_round_ends_the_run_too() -> None:
    recovery = Recovery(BUDGET, set())
    for slot in range(3):
        assert recovery.step(slot - 1, [9], ALL, 121) is Action.MOVE if slot else True
        recovery.died(Call(slot, (5,)), (), "a", 100.0, "killed", True)
    assert recovery.step(2, [9], ALL, 100) is Action.GIVE_UP


def test_other_clients_of_the_actor_are_not_to_blame() -> None:
    recovery = Recovery(BUDGET, set())
    for _ in range(2):
        recovery.computed(Call(0, (1,)))
        kill(recovery, Call(0, (5,)), ["a"])
    kill(recovery, Call(0, (1,)), ["a"])
    assert recovery.step(0, [0], ALL, 100) is Action.RETRY


def test_a_node_that_dies_is_nobodys_fault_also_when_that_shows_later() -> None:
    recovery = Recovery(BUDGET, set())
    kill(recovery, Call(0, (5,)), ["a", "a", "a"], sure=False)
    assert recovery.step(0, [1], ALL, 101) is Action.WAIT  # is it the node? that will show
    assert recovery.step(0, [1], {"b", "c"}, 104) is Action.MOVE
    assert recovery.count(Call(0, (5,)), {"b", "c"}) == 0


def test_a_node_that_does_not_turn_out_to_be_gone_excuses_nobody() -> None:
    recovery = Recovery(BUDGET, set())
    kill(recovery, Call(0, (5,)), ["a", "a", "a"], sure=False)
    assert recovery.step(0, [0, 1], ALL, 101) is Action.WAIT
    assert recovery.step(0, [0, 1], ALL, 121) is Action.GIVE_UP


def test_nodes_have_a_budget_of_their_own_over_all_rounds() -> None:
    lost = {"x"}
    recovery = Recovery(BUDGET, lost)
    recovery.died(Call(0, (0,)), (), "a", 0.0, "gone", False)
    recovery.died(Call(1, (1,)), (), "a", 0.0, "gone", False)
    assert [recovery.step(slot, [2], {"b", "c"}, 1.0) for slot in (0, 1)] == [Action.MOVE] * 2  # one node, two actors
    recovery.died(Call(2, (0,)), (), "b", 5.0, "gone", False)
    assert recovery.step(2, [3], {"c"}, 6.0) is Action.GIVE_UP
    assert lost == {"x", "a", "b"}


# -- how long


def test_a_call_may_take_the_limit_for_each_of_its_clients() -> None:
    one, three, none = Call(0, (1,)), Call(1, (2, 3, 4)), Call(2, ())
    running = [(one, 100.0), (three, 100.0), (none, 101.5)]
    assert late(running, 2.0, 102.0) == []
    assert late(running, 2.0, 102.5) == [one]
    assert late(running, 2.0, 106.0) == [one, none]
    assert late(running, 2.0, 106.5) == [one, three, none]


# -- to whom


def test_lost_calls_are_spread_over_all_that_are_left() -> None:
    found = moved([Call(0, tuple(range(6))), Call(1, (6, 7, 8))], [4, 7, 9], lambda item: 10)
    assert [sorted(i for call in found if call.slot == slot for i in call.items) for slot in (4, 7, 9)] == [
        *([0, 1, 6], [2, 3, 7], [4, 5, 8])
    ]


def test_clients_go_home_when_their_slot_has_an_actor_again() -> None:
    homes, weight = [(0, 1), (2, 3), (4,)], [5, 1, 3, 3, 9].__getitem__
    assert assigned(homes, [0, 1, 2], weight) == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}
    # slot 1 has 6, slot 2 has 9: the client of 5 to slot 1, which has 11 then, that of 1 to slot 2
    assert assigned(homes, [1, 2], weight) == {2: 1, 3: 1, 4: 2, 0: 1, 1: 2}
    assert set(assigned(homes, [2], weight).values()) == {2}


def test_the_heaviest_is_first_and_goes_to_the_least_load() -> None:
    assert spread([1, 5, 3], {0: 0, 1: 2}) == [0, 0, 1]  # 5, then 3 to the load of 2, then 1 to the first of 5 and 5
    assert spread([], {}) == []


def test_parts_are_even_and_none_is_empty() -> None:
    assert split(range(7), 4) == [(0, 1), (2, 3), (4, 5), (6,)]
    assert split((3,), 4) == [(3,)]
    assert split((), 4) == []


# -- all of it, on a cluster that loses actors and nodes as it likes


class Toys:
    """Actors that add up items, on nodes that go."""

    def __init__(self, slots: int, nodes: int) -> None:
        self.where: dict[int, str] = {slot: f"n{slot % nodes}" for slot in range(slots)}
        self.alive = {f"n{node}" for node in range(nodes)}
        self.sums: dict[int, list[int]] = {slot: [] for slot in range(slots)}

    def lose(self, slot: int, random: Any) -> None:
        """Its actor is gone, and all that it kept; perhaps its node is, with all actors there."""
        node = self.where[slot]
        if len(self.alive) > 1 and random.random() < 0.4:
            self.alive.discard(node)
        del self.where[slot]
        self.sums[slot] = []
        if node in self.alive and random.random() < 0.8:
            self.where[slot] = node  # a new actor comes


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 40), st.randoms(use_true_random=False))
def test_every_item_is_in_the_sum_once_whatever_dies(slots: int, nodes: int, items: int, random: Any) -> None:
    toys, now, got, left = Toys(slots, nodes), 0.0, [], 12  # so many deaths
    homes = [part for part in (tuple(range(slot, items, slots)) for slot in range(slots)) if part]
    calls = [Call(slot, part) for slot, home in enumerate(homes) for part in split(home, 4)]
    recovery = Recovery(Budget(100, 100, 20.0, 1e9), set())
    node_of = dict(toys.where)  # as the pool knows it
    dispatch = Dispatch(calls, node_of.__getitem__, dict.fromkeys(toys.alive, 2), lambda item: 1.0)
    running: list[tuple[Call, bool]] = []
    while True:
        running += [(call, not dispatch.more(call.slot)) for call in dispatch.start()]
        if not running and not recovery.deaths:
            break
        if running:
            call, last = running.pop(random.randrange(len(running)))
            dispatch.end(call)
            if call.slot not in toys.where or node_of[call.slot] not in toys.alive or (left and random.random() < 0.3):
                left -= left > 0
                recovery.died(call, dispatch.leave(call.slot), node_of[call.slot], now, "died", True)
                if call.slot in toys.where:
                    toys.lose(call.slot, random)
            else:
                toys.sums[call.slot] += call.items
                recovery.computed(call)
                if last:
                    covered = [item for done in recovery.handed_over(call.slot) for item in done.items]
                    assert sorted(covered) == sorted(toys.sums[call.slot])
                    got += covered
                    toys.sums[call.slot] = []
        now += 5
        if not any(node in toys.alive for node in toys.where.values()):
            toys.alive.add("late")
            toys.where[0] = node_of[0] = "late"  # room comes at last
        ready = [slot for slot, node in toys.where.items() if node in toys.alive]
        strays: list[Call] = []
        for slot in sorted(recovery.deaths):
            action = recovery.step(slot, ready, toys.alive, now)
            assert action is not Action.GIVE_UP
            if action is Action.RETRY:
                dispatch.put(recovery.take(slot))
            elif action is Action.MOVE:
                strays += recovery.take(slot)
        dispatch.put(moved(strays, ready, lambda item: 1))
    assert sorted(got) == list(range(items))
