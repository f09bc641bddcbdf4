"""Whole simulations on the local pool: their records, and the same bits after interruptions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fused_ray import models
from fused_ray.core import adapter, state
from fused_ray.core.adapter import random_masks
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.metrics import halves
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Saved
from fused_ray.core.simulation import simulate
from fused_ray.core.wire import Delivery
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError, Interrupted, NumericsError
from fused_ray.types import Payload
from tests.unit.core.rounds import initial, initial_arrays

ROUNDS = {"pretrain": 2, "rank": 1, "unlearn": 3, "retrain": 2}


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
        made = fused.make_adapter(federation, base, chosen, Delivery(0))
        masks, sent = made.adapter, made.told
        assert (masks.digest, sent) == (expected.digest, 0)


def test_a_budget_that_would_reset_two_whole_layers_is_refused(federate, data):
    fields = ("unlearn.layers=[fc2, fc3]", "unlearn.budget=20000", "unlearn.start=reset")
    federation = federate(*fields)
    base = models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")
    federation.pool.install(state.read(base))
    with pytest.raises(ConfigError, match=r"unlearn\.start: reset with this unlearn\.budget .* fc2 and fc3"):
        fused.unlearn(federation, state.arrays(base))
