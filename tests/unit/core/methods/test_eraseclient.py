from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fused_ray.config import EraseClientConfig
from fused_ray.core import state
from fused_ray.core.methods import eraseclient, fedavg, shared
from fused_ray.core.methods.eraseclient import Ascent


def test_the_reference_is_the_average_without_the_target():
    w, w_i = np.array([2, 2], np.float32), np.array([5, -1], np.float32)
    assert eraseclient.reference(w, w_i, 0.25).tolist() == [1, 3]
    assert np.allclose(eraseclient.reference(w, w_i, 0.4), [0, 4])


def test_only_what_lies_outside_the_ball_is_projected():
    center = torch.tensor([1.0, 3.0])
    assert eraseclient.project(torch.tensor([4.0, 7.0]), center, 2.0).tolist() == pytest.approx([2.2, 4.6])
    assert eraseclient.project(torch.tensor([2.0, 4.0]), center, 2.0).tolist() == [2, 4]


def test_the_ascent_is_clipped_and_has_momentum():
    erase = EraseClientConfig(lr=0.1, momentum=0.9, clip=5)
    theta, velocity, gradient = torch.tensor([1.0, 3.0]), torch.zeros(2), torch.tensor([30.0, 40.0])
    theta, velocity = eraseclient.ascend(theta, velocity, gradient, erase)
    assert theta.tolist() == pytest.approx([1.3, 3.4])
    theta, velocity = eraseclient.ascend(theta, velocity, gradient, erase)
    assert theta.tolist() == pytest.approx([1.87, 4.16])


def test_a_short_gradient_is_not_clipped():
    erase = EraseClientConfig(lr=0.5, momentum=0, clip=5)
    theta, _ = eraseclient.ascend(torch.zeros(2), torch.zeros(2), torch.tensor([3.0, 4.0]), erase)
    assert theta.tolist() == [1.5, 2]
    assert eraseclient.ascend(theta, torch.zeros(2), torch.zeros(2), erase)[0].tolist() == [1.5, 2]
    assert eraseclient.ascend(theta, torch.zeros(2), torch.tensor([0.0, 1.0]), erase)[0].tolist() == [1.5, 2.5]


@pytest.fixture(scope="module")
def known(federate, pretrained):
    """A federation whose model has learned something, and that model."""
    federation = federate("unlearn.method=eraseclient", "pretrain.rounds=6", "unlearn.rounds=1")
    return federation, pretrained(federation)


def test_the_reference_is_the_last_round_without_the_targets(known, mean, gone, targets, space_of):
    federation, base = known
    config, space, sizes = federation.config, space_of(federation), [len(part) for part in gone.held]
    found = eraseclient.without_targets(federation, state.flatten(base), targets)
    work = fedavg.FullTraining("pretrain", 6, config.seed, config.train, "held")
    updates = [work.update(space, federation.recorder.kept[5], client).payload for client in range(5)]
    others = mean([updates[c] for c in (0, 2, 4)], [sizes[c] for c in (0, 2, 4)], sum(sizes))
    inside = state.parameters(shared.blank_model(federation))
    assert np.allclose(found.values[inside], others.values[inside], rtol=1e-4, atol=1e-6)
    assert not np.allclose(found.values[inside], state.flatten(base).values[inside], rtol=1e-3)
    buffers = np.setdiff1d(np.arange(len(found.values)), inside)
    assert np.array_equal(found.values[buffers], state.flatten(base).values[buffers])
    assert np.array_equal(found.counters, state.flatten(base).counters)


def test_the_radius_is_a_third_of_the_mean_distance_to_random_models(known):
    federation, base = known
    names = [name for name, _ in shared.blank_model(federation).named_parameters()]
    distances = []
    for i in range(10):
        other = fedavg.initial(federation, f"eraseclient/{i}")
        distances.append(np.sqrt(sum(((other[name] - base[name]).astype(np.float64) ** 2).sum() for name in names)))
    assert eraseclient.ball_radius(federation, state.flatten(base)) == pytest.approx(np.mean(distances) / 3)
    assert min(distances) < max(distances)


def loss_on(space, payload, indices):
    space.load(payload)
    space.model.eval()
    with torch.no_grad():
        return F.cross_entropy(space.suffix(0, space.images("train", indices)), space.labels(indices)).item()


