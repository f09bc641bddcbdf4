from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fused_ray.core import state
from fused_ray.core.methods import exactfun, fedavg, shared
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.rounds import Saved
from fused_ray.types import Payload


def test_values_are_floored_to_the_grid():
    assert exactfun.quantise(np.array([0.62], np.float32), 0.1) == pytest.approx([0.6])
    assert exactfun.quantise(np.array([1.1, 2.7, -0.1], np.float32), 0.5).tolist() == [1, 2.5, -0.5]


@pytest.mark.parametrize("share", [0.0125, 0.05, 0.1, 1.0])
def test_the_step_is_a_share_of_the_mean_weight_and_quantising_twice_changes_nothing(share):
    weights = np.random.default_rng(0).normal(0, 0.07, 5000).astype(np.float32)
    step = exactfun.grid_step(weights, share)
    assert step == pytest.approx(share * np.abs(weights).mean(), rel=1e-3)
    once = exactfun.quantise(weights, step)
    assert np.array_equal(exactfun.quantise(once, step), once)
    assert np.all((once <= weights) & (weights < once + np.float32(step)))


@pytest.fixture(scope="module")
def quantised(federate):
    """`quantised(federation, on)`: the model before the first round and after each, by a plain loop."""

    def make(federation, on, space, mean):
        config, scenario = federation.config, federation.scenario
        payload = state.flatten(fedavg.initial(federation, "pretrain"))
        inside = state.parameters(space.model)
        step = exactfun.grid_step(payload.values[inside], config.exactfun.step)
        clients = scenario.clients(on)
        sizes = [len(scenario.examples(on, client)) for client in clients]
        payload.values[inside] = exactfun.quantise(payload.values[inside], step)
        models = [payload]
        for number in range(1, config.exactfun_rounds + 1):
            work = FullTraining("replay", number, config.seed, config.train, on)
            payload = mean([work.update(space, payload, client).payload for client in clients], sizes, sum(sizes))
            payload.values[inside] = exactfun.quantise(payload.values[inside], step)
            models.append(payload)
        return models

    return make


@pytest.fixture
def partly(scenario):
    """Client 0 goes, client 1 loses three examples, the others nothing."""
    return dataclasses.replace(scenario, retained=(scenario.held[0][:0], scenario.held[1][3:], *scenario.held[2:]))


SETTINGS = ("unlearn.method=exactfun", "pretrain.rounds=4", "exactfun.rounds=3")


def test_the_result_is_quantised_training_that_never_saw_the_data(federate, partly, quantised, space_of, mean):
    federation = federate(*SETTINGS, on=partly)
    base = fedavg.initial(federation, "pretrain")
    found = exactfun.unlearn(federation, base)
    ours = state.flatten(found.state)
    never = dataclasses.replace(partly, held=partly.retained)
    for other, on in ((federation, "retained"), (federate(*SETTINGS, on=never), "held")):
        expected = quantised(other, on, space_of(other), mean)[-1]
        assert ours.values.tobytes() == expected.values.tobytes()
        assert ours.counters.tolist() == expected.counters.tolist()
    replayed = federation.recorder.saved["replay"].payload
    assert replayed.values.tobytes() == quantised(federation, "held", space_of(federation), mean)[-1].values.tobytes()
    assert replayed.values.tobytes() != ours.values.tobytes()


def test_parameters_are_on_the_grid_after_every_round_and_buffers_are_not(federate, partly):
    federation = federate(*SETTINGS, on=partly)
    like = fedavg.initial(federation, "pretrain")
    exactfun.unlearn(federation, like)
    inside = state.parameters(shared.blank_model(federation))
    step = exactfun.grid_step(state.flatten(like).values[inside], 0.05)
    for end in federation.recorder.rounds.values():
        steps = end.payload.values / step
        assert np.array_equal(steps[inside], np.rint(steps[inside]))
        assert not np.array_equal(np.delete(steps, inside), np.rint(np.delete(steps, inside)))


def test_its_own_trained_model_is_what_it_is_compared_with(federate, partly):
    federation = federate(*SETTINGS, "train.lr=0.002", on=partly)
    found = exactfun.unlearn(federation, fedavg.initial(federation, "pretrain"))
    assert found.before != found.metrics
    assert found.before == federation.recorder.saved["replay"].metrics
    assert found.metrics == federation.recorder.saved["unlearn"].metrics


