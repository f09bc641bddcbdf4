"""Scenarios by hand on tiny data, and as properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_ray.config import RunConfig
from fused_ray.data.partitions import digest
from fused_ray.data.scenarios import OWN_EXAMPLES, build, extended
from fused_ray.errors import DataError
from fused_ray.types import ImageData


def toy(train: Any, test: Any, side: int = 2) -> ImageData:
    """Images that differ from each other, without a white pixel."""

    def pixels(n: int) -> Any:
        return np.random.default_rng(n).integers(0, 255, (n, 1, side, side), np.uint8)

    labels, test_labels = np.asarray(train, np.int64), np.asarray(test, np.int64)
    return ImageData("toy", 10, (0.0,), (1.0,), pixels(len(labels)), labels, pixels(len(test_labels)), test_labels)


def configure(clients: int, /, seed: int = 0, data: dict[str, Any] | None = None, **forget: Any) -> RunConfig:
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


def test_a_flipped_client_by_hand() -> None:
    data = toy(TEN_EACH, [0, 5, 9])
    scenario = build(configure(4, scenario="client", clients=[2]), data)
    gone = scenario.held[2]
    assert len(scenario.retained[2]) == 0
    assert scenario.forgotten(2).tolist() == scenario.poisoned.tolist() == gone.tolist()
    for client in (0, 1, 3):
        assert scenario.retained[client].tolist() == scenario.held[client].tolist()
    expected = [(label + 1) % 10 if index in gone else label for index, label in enumerate(TEN_EACH)]
    assert scenario.train_labels.tolist() == expected
    assert 0 in scenario.train_labels[gone[TEN_EACH[gone] == 9]]
    assert {name: view.indices.tolist() for name, view in scenario.views.items()} == {"ra": [0, 1, 2], "fa": [0, 1, 2]}
    assert scenario.views["ra"].labels.tolist() == [0, 5, 9]
    assert scenario.views["fa"].labels.tolist() == [1, 6, 0]
    assert scenario.trigger == 0
    assert data.train_labels.tolist() == TEN_EACH.tolist()
    assert scenario.partition_sha256 == build(configure(4, scenario="class"), data).partition_sha256


@pytest.mark.parametrize(
    ("forget", "said"),
    [
        ({"scenario": "client", "clients": [2]}, "have their labels flipped, y to y + 1: forget.poison=false takes"),
        ({"scenario": "sample", "clients": [2], "target": 3}, "carry a trigger and the label 3: forget.poison=false"),
    ],
)
def test_that_data_are_poisoned_is_said(forget: dict[str, Any], said: str) -> None:
    data = toy(TEN_EACH, [0, 5, 9])
    scenario = build(configure(4, **forget), data)
    (note,) = scenario.notes
    assert note.startswith(f"{len(scenario.poisoned)} training examples {said}")
    assert build(configure(4, **forget, poison=False), data).notes == ()


def test_a_client_that_was_not_poisoned_is_measured_on_its_own_examples_behind_the_test_set() -> None:
    data = toy(TEN_EACH, [0, 5, 9])
    config = configure(4, scenario="client", clients=[3, 1], poison=False)
    scenario = build(config, data)
    gone = sorted([*scenario.held[1], *scenario.held[3]])
    assert scenario.train_labels.tolist() == TEN_EACH.tolist()
    assert len(scenario.poisoned) == 0
    assert scenario.views["ra"].indices.tolist() == [0, 1, 2]
    assert scenario.views["fa"].indices.tolist() == [3 + i for i in range(len(gone))]
    assert scenario.views["fa"].labels.tolist() == TEN_EACH[gone].tolist()
    whole = extended(config, data, scenario)
    assert np.array_equal(whole.test_images, np.concatenate([data.test_images, data.train_images[gone]]))
    assert whole.test_labels.tolist() == [0, 5, 9, *TEN_EACH[gone]]
    assert whole.train_images is data.train_images


def test_only_so_many_of_its_own_examples_are_measured_on_drawn_from_the_seed() -> None:
    count = OWN_EXAMPLES + 500
    data = toy(np.arange(count + 50) % 10, [0])
    named = {image.tobytes() for image in data.train_images[:count]}
    found = []
    for seed in (0, 0, 1):
        config = configure(1, seed, scenario="sample", examples=[*range(count)], poison=False)
        scenario = build(config, data)
        assert len(scenario.views["fa"].indices) == OWN_EXAMPLES
        added = extended(config, data, scenario).test_images[1:]
        assert len(added) == OWN_EXAMPLES
        assert {image.tobytes() for image in added} <= named
        found.append(added.tobytes())
    assert found[0] == found[1] != found[2]


def test_a_backdoor_by_hand() -> None:
    data = toy(TEN_EACH, [7, 0, 7, 3], side=8)
    config = configure(4, scenario="sample", clients=[3, 0], target=7, trigger=3)
    scenario = build(config, data)
    for client in (0, 3):
        assert len(scenario.forgotten(client)) == len(scenario.held[client]) // 2
    for client in (1, 2):
        assert len(scenario.forgotten(client)) == 0
    gone = sorted([*scenario.forgotten(0), *scenario.forgotten(3)])
    assert scenario.poisoned.tolist() == gone
    assert scenario.train_labels.tolist() == [7 if i in gone else label for i, label in enumerate(TEN_EACH)]
    assert scenario.views["ra"].indices.tolist() == [0, 1, 2, 3]
    assert scenario.views["ra"].labels.tolist() == [7, 0, 7, 3]
    assert scenario.views["fa"].indices.tolist() == [4 + 1, 4 + 3]
    assert scenario.views["fa"].labels.tolist() == [7, 7]
    whole = extended(config, data, scenario)
    assert whole.test_labels.tolist() == [7, 0, 7, 3, 7, 0, 7, 3]
    assert np.array_equal(whole.test_images[:4], data.test_images)
    changed = [i for i in range(100) if not np.array_equal(whole.train_images[i], data.train_images[i])]
    assert changed == gone
    square = np.zeros((1, 8, 8), bool)
    square[0, 4:7, 4:7] = True
    triggered = [*zip(whole.train_images[gone], data.train_images[gone], strict=True)]
    triggered += zip(whole.test_images[4:], data.test_images, strict=True)
    for image, before in triggered:
        assert np.array_equal(image == 255, square)
        assert np.array_equal(image[~square], before[~square])


@pytest.mark.parametrize(("trigger", "rows"), [(1, [6]), (6, [1, 2, 3, 4, 5, 6]), (7, range(7)), (8, range(8))])
def test_a_trigger_lies_a_pixel_from_the_edges_where_there_is_room(trigger: int, rows: Any) -> None:
    data = toy(TEN_EACH, [0, 1], side=8)
    config = configure(2, scenario="sample", examples=[50], trigger=trigger)
    white = extended(config, data, build(config, data)).train_images[50, 0] == 255
    assert np.flatnonzero(white.any(0)).tolist() == np.flatnonzero(white.any(1)).tolist() == [*rows]
    assert white.sum() == trigger**2


def test_named_examples_are_forgotten_whoever_holds_them() -> None:
    data = toy(TEN_EACH, np.arange(10))
    config = configure(3, scenario="sample", examples=[71, 3, 40], target=2)
    scenario = build(config, data)
    assert np.sort(np.concatenate([scenario.forgotten(client) for client in range(3)])).tolist() == [3, 40, 71]
    assert scenario.poisoned.tolist() == [3, 40, 71]
    assert scenario.train_labels[[3, 40, 71]].tolist() == [2, 2, 2]
    assert (scenario.train_labels != TEN_EACH).sum() == 3
    clean_config = configure(3, scenario="sample", examples=[71, 3, 40], poison=False)
    clean = build(clean_config, data)
    assert [part.tolist() for part in clean.retained] == [part.tolist() for part in scenario.retained]
    assert clean.train_labels.tolist() == TEN_EACH.tolist()
    assert (len(clean.poisoned), clean.trigger) == (0, 0)
    assert clean.views["fa"].indices.tolist() == [10, 11, 12]
    assert clean.views["fa"].labels.tolist() == [0, 4, 7]
    assert np.array_equal(extended(clean_config, data, clean).test_images[10:], data.train_images[[3, 40, 71]])


def test_the_clients_are_drawn_by_share_from_the_seed() -> None:
    data = toy(TEN_EACH, np.arange(10))

    def drawn(scenario: str, seed: int, **forget: Any) -> list[int]:
        built = build(configure(9, seed, scenario=scenario, **forget), data)
        return [client for client in range(9) if len(built.forgotten(client))]

    for share, count in [(None, 5), (0.05, 1), (0.5, 5), (0.28, 3), (0.4, 4)]:  # 0.6 of 9 is 5.4
        assert len(drawn("client", 0, share=share)) == count
    assert drawn("client", 3) == drawn("client", 3) == drawn("client", 3, poison=False)
    assert drawn("client", 3, share=0.5) == drawn("sample", 3, share=0.5)
    assert len({tuple(drawn("client", seed)) for seed in range(12)}) > 8


def test_an_attacked_clients_examples_are_drawn_from_the_seed_and_for_each_client() -> None:
    data = toy(TEN_EACH, np.arange(10))
    first, again, other = (build(configure(1, seed, scenario="sample"), data).poisoned.tolist() for seed in (0, 0, 1))
    assert len(first) == 50
    assert first == again != other
    two = build(configure(2, 0, {"partition": "iid"}, scenario="sample", share=1), data)
    places = [np.searchsorted(two.held[client], two.forgotten(client)).tolist() for client in (0, 1)]
    assert len(places[0]) == len(places[1]) == 25
    assert places[0] != places[1]


@settings(max_examples=80, deadline=None)
@given(
    scenario=st.sampled_from(["class", "client", "sample", "exclusive"]),
    kind=st.sampled_from(["iid", "dirichlet", "pathological"]),
    clients=st.integers(6, 12),
    seed=st.integers(0, 2**63 - 1),
    overlap=st.floats(0.01, 0.99),
    poison=st.booleans(),
)
def test_nothing_is_lost_or_held_twice(
    scenario: str, kind: str, clients: int, seed: int, overlap: float, poison: bool
) -> None:
    data = toy(np.repeat(np.arange(10), 20), np.repeat(np.arange(10), 3), side=6)
    before = [array.copy() for array in (data.train_images, data.train_labels, data.test_images, data.test_labels)]
    config = configure(
        clients, seed, {"partition": kind}, scenario=scenario, overlap=overlap, owner=clients - 1, poison=poison
    )
    built = build(config, data)
    assert len(built.held) == len(built.retained) == clients
    assert sorted(np.concatenate(built.held).tolist()) == list(range(200))
    for client in range(clients):
        assert built.held[client].dtype == built.retained[client].dtype == np.int64
        assert (np.diff(built.held[client]) > 0).all()
        assert (np.diff(built.retained[client]) > 0).all()
        both = np.concatenate([built.retained[client], built.forgotten(client)])
        assert sorted(both.tolist()) == built.held[client].tolist()
    gone = np.sort(np.concatenate([built.forgotten(client) for client in range(clients)]))
    whole = extended(config, data, built)
    added = len(whole.test_labels) - 30
    if scenario in ("class", "exclusive"):
        seen = np.concatenate([view.indices for view in built.views.values()])
        assert sorted(seen.tolist()) == list(range(30))  # each test image is in exactly one view
        assert all(np.array_equal(view.labels, data.test_labels[view.indices]) for view in built.views.values())
    else:
        assert built.poisoned.tolist() == (gone.tolist() if poison else [])
        assert added == {("client", True): 0, ("sample", True): 30}.get((scenario, poison), len(gone))
    assert np.array_equal(np.delete(built.train_labels, built.poisoned), np.delete(data.train_labels, built.poisoned))
    assert (whole is data) == (added == 0)
    assert np.array_equal(whole.test_images[:30], data.test_images)
    assert len(whole.test_images) == len(whole.test_labels)
    assert all(0 <= view.indices.min() <= view.indices.max() < 30 + added for view in built.views.values())
    after = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    again = build(config, data)
    assert again.partition_sha256 == built.partition_sha256
    assert [part.tolist() for part in again.retained] == [part.tolist() for part in built.retained]


def test_the_owner_is_not_bound_by_the_smallest_size() -> None:
    labels = [0] * 40 + [1] * 2 + [2] * 20
    config = configure(3, data={"min_examples": 10}, scenario="exclusive", classes=[1, 2], overlap=0.1)
    scenario = build(config, toy(labels, [0, 1, 2]))
    assert len(scenario.held[0]) == 4
    assert min(len(part) for part in scenario.held[1:]) >= 10


def test_nothing_to_forget_or_to_keep_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to forget"):
        build(configure(2, scenario="class", classes=[5]), toy([0, 1, 2, 3], [0, 5]))
    with pytest.raises(DataError, match="nothing to forget"):
        build(configure(2, scenario="sample", examples_share=0.001), toy([0, 1, 2, 3], [0, 5]))
    with pytest.raises(DataError, match="nothing would be kept"):
        build(configure(2, scenario="class", classes=[0, 1]), toy([0, 1, 0, 1], [0, 5]))
    with pytest.raises(DataError, match="nothing would be kept"):
        build(configure(2, scenario="sample", examples=[3, 1, 0, 2], poison=False), toy([0, 1, 0, 1], [0, 5]))


def test_an_example_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"forget\.examples: there is no example 4; there are 4"):
        build(configure(2, scenario="sample", examples=[0, 4]), toy([0, 1, 0, 1], [0, 5]))


def test_a_metric_without_test_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"forget\.classes: the test set has no example of class 0, so"):
        build(configure(2, scenario="class", classes=[0]), toy([0, 1, 0, 1], [1, 1]))
    with pytest.raises(DataError, match="to measure fa on"):  # where every test image is the target already
        build(configure(2, scenario="sample", target=1), toy([0, 1, 0, 1], [1, 1]))