@pytest.fixture
def climb(known, space_of):
    """`climb(client, radius, epochs=1, ...)`: where a client starts, what it returns, and a workspace."""

    def make(client, radius=1e9, **settings):
        federation, base = known
        config, space = federation.config, space_of(federation)
        erase = EraseClientConfig(**{"lr": 0.02, "batch_size": 16, "stop_accuracy": 0.0, **settings})
        train = config.train.model_copy(update={"local_epochs": erase.epochs, "batch_size": erase.batch_size})
        work, start = Ascent("unlearn", 1, config.seed, train, "forgotten", erase, radius), state.flatten(base)
        return start, work.update(space, start, client), space

    return make


@pytest.mark.parametrize("target", [1, 3])
def test_the_ascent_raises_the_targets_loss_and_moves_parameters_only(climb, known, gone, target):
    start, update, space = climb(target)
    indices = gone.forgotten(target)
    assert loss_on(space, update.payload, indices) > loss_on(space, start, indices) + 0.5
    inside = state.parameters(space.model)
    buffers = np.setdiff1d(np.arange(len(start.values)), inside)
    assert np.array_equal(update.payload.values[buffers], start.values[buffers])
    assert np.array_equal(update.payload.counters, start.counters)


def test_the_ascent_stays_in_its_ball(climb):
    start, far, _ = climb(3)
    assert np.linalg.norm(far.payload.values - start.values) > 0.2
    start, near, _ = climb(3, radius=0.1)
    assert np.linalg.norm(near.payload.values - start.values) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(("answers", "steps"), [([0.5, 0.12, 0.11], 3), ([0.0], 1), ([1.0] * 6, 6)])
def test_the_ascent_ends_below_the_accuracy_or_after_its_epochs(climb, gone, monkeypatch, answers, steps):
    """Two epochs of 48 examples in batches of 16; five more are kept apart."""
    asked = []
    monkeypatch.setattr(eraseclient, "accuracy", lambda space, rows: asked.append(rows) or answers[len(asked) - 1])
    climb(3, epochs=2, stop_accuracy=0.12)
    assert len(asked) == steps
    assert {tuple(rows) for rows in asked} == {tuple(asked[0])}
    assert len(asked[0]) == 5
    assert set(asked[0]) < set(gone.forgotten(3))


def test_the_validation_part_is_not_trained_on(climb, gone, monkeypatch):
    kept = []
    monkeypatch.setattr(eraseclient, "accuracy", lambda space, rows: kept.extend(rows) or 1.0)
    start, update, space = climb(3, epochs=1, batch_size=1000)
    rest = np.setdiff1d(gone.forgotten(3), kept)
    assert update.loss == pytest.approx(loss_on(space, start, rest), rel=1e-5)
    assert update.loss != pytest.approx(loss_on(space, start, gone.forgotten(3)), rel=1e-5)


def test_a_target_with_few_examples_has_no_validation_part(climb, known, gone):
    federation, base = known
    few = dataclasses.replace(gone, held=(gone.held[0], gone.held[1][:9], *gone.held[2:]))
    config = federation.config
    space = eraseclient.Workspace(config, federation.data, few)
    erase = EraseClientConfig(stop_accuracy=1.0, epochs=2)
    train = config.train.model_copy(update={"local_epochs": 2, "batch_size": 4})
    work = Ascent("unlearn", 1, config.seed, train, "forgotten", erase, 1e9)
    assert np.isfinite(work.update(space, state.flatten(base), 1).loss)


def test_targets_are_averaged_and_then_the_others_recover(known, gone, targets, mean, space_of):
    federation, base = known
    found = eraseclient.unlearn(federation, base)
    config, space = federation.config, space_of(federation)
    start = federation.recorder.rounds["replay", 1].payload
    erase = config.eraseclient
    train = config.train.model_copy(update={"local_epochs": erase.epochs, "batch_size": erase.batch_size})
    radius = eraseclient.ball_radius(federation, start)
    work = Ascent("unlearn", 1, config.seed, train, "forgotten", erase, radius)
    sizes = [len(gone.held[client]) for client in targets]
    climbed = mean([work.update(space, start, client).payload for client in targets], sizes, sum(sizes))
    assert federation.recorder.rounds["unlearn", 1].payload.values.tobytes() == climbed.values.tobytes()
    recovery = fedavg.FullTraining("unlearn", 2, config.seed, config.train, "retained")
    sizes = [len(gone.held[client]) for client in (0, 2, 4)]
    end = mean([recovery.update(space, climbed, client).payload for client in (0, 2, 4)], sizes, sum(sizes))
    assert state.flatten(found.state).values.tobytes() == end.values.tobytes()
    assert found.start_metrics == federation.evaluate(fedavg.ModelEvaluation(), start)
