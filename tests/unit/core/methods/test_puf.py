from __future__ import annotations

import numpy as np
import pytest

from fused_ray.core import state
from fused_ray.core.methods import fedavg, puf

W = np.ones(2, np.float32)
DELTAS = [np.array(delta, np.float32) for delta in ([0.1, 0], [0, 0.2], [0.05, -0.1])]


def test_the_plain_mean_of_scaled_updates_is_the_formula():
    regular = [puf.scale(W, W + delta, factor) for delta, factor in zip(DELTAS, (1, 1, -20), strict=True)]
    assert np.average(regular, axis=0, weights=[30, 10, 10]) == pytest.approx([0.86, 1.44], abs=1e-5)
    assert puf.scale(W, W + DELTAS[2], -2) == pytest.approx([0.9, 1.2], abs=1e-6)


def test_a_client_that_is_not_scaled_returns_what_it_trained():
    random = np.random.default_rng(0)
    w, trained = (random.normal(size=1000).astype(np.float32) for _ in range(2))
    assert puf.scale(w, trained, 1.0).tobytes() == trained.tobytes()


@pytest.mark.parametrize(("variant", "eta"), [("regular", 20.0), ("special", 2.0)])
def test_round_1_is_the_formula_over_separate_updates(federate, pretrained, gone, targets, space_of, variant, eta):
    federation = federate(
        "unlearn.method=puf", f"puf.variant={variant}", "unlearn.rounds=1", "train.local_epochs=2", "train.lr=0.005"
    )
    base = pretrained(federation)
    puf.unlearn(federation, base)
    found = federation.recorder.rounds["unlearn", 1].payload
    config, space, w = federation.config, space_of(federation), state.flatten(base)
    one_epoch = config.train.model_copy(update={"local_epochs": 1})
    work = fedavg.FullTraining("unlearn", 1, config.seed, one_epoch, "held")
    clients = range(5) if variant == "regular" else targets
    n = sum(len(gone.held[client]) for client in clients)
    expected = w.values.astype(np.float64)
    for client in clients:
        delta = work.update(space, w, client).payload.values.astype(np.float64) - w.values
        expected += len(gone.held[client]) / n * delta * (-eta if client in targets else 1)
    inside = state.parameters(space.model)
    assert np.allclose(found.values[inside], expected[inside], rtol=1e-5, atol=1e-6)
    buffers = np.setdiff1d(np.arange(len(w.values)), inside)
    assert np.array_equal(found.values[buffers], w.values[buffers])
    assert np.array_equal(found.counters, w.counters)


def test_without_recovery_the_first_round_is_all(federate, pretrained):
    federation = federate("unlearn.method=puf", "unlearn.rounds=0", "train.lr=0.005")
    found = puf.unlearn(federation, pretrained(federation))
    assert [(r.phase, r.round) for r in federation.recorder.records[2:]] == [("unlearn", 1)]
    assert found.metrics == federation.recorder.saved["unlearn"].metrics
