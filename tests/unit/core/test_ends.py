"""What ends a run: updates that cannot be used, clients that are missing, rounds that change nothing."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch

from fused_ray import models
from fused_ray.core import simulation, state
from fused_ray.core.adapter import random_masks, start_values
from fused_ray.core.aggregate import scale_bits
from fused_ray.core.layers import layer_vector
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation, Phase
from fused_ray.core.training import AdapterStep
from fused_ray.core.work import AdapterEvaluation, Update, compute
from fused_ray.core.workspace import Workspace
from fused_ray.errors import NumericsError
from fused_ray.types import Payload
from tests.unit.core.rounds import initial, initial_arrays

# -- what ends a run


@pytest.mark.parametrize("lr", [50, 1000])
def test_diverging_training_names_client_phase_and_round(federate, data, lr):
    federation = federate(f"train.lr={lr}", "train.batch_size=4", "pretrain.rounds=5")
    with pytest.raises(NumericsError, match=r"client \d, pretrain round \d: .*lower the learning rate"):
        fedavg.pretrain(federation, initial(data))


def test_a_round_that_changes_nothing_is_an_error(federate, data):
    with pytest.raises(NumericsError, match="pretrain round 1: training changed nothing"):
        fedavg.pretrain(federate("train.lr=1e-30", "train.weight_decay=0"), initial(data))


def test_a_round_that_changes_nothing_but_by_averaging_is_an_error(federate, data):
    start = initial(data)
    start.values[::7] *= np.float32(1e-9)  # finer than the resolution of the exact sum
    with pytest.raises(NumericsError, match="pretrain round 1: training changed nothing"):
        fedavg.pretrain(federate("train.lr=1e-30", "train.weight_decay=0"), start)


def test_a_round_that_moves_running_statistics_alone_is_an_error(make_config, data, scenario, recorder):
    config = make_config("model.name=resnet18", "train.lr=1e-30", "train.weight_decay=0")
    small = dataclasses.replace(scenario, held=tuple(part[:2] for part in scenario.held))
    federation = Federation(config, data, small, LocalPool(config, data, small), recorder())
    with pytest.raises(NumericsError, match="pretrain round 1: training changed nothing"):
        fedavg.pretrain(federation, state.flatten(fedavg.initial(federation, "pretrain")))


@pytest.mark.parametrize("wire", ["float32", "float16", "int8"])
@pytest.mark.parametrize("start", ["zero", "reset", "negate", "anywhere"])
def test_a_sparse_adapter_that_does_not_move_is_an_error(federate, data, start, wire):
    """Though fl(fl(w + a) - w) is not a for most values that begin anywhere, as in any round but the first."""
    federation = federate("unlearn.lr=1e-30", "unlearn.rounds=1", f"unlearn.wire={wire}")
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    federation.pool.install(state.read(base))
    arrays, config = state.arrays(base), federation.config
    masks = random_masks(0, arrays, ["fc3"], 0.5)
    if start == "anywhere":
        values = np.random.default_rng(0).normal(0, 0.001, masks.size).astype(np.float32)
        weights = layer_vector(arrays, "fc3")[masks.layers[0].positions]
        assert np.count_nonzero((weights + values) - weights != values) > masks.size / 2
    else:
        values = start_values(masks, arrays, start, "conv1")

    def work(number):
        step = AdapterStep(config.adapter_lr, config.train.momentum, 0.0)
        return fused.AdapterTraining("unlearn", number, 0, config.train, step, masks, wire=wire)

    evaluation = AdapterEvaluation(masks)
    phase = Phase(name="unlearn", rounds=1, clients=range(5), work=work, evaluation=evaluation)
    with pytest.raises(NumericsError, match="unlearn round 1: training changed nothing"):
        federation.run(phase, Payload(values))


def test_a_low_rank_adapter_whose_changes_are_finer_than_any_sum_is_an_error(federate, data):
    """From zero every step of any size leads elsewhere; half of its values begin there."""
    federation = federate("unlearn.adapter=lora", "unlearn.layers=[fc3]", "unlearn.lr=1e-30", "unlearn.rounds=1")
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    federation.pool.install(state.read(base))
    with pytest.raises(NumericsError, match="unlearn round 1: training changed nothing"):
        fused.unlearn(federation, state.arrays(base))


def test_a_report_counts_what_training_changed_alone(federate, data):
    """Of fc3 the four biases move: nothing reaches its weights."""
    federation = federate()
    space = Workspace(federation.config, data, federation.scenario)
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    with torch.no_grad():
        base.fc2.weight.zero_()
        base.fc2.bias.fill_(-1)
    space.install(state.read(base))
    masks = random_masks(0, state.arrays(base), ["fc3"], 1.0)
    values = np.random.default_rng(0).normal(0, 0.1, masks.size).astype(np.float32)
    step = AdapterStep(0.05, 0.0, 0.0)
    work = fused.AdapterTraining("unlearn", 1, 0, federation.config.train, step, masks)
    (report,) = compute(space, work, Payload(values), [4]).reports
    moved = work.update(space, Payload(values), 4).moved
    assert np.flatnonzero(moved).tolist() == [336, 337, 338, 339]
    assert report.values_changed == 4
    assert report.update_norm == pytest.approx(np.sqrt((moved[336:].astype(np.float64) ** 2).sum()), rel=1e-12)
    after = work.update(space, Payload(values), 4).payload.values
    assert np.allclose(after[336:] - values[336:], moved[336:], atol=1e-6)


class Forgetful:
    """A pool that computes other clients than it was asked for."""

    def __init__(self, pool, change):
        self._pool, self._change = pool, change

    def train(self, work, payload, clients, done, keep_updates=False):
        return self._pool.train(work, payload, self._change(list(clients)), done, keep_updates)


@pytest.mark.parametrize(
    "change",
    [lambda c: c[:-1], lambda c: c[1:], lambda c: [*c, 0], lambda c: [0, *c[:-1]]],
    ids=["last missing", "first missing", "first twice", "first twice, last missing"],
)
def test_a_missing_client_or_one_computed_twice_is_noticed(federate, data, change):
    federation = federate(wrap=lambda pool: Forgetful(pool, change))
    with pytest.raises(AssertionError, match="a client is missing from the round, or twice"):
        fedavg.pretrain(federation, initial(data))


class Fixed:
    """Work whose updates are given."""

    phase, round = "rank", 4

    def __init__(self, values, loss=1.0, figures=()):
        self._update = Update(Payload(np.array(values, np.float32)), loss, figures)

    def indices(self, scenario, client):
        return scenario.held[client]

    def update(self, space, payload, client):
        return self._update


@pytest.mark.parametrize(
    "work",
    [
        Fixed([1, np.nan]),
        Fixed([1, 2000]),
        Fixed([1, 2], loss=float("inf")),
        Fixed([], figures=(np.inf, 1.0)),
        Fixed([], figures=(0.5, 1.0, np.nan, 1.0)),
    ],
)
def test_an_update_that_cannot_be_used_names_its_client(make_config, data, scenario, work):
    space = Workspace(make_config(), data, scenario)
    payload = Payload(np.zeros(2, np.float32))
    with pytest.raises(NumericsError, match=r"client 3, rank round 4: .*lower the learning rate"):
        compute(space, work, payload, [3])


def test_a_partial_sum_reports_each_client_and_keeps_updates_only_if_asked(make_config, data, scenario):
    space, done = Workspace(make_config(), data, scenario), []
    payload = Payload(np.array([1, 0], np.float32))
    found = compute(space, Fixed([1, 2]), payload, [2, 0], done=done.append)
    sizes = [len(scenario.held[client]) for client in (2, 0)]
    assert [(report.client, report.examples) for report in found.reports] == list(zip([2, 0], sizes, strict=True))
    assert {(report.update_norm, report.values_changed, report.loss) for report in found.reports} == {(2.0, 1, 1.0)}
    assert found.total.tolist() == [sum(sizes) << scale_bits(200), 2 * sum(sizes) << scale_bits(200)]
    assert (found.weight, done, found.updates) == (sum(sizes), [2, 0], {})
    kept = compute(space, Fixed([1, 2]), payload, [2, 0], keep_updates=True).updates
    assert {client: values.tolist() for client, values in kept.items()} == {0: [1, 2], 2: [1, 2]}


def test_a_change_that_the_exact_sum_cannot_tell_is_none(make_config, data, scenario):
    space, half = Workspace(make_config(), data, scenario), 2.0 ** -(scale_bits(200) + 1)
    work = Fixed([half, -half, 1.5 * half, -1.5 * half, 0.25])
    (report,) = compute(space, work, Payload(np.zeros(5, np.float32)), [3]).reports
    assert report.values_changed == 3


class Slow(LocalPool):
    """Sleeps for 0.1 s before a training, 0.2 s before an evaluation."""

    def train(self, work, payload, clients, done, keep_updates=False):
        time.sleep(0.1)
        yield from super().train(work, payload, clients, done, keep_updates)

    def evaluate(self, evaluation, payload):
        time.sleep(0.2)
        return super().evaluate(evaluation, payload)


def test_a_rounds_seconds_are_those_that_passed(make_config, data, scenario, recorder):
    config = make_config("pretrain.rounds=2")
    federation = Federation(config, data, scenario, Slow(config, data, scenario), recorder())
    started = time.perf_counter()
    base = state.unflatten(fedavg.pretrain(federation, initial(data)).payload, initial_arrays(data))
    fused.rank_layers(federation, base, ("conv1", "fc3"))
    passed, records = time.perf_counter() - started, federation.recorder.records
    assert [(record.phase, record.round) for record in records] == [("pretrain", 1), ("pretrain", 2), ("rank", 1)]
    assert all(record.train_seconds >= 0.1 and record.aggregate_seconds > 0 for record in records)
    assert [record.evaluate_seconds >= 0.2 for record in records] == [True, True, False]
    assert records[-1].evaluate_seconds == 0
    found = sum(record.train_seconds + record.aggregate_seconds + record.evaluate_seconds for record in records)
    assert 0.7 < found <= passed
    assert sum(record.aggregate_seconds for record in records) < passed - 0.7
    total, adding = federation.gather(FullTraining("x", 1, 0, config.train, "held"), initial(data), [0, 3])
    ours = [(report.train_seconds, report.aggregate_seconds) for report in total.reports]
    assert all(0 < seconds < time.perf_counter() - started - passed for pair in ours for seconds in pair)
    assert 0 < adding < time.perf_counter() - started - passed - 0.1


def test_workers_with_other_numerics_are_refused_only_when_asked(make_config, data, scenario):
    one = LocalPool(make_config(), data, scenario).identities[0]
    other = dataclasses.replace(one, node="node 2", fingerprint="f" * 64)
    assert simulation.check_numerics(make_config(), [one, one])
    assert not simulation.check_numerics(make_config(), [one, other])
    assert simulation.check_numerics(make_config("engine.numerics=strict"), [one, one])
    with pytest.raises(NumericsError, match="ffffffffffff on node 2"):
        simulation.check_numerics(make_config("engine.numerics=strict"), [one, other])
