from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.shadow import Shadow, train_shadows
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Federation
from fused_ray.core.state import flatten


@pytest.fixture(scope="module")
def trained(world: Any) -> tuple[Federation, list[Shadow]]:
    federation = world("data.limit=200", "federation.clients=3").federation
    return federation, train_shadows(federation, flatten(fedavg.initial(federation, "pretrain")), 2, 2)


def test_each_knows_half_of_every_client(trained: tuple[Federation, list[Shadow]]) -> None:
    federation, shadows = trained
    for shadow in shadows:
        both = np.concatenate([shadow.members, shadow.non_members])
        assert sorted(both.tolist()) == list(range(200))
        for held in federation.scenario.held:
            assert np.isin(held, shadow.members).sum() == (len(held) + 1) // 2
    first, second = shadows
    assert 30 < len(np.intersect1d(first.members, second.members)) < 70  # another draw: about half are in both
    assert not np.array_equal(first.payload.values, second.payload.values)


def test_it_is_federated_averaging_on_that_half(trained: tuple[Federation, list[Shadow]], world: Any) -> None:
    """To the last bit: what it must not know has no influence."""
    federation, shadows = trained
    held = tuple(part[np.isin(part, shadows[1].members)] for part in federation.scenario.held)
    half = replace(
        world("data.limit=200", "federation.clients=3"), scenario=replace(federation.scenario, held=held)
    ).federation
    plain = fedavg.fedavg(half, flatten(fedavg.initial(half, "pretrain")), "shadow-2", "held", 2)
    assert np.array_equal(plain.payload.values, shadows[1].payload.values)


def test_it_goes_on_where_it_stopped(trained: tuple[Federation, list[Shadow]]) -> None:
    federation, shadows = trained
    done = len(federation.recorder.records)  # type: ignore[attr-defined]
    again = train_shadows(federation, flatten(fedavg.initial(federation, "pretrain")), 3, 2)
    assert [r.phase for r in federation.recorder.records[done:]] == ["shadow-3"] * 2  # type: ignore[attr-defined]
    assert np.array_equal(again[0].payload.values, shadows[0].payload.values)
    assert np.array_equal(again[0].members, shadows[0].members)
