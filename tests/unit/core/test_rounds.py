"""Whole rounds and whole simulations on the local pool, against hand-written loops."""

from __future__ import annotations

import dataclasses
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fused_ray import models
from fused_ray.core import adapter, simulation, state
from fused_ray.core.adapter import random_masks, start_values
from fused_ray.core.aggregate import scale_bits
from fused_ray.core.layers import layer_vector
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.metrics import halves
from fused_ray.core.rounds import Federation, LocalPool, Phase, Saved
from fused_ray.core.simulation import simulate
from fused_ray.core.training import AdapterStep, batches
from fused_ray.core.wire import Delivery
from fused_ray.core.work import AdapterEvaluation, Update, compute
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError, Interrupted, NumericsError
from fused_ray.types import Payload

ROUNDS = {"pretrain": 2, "rank": 1, "unlearn": 3, "retrain": 2}


def initial_arrays(data, seed=0):
    return state.arrays(models.initialise("lenet", (1, 28, 28), data.classes, seed, "init"))


def initial(data, seed=0):
    return state.flatten(initial_arrays(data, seed))


@pytest.fixture
def federate(make_config, data, scenario, recorder):
    """`federate("train.lr=1", ...)`: a federation on the local pool; `on` and `pool` replace its parts."""

    def make(*overrides, on=scenario, wrap=lambda pool: pool):
        config = make_config(*overrides)
        return Federation(config, data, on, wrap(LocalPool(config, data, on)), recorder())

    return make


# -- FedAvg


