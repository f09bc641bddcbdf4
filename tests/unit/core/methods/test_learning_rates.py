"""Whoever trains or replays a round of a schedule has that round's learning rate, and the run's optimiser."""

from __future__ import annotations

import numpy as np
import pytest

from fused_ray.core import state
from fused_ray.core.methods import eraseclient, fedavg, federaser
from fused_ray.core.methods.fedavg import FullTraining

SCHEDULED = ("pretrain.rounds=2", "train.schedule=linear", "train.optimiser=adam", "train.lr=0.01")


def of_round(federation, number, on="held", phase="pretrain"):
    config = federation.config
    train = config.train.model_copy(update={"lr": {1: 0.01, 2: 0.005}[number]})
    return FullTraining(phase, number, config.seed, train, on)


def test_fedavg_trains_at_the_rates_of_its_rounds(federate, space_of, mean, gone):
    federation = federate(*SCHEDULED)
    payload = state.flatten(fedavg.initial(federation, "pretrain"))
    found, space, sizes = fedavg.pretrain(federation, payload), space_of(federation), list(map(len, gone.held))
    for number in (1, 2):
        work = of_round(federation, number)
        payload = mean([work.update(space, payload, client).payload for client in range(5)], sizes, sum(sizes))
    assert found.payload.values.tobytes() == payload.values.tobytes()


def test_a_recovery_counts_its_own_rounds(federate, space_of, mean, gone):
    federation = federate("train.schedule=linear", "train.lr=0.01", "train.optimiser=adam")
    start = state.flatten(fedavg.initial(federation, "pretrain"))
    first = fedavg.Saved(round=1, payload=start, metrics={})
    federation.recorder.saved["unlearn"] = first
    found = fedavg.fedavg(federation, start, "unlearn", "retained", 2, first=1)
    work = FullTraining("unlearn", 2, federation.config.seed, federation.config.train, "retained")
    space, sizes = space_of(federation), list(map(len, gone.retained))
    clients = [client for client, size in enumerate(sizes) if size]
    updates = [work.update(space, start, client).payload for client in clients]
    expected = mean(updates, [sizes[client] for client in clients], sum(sizes))
    assert found.payload.values.tobytes() == expected.values.tobytes()


def test_eraseclients_replay_has_the_rate_of_the_last_round(federate, pretrained, space_of, gone, targets):
    """Without the targets' models the average is that of the others, trained as they were then."""
    federation = federate("unlearn.method=eraseclient", *SCHEDULED)
    base = state.flatten(pretrained(federation))
    found = eraseclient.without_targets(federation, base, targets)
    space, last, work = space_of(federation), federation.recorder.history(1), of_round(federation, 2)
    others = [client for client in range(5) if client not in targets]
    updates = [work.update(space, last, client).payload.values for client in others]
    expected = np.average(np.array(updates, np.float64), axis=0, weights=[len(gone.held[c]) for c in others])
    inside = state.parameters(space.model)
    assert np.allclose(found.values[inside], expected[inside], rtol=1e-4, atol=1e-6)


def test_federasers_replay_has_the_rates_of_the_stored_rounds(federate, pretrained, space_of, targets):
    federation = federate("unlearn.method=federaser", *SCHEDULED)
    pretrained(federation)
    others = [client for client in range(5) if client not in targets]
    found, space = federaser.replay(federation, [1, 2], [others, others]), space_of(federation)
    for number in (1, 2):
        before, work = federation.recorder.history(number - 1), of_round(federation, number)
        for client, norms in zip(others, found.figures["norms"][number - 1], strict=True):
            moved = work.update(space, before, client).payload.values.astype(np.float64) - before.values
            expected = [np.linalg.norm(moved[span]) for span in state.spans(space.model)]
            assert norms == pytest.approx(expected, rel=1e-9)
