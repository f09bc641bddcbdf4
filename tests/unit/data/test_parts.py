"""Who holds what, as two arrays for all clients."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_ray.types import Parts, Scenario


def v(*values: int) -> Any:
    return np.array(values, np.int64)


PARTS = Parts.of((v(0, 3, 4), v(), v(1, 2, 5)))
HELD = st.lists(st.lists(st.integers(0, 20), unique=True, max_size=6).map(sorted), min_size=1, max_size=6)


def lists(parts: Any) -> list[list[int]]:
    return [part.tolist() for part in parts]


def test_it_is_a_sequence_of_each_clients_indices() -> None:
    assert (PARTS.indices.tolist(), PARTS.offsets.tolist()) == ([0, 3, 4, 1, 2, 5], [0, 3, 3, 6])
    assert len(PARTS) == 3
    assert lists(PARTS) == [[0, 3, 4], [], [1, 2, 5]]
    assert (PARTS[0].tolist(), PARTS[-1].tolist(), lists(PARTS[1:])) == ([0, 3, 4], [1, 2, 5], [[], [1, 2, 5]])
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            PARTS[beyond]
    assert Parts.of(PARTS) is PARTS
    assert lists(Parts.of(())) == []


def test_sizes_and_owners() -> None:
    assert PARTS.sizes.tolist() == [3, 0, 3]
    assert PARTS.owners.tolist() == [0, 0, 0, 2, 2, 2]
    assert lists(Parts.owned(v(0, 2, 2, 0, 0, 2), 3)) == lists(PARTS)
    assert lists(Parts.owned(v(1, 1), 4)) == [[], [0, 1], [], []]


def test_some_of_them() -> None:
    assert lists(PARTS.where(PARTS.indices > 2)) == [[3, 4], [], [5]]
    assert lists(PARTS.take([2, 1, 0, 2])) == [[1, 2, 5], [], [0, 3, 4], [1, 2, 5]]
    assert lists(PARTS.take([])) == []
    assert lists(PARTS.without(Parts.of((v(3), v(1), v(1, 5))))) == [[0, 4], [], [2]]
    assert lists(PARTS.without(Parts.of((v(), v(), v())))) == lists(PARTS)


def test_counts_by_hand() -> None:
    assert PARTS.counts(v(0, 1, 1, 0, 2, 2), 3).tolist() == [[2, 0, 1], [0, 0, 0], [0, 2, 1]]


@given(HELD, st.data())
def test_clients_may_hold_the_same_examples(held: list[list[int]], data: Any) -> None:
    kept = [sorted(data.draw(st.sets(st.sampled_from(own)) if own else st.just(set()))) for own in held]
    parts, others = Parts.of([v(*own) for own in held]), Parts.of([v(*own) for own in kept])
    assert lists(parts.without(others)) == [
        sorted(set(own) - set(stays)) for own, stays in zip(held, kept, strict=True)
    ]
    chosen = data.draw(st.lists(st.integers(0, len(held) - 1)))
    assert lists(parts.take(chosen)) == [held[client] for client in chosen]


def test_a_scenario_of_many_clients_travels_as_a_handful_of_arrays() -> None:
    held = Parts.owned(np.arange(20_000) // 2, 10_000)
    scenario = Scenario(held, held.where(held.indices >= 7), np.zeros(20_000, np.int64), {}, "")
    assert scenario.clients("forgotten") == [0, 1, 2, 3]
    assert scenario.forgotten(3).tolist() == scenario.examples("forgotten", 3).tolist() == [6]
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(scenario, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) < 12
    assert len(content) < 3000
    again = pickle.loads(content, buffers=buffers)
    assert again.held[9_999].tolist() == [19_998, 19_999]
    assert again.retained[3].tolist() == [7]
