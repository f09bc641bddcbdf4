"""FedSGT: sequences by hand, deletions by enumeration, and what serves has the bits of one that never had the data."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fused_ray.config import RunConfig
from fused_ray.core import methods, state
from fused_ray.core.methods import fedsgt
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.wire import values_bytes
from fused_ray.errors import ConfigError, FusedRayError

A, B, C = 0, 1, 2
ORDERS = [[A, B, C], [C, A, B]]


def test_by_hand_three_groups_in_two_orders() -> None:
    assert fedsgt.turned([A, B, C], 2) == ORDERS
    assert fedsgt.left(ORDERS, {B}) == [1, 2]
    assert fedsgt.best(ORDERS, {B}) == (1, 2)
    assert ORDERS[1][:2] == [C, A]
    assert fedsgt.left(ORDERS, {A}) == [0, 1]
    assert fedsgt.best(ORDERS, {A}) == (1, 1)
    assert fedsgt.left(ORDERS, {C}) == [2, 0]
    assert fedsgt.best(ORDERS, {C}) == (0, 2)
    assert fedsgt.best(ORDERS, set()) == (0, 3)
    # after A has gone, C takes the last one
    with pytest.raises(ConfigError, match=r"2 of 3 groups hold what must .* take unlearn\.method=retrain"):
        fedsgt.best(ORDERS, {A, C})


@pytest.mark.parametrize(("sequences", "expected"), [(1, 2), (2, 8 / 3), (3, 3)])
def test_deletions_that_are_served_in_the_mean(sequences: int, expected: float) -> None:
    """Over all orders in which three groups may go, when the last sequence dies."""
    orders = fedsgt.turned([A, B, C], sequences)
    lasts = []
    for gone in itertools.permutations((A, B, C)):
        lasts.append(next(n for n in range(1, 4) if not any(fedsgt.left(orders, set(gone[:n])))))
    assert np.mean(lasts) == pytest.approx(expected)
    assert fedsgt.deletions(3, sequences) == pytest.approx(expected)


def test_a_clients_data_fall_into_as_many_groups_as_they_may(gone: Any) -> None:
    for spread in (1, 2, 3):
        groups = fedsgt.dealt(gone, 3, spread, 0)
        for client in range(5):
            own = [group[client] for group in groups]
            assert sorted(np.concatenate(own).tolist()) == gone.held[client].tolist()
            sizes = sorted(len(part) for part in own if len(part))
            assert len(sizes) == spread
            assert sizes[-1] - sizes[0] <= 1
    assert len({tuple(map(len, map(np.concatenate, fedsgt.dealt(gone, 3, 1, seed)))) for seed in range(9)}) > 1
    with pytest.raises(ConfigError, match=r"fedsgt\.groups: 5 clients do not fill 6 groups"):
        fedsgt.dealt(gone, 6, 1, 0)


def test_a_modules_places_are_its_entries(based: Any) -> None:
    _, _, begun = based
    module = fedsgt.random_masks(0, begun, ["conv", "fc"], 0.3)
    values = state.flatten(begun).values.copy()
    values[fedsgt.places(begun, module)] += 1
    changed = module.apply(begun, np.ones(module.size, np.float32))
    assert np.array_equal(values, state.flatten(changed).values)


SETTINGS = ("unlearn.method=fedsgt", "fedsgt.groups=3", "fedsgt.sequences=3", "fedsgt.rounds=2")


@pytest.fixture(scope="module")
def based(federate: Callable[..., Federation], data: Any, recorder: Any) -> tuple[Callable[..., Any], Any, Any]:
    """`unlearned(scenario, data)`; the federation that it was, and what training begins with."""
    first = federate(*SETTINGS)
    begun = fedsgt.initial(first, "pretrain")

    def make(on: Any, pictures: Any = data) -> tuple[Federation, Any]:
        pool = LocalPool(first.config, pictures, on)
        federation = Federation(first.config, pictures, on, pool, recorder())
        pool.install(state.flatten(begun))
        return federation, methods.unlearn(federation, begun)

    return make, first, begun


@pytest.fixture(scope="module")
def ended(based: Any, gone: Any) -> tuple[Federation, Any]:
    made: tuple[Federation, Any] = based[0](gone)
    return made


def test_what_serves_has_the_very_bits_of_one_that_never_saw_the_data(
    based: Any, ended: Any, gone: Any, data: Any
) -> None:
    unlearned, _, begun = based
    federation, found = ended
    images = data.train_images.copy()
    lost = gone.gone.indices
    images[lost] = 255 - images[lost]
    elsewhere, other = unlearned(gone, dataclasses.replace(data, train_images=images))
    assert state.state_hash(found.state) == state.state_hash(other.state)
    whole = [one.recorder.saved["sequence-1"].payload.values for one in (federation, elsewhere)]
    assert not np.array_equal(*whole)  # the model before did see them
    assert state.state_hash(found.state) != state.state_hash(begun)
    assert 0 < found.figures["modules_on"] < 3


def test_a_module_trains_its_entries_alone_on_its_group(ended: Any, based: Any, gone: Any) -> None:
    federation, found = ended
    _, _, begun = based
    order = fedsgt.turned(fedsgt.permutation(3, 0, "fedsgt/order").tolist(), 3)[0]
    groups = fedsgt.dealt(gone, 3, 1, 0)
    before = state.flatten(begun).values
    for position, group in enumerate(order):
        inside = fedsgt.places(begun, fedsgt.random_masks(0, begun, ["conv", "fc"], 0.2, position))
        after = federation.recorder.rounds["sequence-1", 2 * position + 2].payload.values
        moved = np.flatnonzero(after != before)
        assert len(moved)
        assert set(moved) <= set(inside)
        before = after
        (record,) = (r for r in federation.recorder.records if (r.phase, r.round) == ("sequence-1", 2 * position + 1))
        assert record.clients_used == np.count_nonzero(groups[group].sizes)
    values = len(inside)
    rows = [r for r in federation.recorder.records if r.phase == "sequence-1"]
    assert [r.bytes_up for r in rows] == [values_bytes(values)] * 6
    assert [r.bytes_down for r in rows] == [values_bytes(n * values) for n in (0, 1, 1, 1, 2, 1)]
    assert sorted(client for r in federation.recorder.records for client in r.once) == [0, 1, 2, 3, 4]  # the base
    assert found.storage_bytes == 4 * 9 * values
    assert found.figures["expected_deletions"] == 3
    assert found.before == federation.recorder.rounds["sequence-1", 6].metrics
    assert not math.isclose(found.before["ra"], found.start_metrics["ra"])


def test_the_modules_learn(ended: Any) -> None:
    _, found = ended
    assert found.before["ra"] > found.start_metrics["ra"] + 0.1


def test_a_request_that_leaves_nothing_is_refused_before_anything_is_trained(based: Any, gone: Any) -> None:
    unlearned, _, _ = based
    most = dataclasses.replace(gone, retained=tuple(part[1:] for part in gone.held))
    with pytest.raises(ConfigError, match="fedsgt has nothing left to serve"):
        unlearned(most)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(FusedRayError, match="5 groups have no more different first ones"):
        RunConfig.from_dict({}, ["fedsgt.groups=5", "fedsgt.sequences=6"])
    with pytest.raises(FusedRayError, match=r"cannot do the scenario 'class'; .*: a class lies in every group"):
        RunConfig.from_dict({}, ["unlearn.method=fedsgt", "forget.scenario=class"])
