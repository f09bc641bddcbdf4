"""Whole rounds on the local pool, against hand-written loops."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fused_ray import models
from fused_ray.core import aggregate, state
from fused_ray.core.aggregate import scale_bits
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.simulation import simulate
from fused_ray.core.training import AdapterStep, batches
from fused_ray.core.work import compute, round_bits
from fused_ray.core.workspace import Workspace
from fused_ray.types import Payload
from tests.unit.core.rounds import initial

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


def test_a_round_of_more_examples_than_one_limb_takes_is_exactly_the_mean_too(federate, data, scenario, monkeypatch):
    monkeypatch.setattr(aggregate, "NARROW", 7)  # 200 examples are more than 2**7
    federation, start = federate("pretrain.rounds=1"), initial(data)
    found = fedavg.pretrain(federation, start).payload.values
    updates = plain_fedavg(federation.config, data, scenario.held, start, fused=True)
    sizes, n = [len(part) for part in scenario.held], len(data.train_labels)
    for index in range(0, len(found), 97):
        total = sum(w * round(Fraction(float(u[index])) * 2**44) for u, w in zip(updates, sizes, strict=True))
        assert found[index] == np.float32(total / (n * 2.0**44))

    space = Workspace(federation.config, data, scenario)
    work = fedavg.FullTraining("pretrain", 1, 0, federation.config.train, "held")
    whole, one = (compute(space, work, start, clients) for clients in ([0, 1, 2, 3, 4], [3, 0]))
    joined = compute(space, work, start, [4, 1, 2], onto=one)
    assert np.array_equal(joined.total, whole.total)
    assert np.array_equal(joined.low, whole.low)
    assert whole.low.any()
    assert (joined.weight, [report.client for report in joined.reports]) == (whole.weight, [3, 0, 4, 1, 2])
    with pytest.raises(AssertionError, match="in the sum already"):
        compute(space, work, start, [2], onto=joined)


def test_the_scale_is_that_of_all_who_could_take_part_whoever_says_what_their_examples_are(federate, data, scenario):
    @dataclasses.dataclass(frozen=True)
    class Twice(fedavg.FullTraining):
        def indices(self, scenario, client):
            return np.repeat(scenario.held[client], 2)

    about = ("pretrain", 1, 0, federate().config.train, "retained")
    assert sum(map(len, scenario.retained)) == 150
    assert round_bits(fedavg.FullTraining(*about), scenario).bits == scale_bits(150) == 44
    assert round_bits(Twice(*about), scenario).bits == scale_bits(400) == 43


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
