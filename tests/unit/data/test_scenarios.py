"""Scenarios by hand on tiny data, and as properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_ray.config import RunConfig
from fused_ray.data.partitions import digest
from fused_ray.data.scenarios import build
from fused_ray.errors import DataError
from fused_ray.types import ImageData


def toy(train: Any, test: Any) -> ImageData:
    def pixels(n: int) -> Any:
        return np.zeros((n, 1, 2, 2), np.uint8)

    labels, test_labels = np.asarray(train, np.int64), np.asarray(test, np.int64)
    return ImageData("toy", 10, (0.0,), (1.0,), pixels(len(labels)), labels, pixels(len(test_labels)), test_labels)


def configure(clients: int, seed: int = 0, data: dict[str, Any] | None = None, **forget: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "seed": seed,
            "data": {"min_examples": 1, **(data or {})},
            "federation": {"clients": clients},
            "forget": forget,
        }
    )


TEN_EACH = np.repeat(np.arange(10), 10)


def test_class_by_hand() -> None:
    data = toy([0, 1, 2, 0, 1, 2], [2, 0, 1, 0])
    scenario = build(configure(1, scenario="class", classes=[0, 2]), data)
    assert [part.tolist() for part in scenario.held] == [[0, 1, 2, 3, 4, 5]]
    assert [part.tolist() for part in scenario.retained] == [[1, 4]]
    assert scenario.forgotten(0).tolist() == [0, 2, 3, 5]
    assert scenario.views["ra"].indices.tolist() == [2]
    assert scenario.views["ra"].labels.tolist() == [1]
    assert scenario.views["fa"].indices.tolist() == [0, 1, 3]
    assert scenario.views["fa"].labels.tolist() == [2, 0, 0]
    assert scenario.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert scenario.partition_sha256 == digest(scenario.held)


@pytest.mark.parametrize("owner", [0, 2, 3])
def test_exclusive_by_hand(owner: int) -> None:
    data = toy(TEN_EACH, np.arange(10))
    config = configure(4, scenario="exclusive", classes=[3, 7], owner=owner, overlap=0.75)
    scenario = build(config, data)
    own = TEN_EACH[scenario.held[owner]]
    assert np.bincount(own, minlength=10).tolist() == [0, 0, 0, 10, 0, 0, 0, 7, 0, 0]  # floor(0.75 x 10)
    assert len(scenario.retained[owner]) == 0
    assert scenario.forgotten(owner).tolist() == scenario.held[owner].tolist()
    others = [client for client in range(4) if client != owner]
    for client in others:
        assert scenario.retained[client].tolist() == scenario.held[client].tolist()
        assert 3 not in TEN_EACH[scenario.held[client]]
    assert sum((TEN_EACH[scenario.held[client]] == 7).sum() for client in others) == 3
    assert {name: view.indices.tolist() for name, view in scenario.views.items()} == {
        "ra": [0, 1, 2, 4, 5, 6, 8, 9],
        "fa": [3],
        "ca": [7],
    }


@settings(max_examples=40, deadline=None)
@given(
    scenario=st.sampled_from(["class", "exclusive"]),
    kind=st.sampled_from(["iid", "dirichlet", "pathological"]),
    clients=st.integers(6, 12),
    seed=st.integers(0, 2**63 - 1),
    overlap=st.floats(0.01, 0.99),
)
def test_nothing_is_lost_or_held_twice(scenario: str, kind: str, clients: int, seed: int, overlap: float) -> None:
    data = toy(np.repeat(np.arange(10), 20), np.repeat(np.arange(10), 3))
    config = configure(clients, seed, {"partition": kind}, scenario=scenario, overlap=overlap, owner=clients - 1)
    built = build(config, data)
    assert len(built.held) == len(built.retained) == clients
    assert sorted(np.concatenate(built.held).tolist()) == list(range(200))
    for client in range(clients):
        assert built.held[client].dtype == built.retained[client].dtype == np.int64
        assert (np.diff(built.held[client]) > 0).all()
        assert (np.diff(built.retained[client]) > 0).all()
        both = np.concatenate([built.retained[client], built.forgotten(client)])
        assert sorted(both.tolist()) == built.held[client].tolist()
    seen = np.concatenate([view.indices for view in built.views.values()])
    assert sorted(seen.tolist()) == list(range(30))  # each test image is in exactly one view
    assert all(np.array_equal(view.labels, data.test_labels[view.indices]) for view in built.views.values())
    again = build(config, data)
    assert again.partition_sha256 == built.partition_sha256


def test_the_owner_is_not_bound_by_the_smallest_size() -> None:
    labels = [0] * 40 + [1] * 2 + [2] * 20
    config = configure(3, data={"min_examples": 10}, scenario="exclusive", classes=[1, 2], overlap=0.1)
    scenario = build(config, toy(labels, [0, 1, 2]))
    assert len(scenario.held[0]) == 4
    assert min(len(part) for part in scenario.held[1:]) >= 10


def test_nothing_to_forget_or_to_keep_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to forget"):
        build(configure(2, scenario="class", classes=[5]), toy([0, 1, 2, 3], [0, 5]))
    with pytest.raises(DataError, match="nothing would be kept"):
        build(configure(2, scenario="class", classes=[0, 1]), toy([0, 1, 0, 1], [0, 5]))


def test_a_metric_without_test_images_is_refused() -> None:
    with pytest.raises(DataError, match="to measure fa on"):
        build(configure(2, scenario="class", classes=[0]), toy([0, 1, 0, 1], [1, 1]))