def test_a_first_result_that_differs_costs_one_replayed_round_and_a_retraining(federate, partly):
    federation = federate(*SETTINGS, on=partly)
    found = exactfun.unlearn(federation, fedavg.initial(federation, "pretrain"))
    # client 1 alone replays: client 0 has nothing left
    assert found.figures == {"replayed_rounds": 1, "retrained_rounds": 2, "client_trainings": 1 + 2 * 4}


def test_as_long_as_nothing_differs_rounds_are_replayed(federate, scenario):
    same = dataclasses.replace(scenario, retained=scenario.held)
    federation = federate(*SETTINGS, on=same)
    found = exactfun.unlearn(federation, fedavg.initial(federation, "pretrain"))
    stored = federation.recorder.saved["replay"].payload
    assert state.flatten(found.state).values.tobytes() == stored.values.tobytes()
    assert found.figures == {"replayed_rounds": 3, "retrained_rounds": 0, "client_trainings": 0}


@pytest.mark.parametrize(
    ("equal", "expected"), [(0, (1, 3, 1 + 3 * 4)), (2, (3, 1, 3 + 4)), (3, (4, 0, 4)), (4, (4, 0, 4))]
)
def test_trainings_are_counted(partly, equal, expected):
    """One target still has data, four clients retrain, four rounds."""
    assert tuple(exactfun.trainings(partly, [partly.clients("retained")] * 4, equal).values()) == expected


def test_what_comes_after_a_difference_is_never_taken_for_equal(federate, scenario):
    """A saved run whose first round differed and whose second would not."""
    same = dataclasses.replace(scenario, retained=scenario.held)
    first = federate(*SETTINGS, on=same)
    like = fedavg.initial(first, "pretrain")
    exactfun.unlearn(first, like)
    rounds = first.recorder.rounds
    differed = dataclasses.replace(rounds["unlearn", 1], figures={"equal": 0})
    again = federate(*SETTINGS, on=same, start={"replay": rounds["replay", 3], "unlearn": differed})
    assert exactfun.unlearn(again, like).figures["replayed_rounds"] == 1


def test_hashes_tell_models_apart():
    one = Payload(np.array([1, 2], np.float32), np.array([3]))
    assert exactfun.digest(one) == exactfun.digest(dataclasses.replace(one, values=one.values.copy()))
    others = [dataclasses.replace(one, values=one.values + 1), dataclasses.replace(one, counters=np.array([4]))]
    assert len({exactfun.digest(payload) for payload in (one, *others)}) == 3


def test_recomputing_one_full_batch_step_is_the_closed_form(federate, partly, space_of):
    """(n w' - n_u w_u) / (n - n_u) from the steps on all data and on what must go; by hand, .5 and .2 give .6."""

    def closed(stepped, on_forgotten, n, n_u):
        return (n * stepped - n_u * on_forgotten) / (n - n_u)

    assert closed(0.5, 0.2, 4, 1) == pytest.approx(0.6)
    federation = federate("model.name=lenet", "train.batch_size=1000", "train.momentum=0", on=partly)
    config, space = federation.config, space_of(federation)
    start = state.flatten(fedavg.initial(federation, "pretrain"))
    after = {
        on: FullTraining("replay", 1, config.seed, config.train, on).update(space, start, 1).payload.values
        for on in ("held", "retained", "forgotten")
    }
    expected = closed(after["held"].astype(np.float64), after["forgotten"], len(partly.held[1]), 3)
    assert np.allclose(after["retained"], expected, atol=1e-6)
    assert np.abs(after["retained"] - after["held"]).max() > 1e-4


def test_models_of_the_stored_rounds_are_kept_as_hashes(federate, partly):
    federation = federate(*SETTINGS, on=partly)
    exactfun.unlearn(federation, fedavg.initial(federation, "pretrain"))
    rounds = federation.recorder.rounds
    ends: list[Saved] = [rounds["replay", number] for number in (1, 2, 3)]
    assert ends[2].figures["models"] == [exactfun.digest(end.payload) for end in ends]