def plain_fedavg(config, data, held, start, phase="pretrain", round=1, **optimiser):
    """Every client's weights after a round, by a loop that uses nothing of the round's machinery."""
    images = ((torch.tensor(data.train_images, dtype=torch.float32) / 255) - 0.4) / 0.3
    labels, found = torch.tensor(data.train_labels), []
    for client, indices in enumerate(held):
        model = models.build("lenet", (1, 28, 28), data.classes)
        model = model.to(memory_format=torch.channels_last)
        state.write(model, start)
        sgd = torch.optim.SGD(
            model.parameters(),
            lr=config.train.lr,
            momentum=config.train.momentum,
            weight_decay=config.train.weight_decay,
            **optimiser,
        )
        for positions in batches(len(indices), config.train, config.seed, phase, round, client):
            rows = indices[positions]
            x = images[rows].contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), labels[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        found.append(state.read(model).values)
    return found


def test_rounds_of_fedavg_equal_a_hand_written_loop(federate, data, scenario):
    federation = federate("pretrain.rounds=2", "train.local_epochs=2")
    start = expected = initial(data)
    for number in (1, 2):
        updates = plain_fedavg(federation.config, data, scenario.held, expected, round=number, foreach=False)
        mean = np.average(np.array(updates, np.float64), axis=0, weights=[len(part) for part in scenario.held])
        expected = Payload(mean.astype(np.float32))
    found = fedavg.pretrain(federation, start).payload.values
    assert np.abs(found - start.values).max() > 0.01
    assert np.allclose(found, expected.values, rtol=1e-4, atol=1e-5)


def test_a_round_of_fedavg_is_exactly_the_fixed_point_mean_of_the_updates(federate, data, scenario):
    federation = federate("pretrain.rounds=1")
    start = initial(data)
    found = fedavg.pretrain(federation, start).payload.values
    updates = plain_fedavg(federation.config, data, scenario.held, start, fused=True)
    sizes, n = [len(part) for part in scenario.held], len(data.train_labels)
    bits = scale_bits(n)
    for index in range(0, len(found), 97):
        total = sum(w * round(Fraction(float(u[index])) * 2**bits) for u, w in zip(updates, sizes, strict=True))
        assert found[index] == np.float32(total / (n * 2.0**bits))


def test_a_federation_of_one_client_is_plain_training(make_config, data, make_scenario, recorder):
    config, one = make_config("pretrain.rounds=1"), make_scenario(data, 1)
    start = initial(data)
    federation = Federation(config, data, one, LocalPool(config, data, one), recorder())
    found = fedavg.pretrain(federation, start).payload.values
    (expected,) = plain_fedavg(config, data, one.held, start, fused=True)
    assert np.abs(found - expected).max() <= 2.0 ** -scale_bits(len(data.train_labels))


def test_retraining_equals_training_a_federation_that_never_had_the_data(federate, data, scenario):
    # so much is forgotten that D and D_r would have fixed-point scales of their own
    few = dataclasses.replace(scenario, retained=tuple(part[::3] for part in scenario.held))
    assert scale_bits(sum(map(len, few.retained))) != scale_bits(len(data.train_labels))
    start = initial(data)
    expected = fedavg.retrain(federate(on=dataclasses.replace(few, held=few.retained)), start)
    found = fedavg.retrain(federate(on=few), start)
    assert found.payload.values.tobytes() == expected.payload.values.tobytes()
    assert found.metrics == expected.metrics


def test_forgotten_examples_do_not_reach_unlearning_or_retraining(make_config, data, scenario, recorder):
    """Whatever the forgotten images show, the results have the same bits."""
    config = make_config("unlearn.layers=[conv2, fc3]")
    images = data.train_images.copy()
    images[data.train_labels == 0] = 255 - images[data.train_labels == 0]
    other = dataclasses.replace(data, train_images=images)
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    ends = []
    for one in (data, other):
        found = recorder()
        simulate(config, one, scenario, LocalPool(config, one, scenario), found, given=state.arrays(base))
        ends.append([found.rounds["unlearn", 3].payload.values.tobytes(), found.rounds["retrain", 2].payload])
    assert ends[0][0] == ends[1][0]
    assert ends[0][1].values.tobytes() == ends[1][1].values.tobytes()


def test_a_client_that_keeps_nothing_takes_no_part_in_unlearning_and_retraining(federate, data, scenario):
    alone = (scenario.held[0][:0], *scenario.held[1:])
    federation = federate("unlearn.layers=[fc3]", on=dataclasses.replace(scenario, retained=alone))
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    federation.pool.install(state.read(base))
    fused.unlearn(federation, state.arrays(base))
    fedavg.retrain(federation, state.read(base))
    assert {record.clients_used for record in federation.recorder.records} == {4}


# -- unlearning


def test_rounds_of_unlearning_are_weighted_means_of_the_clients_values(federate, data, scenario):
    federation = federate("unlearn.layers=[fc3]", "unlearn.rounds=2")
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    federation.pool.install(state.read(base))
    found = fused.unlearn(federation, state.arrays(base))
    assert found.adapter.size == 84 * 4 // 2 + 2
    space = Workspace(federation.config, data, scenario)
    space.install(state.read(base))
    config = federation.config
    step = AdapterStep(config.adapter_lr, config.train.momentum, config.unlearn.weight_decay)
    values = np.zeros(found.adapter.size, np.float32)
    for number in (1, 2):
        work = fused.AdapterTraining("unlearn", number, config.seed, config.train, step, found.adapter)
        updates = [work.update(space, Payload(values), client).payload.values for client in range(5)]
        mean = np.average(np.array(updates, np.float64), axis=0, weights=[len(part) for part in scenario.retained])
        values = mean.astype(np.float32)
    assert np.allclose(found.values, values, rtol=1e-5, atol=1e-7)


def test_ranking_measures_the_hand_written_loops_changes(federate, data, scenario):
    federation = federate()
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    before = state.arrays(base)
    start = state.flatten(before)
    names = ("conv1", "conv2", "fc1", "fc2", "fc3")
    found = {item.layer: item for item in fused.rank_layers(federation, before, names)}
    updates = plain_fedavg(federation.config, data, scenario.held, start, phase="rank", fused=True)
    for name in names:
        moved = size = entries = 0.0
        for part in ("weight", "bias"):
            old = before[f"{name}.{part}"].astype(np.float64)
            new = [state.unflatten(Payload(u), before)[f"{name}.{part}"] for u in updates]
            weights = [len(held) / 200 for held in scenario.held]
            moved += sum(w * np.abs(u - old).sum() for w, u in zip(weights, new, strict=True))
            size, entries = size + np.abs(old).sum(), entries + old.size
        assert found[name].sum == pytest.approx(moved, rel=1e-6)
        assert found[name].mean == pytest.approx(moved / entries, rel=1e-6)
        assert found[name].relative == pytest.approx(moved / size, rel=1e-6)
    assert tuple(found) == names


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


# -- whole simulations


@pytest.fixture(scope="module")
def run(make_config, data, scenario, recorder):
    """`run(overrides, start, data)`: a whole simulation from what was saved; its recorder and its outcome."""

    def make(overrides=(), start=None, on=scenario, **more):
        config, keeps = make_config(*overrides), recorder(start)
        return keeps, simulate(config, data, on, LocalPool(config, data, on), keeps, **more)

    return make


@pytest.fixture(scope="module")
def whole(run):
    return run()


def test_removing_the_adapter_gives_the_base_back_bit_for_bit(whole):
    keeps, outcome = whole
    assert outcome.restored_hash == outcome.base_hash == state.state_hash(keeps.models["base"])
    assert outcome.unlearned_hash != outcome.base_hash
    masks, values = keeps.adapter
    assert outcome.unlearned_hash == state.state_hash(masks.apply(keeps.models["base"], values))


def test_every_phase_is_recorded_with_its_clients_and_bytes(whole):
    keeps, outcome = whole
    assert [(r.phase, r.round) for r in keeps.records] == [(p, i + 1) for p, n in ROUNDS.items() for i in range(n)]
    assert {(r.clients_expected, r.clients_received, r.clients_used) for r in keeps.records} == {(5, 5, 5)}
    assert keeps.done == 5 * sum(ROUNDS.values())
    up = {record.phase: record.bytes_up for record in keeps.records}
    assert up["rank"] < 200
    assert 4 * outcome.unlearned.adapter.size < up["unlearn"] < 4 * outcome.unlearned.adapter.size + 200
    assert up["pretrain"] == up["retrain"] > 4 * 43_910
    assert (outcome.unlearned.storage_bytes, outcome.unlearned.figures, outcome.unlearned.before) == (0, {}, None)
    assert outcome.retrained == keeps.rounds["retrain", 2].metrics
    assert outcome.unlearned.metrics == keeps.rounds["unlearn", 3].metrics


def test_the_metrics_are_those_of_the_models_that_were_kept(whole, make_config, data, scenario):
    keeps, outcome = whole
    space = Workspace(make_config(), data, scenario)
    masks, values = keeps.adapter
    expected = [
        (outcome.before, keeps.models["base"]),
        (outcome.retrained, keeps.models["retrained"]),
        (outcome.unlearned.metrics, masks.apply(keeps.models["base"], values)),
    ]
    for metrics, model in expected:
        (predicted,) = space.predict_model(state.flatten(model), [0])
        views = scenario.views | halves(scenario, data.test_labels, 0)
        assert metrics.keys() == views.keys()
        for name, view in views.items():
            assert metrics[name] == np.mean(predicted[view.indices] == view.labels)


@pytest.mark.parametrize(
    ("phase", "number"), [(phase, n) for phase, rounds in ROUNDS.items() for n in range(1, rounds + 1)]
)
def test_an_interrupted_run_goes_on_to_the_same_bits(run, whole, phase, number):
    keeps, outcome = whole
    before = list(ROUNDS)[: list(ROUNDS).index(phase)]
    start = {name: keeps.rounds[name, ROUNDS[name]] for name in before} | {phase: keeps.rounds[phase, number]}
    again, resumed = run(start=start)
    left = list(ROUNDS)[len(before) + 1 :]
    expected = [(phase, n) for n in range(number + 1, ROUNDS[phase] + 1)]
    expected += [(name, n + 1) for name in left for n in range(ROUNDS[name])]
    assert [(record.phase, record.round) for record in again.records] == expected
    for key, saved in again.rounds.items():
        assert saved.payload.values.tobytes() == keeps.rounds[key].payload.values.tobytes()
    for name in ("base_hash", "unlearned_hash", "restored_hash", "before", "retrained", "vacuous"):
        assert getattr(resumed, name) == getattr(outcome, name)
    assert resumed.unlearned.metrics == outcome.unlearned.metrics
    assert resumed.unlearned.start_metrics == outcome.unlearned.start_metrics
    assert resumed.unlearned.ranking == outcome.unlearned.ranking
    assert again.models.keys() == keeps.models.keys()


def test_two_runs_have_the_same_bits_and_another_seed_has_others(run, whole):
    _, again = run()
    _, other = run(["seed=1"])
    _, expected = whole
    assert (again.base_hash, again.unlearned_hash) == (expected.base_hash, expected.unlearned_hash)
    assert other.base_hash != expected.base_hash


@pytest.mark.parametrize(
    "override", ["engine.prefix_cache_mb=0", "engine.backend=local", "federation.clients_per_actor=3"]
)
def test_the_engines_settings_change_no_bit(run, whole, override):
    _, found = run([override])
    assert found.unlearned_hash == whole[1].unlearned_hash


def test_a_given_model_is_unlearned_from_without_pretraining(run, whole):
    keeps, outcome = whole
    again, found = run(given=keeps.models["base"])
    assert {record.phase for record in again.records} == {"rank", "unlearn", "retrain"}
    assert (found.base_hash, found.unlearned_hash) == (outcome.base_hash, outcome.unlearned_hash)


def test_a_run_without_retraining_does_not_say_whether_it_was_vacuous(run, whole):
    keeps, outcome = run(["retrain.rounds=0"])
    assert (outcome.retrained, outcome.vacuous) == (None, None)
    assert set(keeps.models) == {"base"}
    assert outcome.unlearned_hash == whole[1].unlearned_hash


def test_no_unlearning_rounds_leave_the_adapter_where_it_starts(run):
    _, outcome = run(["unlearn.rounds=0", "unlearn.start=negate", "retrain.rounds=0"])
    assert outcome.unlearned.metrics == outcome.unlearned.start_metrics
    assert outcome.unlearned_hash != outcome.base_hash == outcome.restored_hash


def test_named_layers_are_taken_in_the_models_order_without_a_ranking(run):
    keeps, outcome = run(["unlearn.layers=[fc3, conv2]", "unlearn.rounds=1", "retrain.rounds=0"])
    assert [mask.layer for mask in outcome.unlearned.adapter.layers] == ["conv2", "fc3"]
    assert outcome.unlearned.ranking == []
    assert "rank" not in {record.phase for record in keeps.records}


def test_forgetting_is_vacuous_only_where_the_base_did_not_know_more(run):
    _, ignorant = run(["pretrain.rounds=1", "train.lr=0.0001"])
    assert ignorant.vacuous
    _, knowing = run(["pretrain.rounds=8", "train.batch_size=8"])
    assert knowing.before["fa"] > 0.9
    assert knowing.retrained["fa"] == 0
    assert knowing.vacuous is False


@torch.no_grad()
def drift(space):
    space.model.fc1.bias[0] += 1e-6


@torch.no_grad()
def fill(space):
    for parameter in space.model.parameters():
        parameter.fill_(123)


def spoil_stored(space):
    space._base = Payload(space._base.values + np.float32(1))


def spoil_held(space):
    space._live[1].base[0] += 1


class Spoilt(LocalPool):
    """A pool whose worker has lost its base when the proof after a phase looks at it."""

    def __init__(self, config, data, scenario, phase, spoil):
        super().__init__(config, data, scenario)
        self._looks = {"unlearn": [spoil], "retrain": [lambda space: None, spoil]}[phase]

    def base_hashes(self):
        self._looks.pop(0)(self._space)
        return super().base_hashes()


@pytest.mark.parametrize(
    ("phase", "spoil"),
    [
        *(("unlearn", spoil) for spoil in (drift, fill, spoil_stored, spoil_held)),
        *(("retrain", spoil) for spoil in (spoil_stored, spoil_held)),
    ],
)
def test_a_base_that_is_lost_ends_the_run(make_config, data, scenario, recorder, phase, spoil):
    config = make_config("unlearn.layers=[fc3]", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1")
    with pytest.raises(NumericsError, match=f"after {phase}, a worker's base model is not the one"):
        simulate(config, data, scenario, Spoilt(config, data, scenario, phase, spoil), recorder())


def test_an_interruption_between_clients_ends_the_run_and_leaves_the_threads_as_they_were(
    make_config, data, scenario, recorder
):
    class Stopping(recorder):
        def clients_done(self, count):
            super().clients_done(count)
            if self.done == 3:
                raise Interrupted("stopped")

    keeps, config = Stopping(), make_config()
    torch.set_num_threads(2)
    try:
        with pytest.raises(Interrupted):
            simulate(config, data, scenario, LocalPool(config, data, scenario), keeps)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert keeps.done == 3


def test_a_phase_that_was_finished_is_not_run_again(federate, data):
    federation = federate()
    end = Saved(round=2, payload=initial(data), metrics={"ra": 0.5})
    federation.recorder.saved["pretrain"] = end
    assert fedavg.pretrain(federation, initial(data, 1)) is end
    assert federation.recorder.records == []


def test_random_masks_are_those_of_the_seed_and_the_draw(federate, data):
    base, layers = initial_arrays(data), ["fc2", "fc3"]
    wanted = [
        ({"fc2": None, "fc3": None}, "unlearn.budget=30", adapter.random_budget(5, base, layers, 30, 3)),
        ({"fc2": 20, "fc3": 10}, "unlearn.budget=30", adapter.random_counts(5, base, {"fc2": 20, "fc3": 10}, 3)),
        ({"fc2": None, "fc3": None}, "unlearn.sparsity=0.9", random_masks(5, base, layers, 0.1, 3)),
    ]
    for chosen, field, expected in wanted:
        federation = federate("seed=5", "unlearn.draw=3", "unlearn.mask=random", field)
        masks, _, sent = fused.make_adapter(federation, base, chosen, Delivery(0))
        assert (masks.digest, sent) == (expected.digest, 0)


def test_a_budget_that_would_reset_two_whole_layers_is_refused(federate, data):
    fields = ("unlearn.layers=[fc2, fc3]", "unlearn.budget=20000", "unlearn.start=reset")
    federation = federate(*fields)
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    federation.pool.install(state.read(base))
    with pytest.raises(ConfigError, match=r"unlearn\.start: reset with this unlearn\.budget .* fc2 and fc3"):
        fused.unlearn(federation, state.arrays(base))
