"""A part of what stays: who has what of it, herding by hand, and that a method sees nothing of the rest."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fused_ray.config import RunConfig
from fused_ray.config.parts.methods import METHODS
from fused_ray.core import herding, state
from fused_ray.core.methods import fedavg, fedup
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation
from fused_ray.core.work import round_bits
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError, FusedRayError
from fused_ray.types import Remaining, Scenario

# --- who has what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "of_43", "of_2"), [(0.5, 22, 1), (0.1, 4, 1), (0.01, 1, 1), (1.0, 43, 2)])
def test_the_nearest_whole_number_and_at_least_one(share: float, of_43: int, of_2: int) -> None:
    some = Remaining(share, 0)
    assert (some.count(43), some.count(2), some.count(0)) == (of_43, of_2, 0)


def test_each_client_keeps_a_part_of_what_stays(scenario: Scenario) -> None:
    found = {share: scenario.parts(Remaining(share, 0)) for share in (1.0, 0.5, 0.1, 0.05)}
    assert np.array_equal(found[1.0].indices, scenario.retained.indices)
    for client, kept in enumerate(scenario.retained):
        parts = [{*part[client].tolist()} for part in found.values()]
        assert [len(part) for part in parts] == [Remaining(share, 0).count(len(kept)) for share in found]
        assert all(smaller <= larger for larger, smaller in itertools.pairwise(parts))
        assert (np.diff(found[0.5][client]) > 0).all()
    assert not np.array_equal(found[0.5].indices, scenario.parts(Remaining(0.5, 1)).indices)


def test_all_that_must_go_may_be_there_as_well(scenario: Scenario) -> None:
    few, more = Remaining(0.3, 0), Remaining(0.3, 0, forgotten=True)
    for client in range(5):
        expected = np.union1d(scenario.examples(few, client), scenario.forgotten(client))
        assert np.array_equal(scenario.examples(more, client), expected)
    assert scenario.clients(few) == scenario.clients("retained")


def test_all_of_it_is_what_it_always_was(make_config: Callable[..., RunConfig]) -> None:
    assert [used(make_config(), on) for on in ("held", "retained")] == ["held", "retained"]
    some = make_config("unlearn.retain=0.1", "unlearn.retain_by=herding", "seed=3")
    assert used(some, "retained") == Remaining(0.1, 3, herding=True)
    assert used(some, "held") == Remaining(0.1, 3, herding=True, forgotten=True)


def test_the_scale_of_a_round_is_that_of_its_examples(scenario: Scenario) -> None:
    train = RunConfig().train
    some = FullTraining("unlearn", 1, 0, train, Remaining(0.001, 0))
    assert round_bits(some, scenario) != round_bits(FullTraining("unlearn", 1, 0, train, "retained"), scenario)


# --- herding ---------------------------------------------------------------------------------------------


def test_the_order_by_hand() -> None:
    """The mean of 0, 2, 3, 7 is 3: first 3; then 2 (2.5 is nearest to 3); then 7, which makes 4; then 0."""
    features = np.array([[0.0], [2.0], [3.0], [7.0]])
    assert herding.herding_order(features, 4).tolist() == [2, 1, 3, 0]
    assert herding.herding_order(features, 1).tolist() == [2]


def test_each_class_has_its_share() -> None:
    assert herding.apportioned(np.array([6, 3, 1]), 5).tolist() == [3, 2, 0]  # 3, 1.5 and .5: of equals the first
    assert herding.apportioned(np.array([5, 5]), 10).tolist() == [5, 5]
    assert herding.apportioned(np.array([1, 1, 8]), 1).tolist() == [0, 0, 1]


def test_the_mean_of_the_chosen_is_nearer_than_that_of_any_draw() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 3)), np.zeros(60, np.int64)
    mean = features.mean(0)
    chosen = herding.herd(features, labels, 10)
    drawn = [random.choice(60, 10, replace=False) for _ in range(200)]
    away = np.linalg.norm(features[chosen].mean(0) - mean)
    assert away < min(np.linalg.norm(features[rows].mean(0) - mean) for rows in drawn)


def test_as_many_are_herded_as_are_drawn(make_config: Any, data: Any, scenario: Scenario) -> None:
    config = make_config("unlearn.retain=0.2", "unlearn.retain_by=herding")
    space = Workspace(config, data, scenario)
    start = state.flatten(fedavg.initial(Federation(config, data, scenario, None, None), "pretrain"))  # type: ignore[arg-type]
    space.install(start)
    for on in ("retained", "held"):
        some = used(config, on)  # type: ignore[arg-type]
        work = FullTraining("unlearn", 1, 0, config.train, some)
        rows = work.rows(space, 3)
        assert len(rows) == len(work.indices(scenario, 3))
        assert not np.array_equal(rows, work.indices(scenario, 3))
        assert {*rows.tolist()} <= {*scenario.examples(on, 3).tolist()}  # type: ignore[arg-type]
        assert {*scenario.forgotten(3).tolist()} <= {*rows.tolist()} or on == "retained"
        assert (np.diff(rows) > 0).all()
        each = [scenario.train_labels[work.rows(space, client)] for client in range(5)]
        # of each class its share, as it is not where they are drawn
        assert herding.counts(scenario, some, 4).tolist() == [np.bincount(own, minlength=4).tolist() for own in each]
        sent = [int(np.ceil(0.8 * np.bincount(own)).sum()) for own in each if len(own)]
        assert fedup.numbers(scenario, some, 4, 0.8).tolist() == sent
    # another base has other features
    other = dataclasses.replace(start, values=-start.values)
    space.install(other)
    assert not np.array_equal(rows, work.rows(space, 3))


class Reading(nn.Module):
    """Reads its output layer's weight, and has a layer behind it that nothing depends on."""

    def __init__(self, shape: tuple[int, int, int], classes: int, called: bool) -> None:
        super().__init__()
        self.called, self.out, self.idle = called, nn.Linear(784, classes), nn.Linear(classes, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.flatten(1)
        found: torch.Tensor = self.out(z) if self.called else nn.functional.linear(z, self.out.weight, self.out.bias)
        self.idle(found)
        return found


def test_features_are_what_the_logits_come_from(
    make_config: Any, data: Any, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("reading_model")
    module.__dict__["Reading"] = Reading
    monkeypatch.setitem(sys.modules, "reading_model", module)

    def chosen(called: bool) -> Any:
        own = ("model.factory=reading_model:Reading", f"model.args={{called: {str(called).lower()}}}")
        config = make_config("unlearn.retain=0.2", "unlearn.retain_by=herding", *own)
        space = Workspace(config, data, scenario)
        space.install(state.read(space.model))
        return herding.chosen(space, used(config, "retained"), 3)  # type: ignore[arg-type]

    kept = scenario.retained[3]
    pixels = data.train_images[kept].reshape(len(kept), -1)
    expected = herding.herd(pixels.astype(np.float64), scenario.train_labels[kept], len(chosen(called=True)))
    assert np.array_equal(chosen(called=True), kept[expected])
    with pytest.raises(
        ConfigError, match=r"the layer out is given, and .* does not .*: take unlearn\.retain_by=random"
    ):
        chosen(called=False)


# --- which methods ---------------------------------------------------------------------------------------


def test_retraining_from_a_part_is_not_the_standard(make_config: Any) -> None:
    config = make_config("unlearn.method=retrain", "unlearn.retain=0.5", "retrain.rounds=2")
    assert not config.retrains
    assert make_config("unlearn.method=retrain").retrains
    assert config.retrain_key() == make_config("unlearn.method=retrain", "retrain.rounds=2").retrain_key()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.little])
def test_who_makes_no_use_of_a_part_says_so(name: str) -> None:
    fields = [f"unlearn.method={name}", "forget.scenario=client", "unlearn.retain=0.5"]
    with pytest.raises(FusedRayError, match=rf"unlearn\.retain: {name} makes no use of a part of what stays; leave it"):
        RunConfig.from_dict({}, fields)


def test_which_methods_these_are() -> None:
    assert [name for name, method in METHODS.items() if not method.little] == ["exactfun", "ridge", "fedsgt"]
