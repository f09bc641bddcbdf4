"""FedMemPrune: the ranking by hand, what is drawn anew, and what the server makes of its first round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fused_ray.core import state
from fused_ray.core.methods import fedavg, fedmemprune
from fused_ray.core.rounds import Federation
from fused_ray.core.server import check_memory
from fused_ray.errors import ConfigError

DELTA = np.array([0.5, -0.01, 0.2, 0.03, -0.4])


def test_the_smallest_updates_go() -> None:
    assert fedmemprune.smallest(DELTA, int(0.4 * len(DELTA))).tolist() == [1, 3]
    assert fedmemprune.smallest(DELTA, 0).tolist() == []


def test_dead_units_go_first() -> None:
    assert fedmemprune.smallest(np.array([0.1, 0, 0.1, 0, -0.2]), 3).tolist() == [0, 1, 3]


def test_every_client_counts_alike() -> None:
    updates = [np.array(update, np.float32) for update in ([1, 0], [0, 0], [2, 3])]
    assert fedmemprune.plain_mean(updates).tolist() == [1, 1]


def test_what_is_drawn_anew() -> None:
    conv = fedmemprune.Tensor("conv.weight", (50, 6, 2, 2), 0)
    found = fedmemprune.drawn(0, conv, "uniform")
    assert np.abs(found).max() == pytest.approx(0.5, abs=0.01)  # sqrt(6 / 24)
    assert found.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.05)
    assert abs(found.mean()) < 0.03
    bias = fedmemprune.Tensor("conv.bias", (500,), 0)
    assert 0.09 < np.abs(fedmemprune.drawn(0, bias, "uniform")).max() <= 0.1
    assert not fedmemprune.drawn(0, bias, "zero").any()
    assert np.array_equal(fedmemprune.drawn(0, conv, "zero"), found)
    assert not np.array_equal(fedmemprune.drawn(1, conv, "uniform"), found)


@pytest.fixture(scope="module")
def ended(federate: Callable[..., Federation], pretrained: Any) -> tuple[Federation, Any, Any]:
    federation = federate("unlearn.method=fedmemprune", "fedmemprune.share=0.3", "unlearn.rounds=1")
    base = pretrained(federation)
    return federation, base, fedmemprune.unlearn(federation, base)


def test_normalisation_buffers_and_frozen_values_are_not_ranked(ended: Any) -> None:
    federation, base, _ = ended
    tensors = fedmemprune.ranked(federation, base)
    assert [tensor.name for tensor in tensors] == ["conv.bias", "conv.weight", "fc.bias", "fc.weight"]
    values = state.flatten(base).values
    for tensor in tensors:
        assert np.array_equal(values[tensor.positions], base[tensor.name].ravel())


def test_the_first_round_by_separate_updates(ended: Any, space_of: Any) -> None:
    federation, base, found = ended
    space, start = space_of(federation), state.flatten(base)
    work = fedavg.FullTraining("unlearn", 1, 0, federation.config.train, "retained")
    updates = [work.update(space, start, client).payload.values.astype(np.float64) for client in (0, 2, 4)]
    expected = np.mean(updates, axis=0)
    after = federation.recorder.rounds["unlearn", 1].payload.values
    tensors = fedmemprune.ranked(federation, base)
    places = np.concatenate([tensor.positions for tensor in tensors])
    order = places[np.argsort(np.abs(expected - start.values)[places], kind="stable")]
    count = int(0.3 * len(places))
    assert found.figures == {"drawn_anew": count}
    kept = np.setdiff1d(state.parameters(space.model), order[:count])
    assert np.allclose(after[kept], expected[kept], rtol=0, atol=1e-7)
    for tensor in tensors:
        gone = np.intersect1d(tensor.positions, order[:count])
        assert np.array_equal(after[gone], fedmemprune.drawn(0, tensor, "uniform")[gone - tensor.start])


def test_a_share_of_one_draws_everything_anew(federate: Any, pretrained: Any) -> None:
    federation = federate("unlearn.method=fedmemprune", "fedmemprune.share=1", "unlearn.rounds=0")
    base = pretrained(federation)
    found = fedmemprune.unlearn(federation, base)
    for tensor in fedmemprune.ranked(federation, base):
        assert np.array_equal(found.state[tensor.name].ravel(), fedmemprune.drawn(0, tensor, "uniform"))


def test_it_forgets_classes_too(federate: Any, pretrained: Any, scenario: Any) -> None:
    federation = federate(
        "unlearn.method=fedmemprune", "forget.scenario=class", "fedmemprune.vectors=zero", on=scenario
    )
    found = fedmemprune.unlearn(federation, pretrained(federation))
    assert found.metrics["fa"] < 0.5 < found.start_metrics["fa"]


def test_updates_that_do_not_fit_are_refused(make_config: Any) -> None:
    config = make_config("unlearn.method=fedmemprune", "engine.aggregate_memory_mb=1")
    check_memory(config, 10_000)
    with pytest.raises(ConfigError, match=r"unlearn\.method: fedmemprune needs every update at once, 20 clients"):
        check_memory(config, 20_000)
