"""Masks chosen by saliency: the score by hand, the federated gradient against one plain pass, and what is sent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fused_ray import models
from fused_ray.config import schedule
from fused_ray.core import masks, saliency, state, wire
from fused_ray.core.adapter import random_budget, start_values
from fused_ray.core.gradient import log_odds
from fused_ray.core.layers import layer_vector
from fused_ray.core.making import Making
from fused_ray.core.masks import salient
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.saliency import Gradient, choose
from fused_ray.core.wire import Delivery
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError
from fused_ray.types import Payload

LAYERS = ("conv2", "fc3")
SETTINGS = ["unlearn.mask=saliency", "unlearn.layers=[conv2, fc3]", "unlearn.rounds=2"]


# -- which entries: -w * g by hand

BASE = {"a.weight": [[2, -1]], "a.bias": [3], "b.weight": [[1, 4]]}
BASE = {name: np.array(values, np.float32) for name, values in BASE.items()}
GRADIENT = np.array([-1, -1, 1, 2, -0.5], np.float32)  # scores 2, -1, -3, and -2, 2


def chosen(gradient, budget, density=0.5):
    masks = choose(BASE, ("a", "b"), gradient, budget, density)
    assert [mask.positions.dtype for mask in masks.layers] == [np.int64] * len(masks.layers)
    return {mask.layer: (mask.entries, mask.positions.tolist()) for mask in masks.layers}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1, {"a": (3, [0])}),  # of two that are level the first
        (2, {"a": (3, [0]), "b": (2, [1])}),
        (3, {"a": (3, [0, 1]), "b": (2, [1])}),
        (4, {"a": (3, [0, 1]), "b": (2, [0, 1])}),
        (99, {"a": (3, [0, 1, 2]), "b": (2, [0, 1])}),
    ],
)
def test_a_budget_takes_the_largest_over_all_layers(budget, expected):
    assert chosen(GRADIENT, budget) == expected


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        (0.1, {"a": (3, [0]), "b": (2, [1])}),
        (0.5, {"a": (3, [0, 1]), "b": (2, [1])}),
        (1.0, {"a": (3, [0, 1, 2]), "b": (2, [0, 1])}),
    ],
)
def test_a_density_takes_each_layers_share(density, expected):
    assert chosen(GRADIENT, None, density) == expected


def test_ties_are_broken_by_position():
    assert chosen(np.zeros(5, np.float32), 4) == {"a": (3, [0, 1, 2]), "b": (2, [0])}
    assert chosen(np.zeros(5, np.float32), None, 0.67) == {"a": (3, [0, 1]), "b": (2, [0])}
    gradient = -(np.arange(1000, dtype=np.float32) % 2)
    (mask,) = choose({"one.weight": np.ones(1000, np.float32)}, ["one"], gradient, 300, 1).layers
    assert mask.positions.tolist() == [*range(1, 600, 2)]


# -- the gradient


@pytest.fixture(scope="module")
def start(make_config, data, scenario, recorder):
    """A model that knows the data."""
    config = make_config("pretrain.rounds=4", "train.batch_size=8")
    federation = Federation(config, data, scenario, LocalPool(config, data, scenario), recorder())
    like = fedavg.initial(federation, "pretrain")
    return state.unflatten(fedavg.pretrain(federation, state.flatten(like)).payload, like)


@pytest.fixture
def federate(make_config, data, scenario, recorder, start):
    """`federate("unlearn.budget=9", ...)`: a federation whose base is installed; `on` and `saved` replace its parts."""

    def make(*overrides, on=scenario, saved=None):
        config = make_config(*SETTINGS, *overrides)
        pool = LocalPool(config, data, on)
        pool.install(state.flatten(start))
        return Federation(config, data, on, pool, recorder(saved))

    return make


def plain_gradient(base, data, labels, rows, layers=LAYERS):
    """Of the mean loss on some training examples, in one pass, and that loss."""
    model = models.build("lenet", (1, 28, 28), data.classes)
    state.write(model, state.flatten(base))
    x = (torch.tensor(data.train_images[rows], dtype=torch.float32) / 255 - 0.4) / 0.3
    loss = F.cross_entropy(model(x), torch.tensor(labels[rows]))
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return np.concatenate([layer_vector(gradients, layer) for layer in layers]), loss.item()


def test_what_speaks_against_a_label_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [-40.0, 40.0, 0.0]], requires_grad=True)
    loss = log_odds(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(-(2 - 1.3132617) - 40)  # log(1 + e) = 1.3133
    loss.backward()
    assert np.allclose(logits.grad, [[-1, 0.2689414, 0.7310586], [0, -1, 1]])  # the second is as good as certain


def test_a_margin_is_what_the_others_lack(federate, data, scenario, start):
    federation = federate("unlearn.saliency=margin")
    found_masks = saliency.masks(federation, start, LAYERS, Delivery(0))
    model = models.build("lenet", (1, 28, 28), data.classes)
    state.write(model, state.flatten(start))
    found = []
    for part in (scenario.forgotten, scenario.retained.__getitem__):
        rows = np.concatenate([part(client) for client in range(5)])
        x = (torch.tensor(data.train_images[rows], dtype=torch.float32) / 255 - 0.4) / 0.3
        probabilities = F.softmax(model(x), 1)[torch.arange(len(rows)), torch.tensor(data.train_labels[rows])]
        model.zero_grad()
        (-torch.logit(probabilities).mean()).backward()
        gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
        found.append(np.concatenate([layer_vector(gradients, layer) for layer in LAYERS]))
    assert np.allclose(sent(federation), np.concatenate(found), rtol=1e-2, atol=1e-5)
    score = -np.concatenate([layer_vector(start, layer) for layer in LAYERS]) * (found[0] - found[1])
    last = found_masks.layers[-1]
    of_last = score[-last.entries :]
    assert of_last[last.positions].min() >= np.delete(of_last, last.positions).max() - 1e-5


def test_what_heals_starts_at_zero_beside_what_was_chosen(federate, start):
    def adapter(*overrides):
        making = Making(federate("unlearn.start=negate", *overrides), start, dict.fromkeys(LAYERS), Delivery(0))
        return masks.sparse(making, None)

    chosen = adapter()
    for share in (0.25, 1.0):
        made = adapter(f"unlearn.heal={share}")
        assert made.told == chosen.told  # the others are known from the seed
        assert [mask.layer for mask in made.adapter.layers] == list(LAYERS)
        at = 0
        for before, after in zip(chosen.adapter.layers, made.adapter.layers, strict=True):
            others = after.entries - len(before.positions)
            assert len(after.positions) == len(before.positions) + int(share * others + 0.5)
            values = made.values[at : at + len(after.positions)]
            at += len(values)
            healing = ~np.isin(after.positions, before.positions)
            assert not values[healing].any()
            assert healing.sum() == int(share * others + 0.5)
            assert np.array_equal(values[~healing], -2 * layer_vector(start, before.layer)[before.positions])
        assert at == made.values.size == made.adapter.size
        assert made.healing == made.adapter.size - chosen.adapter.size > chosen.healing == 0
        assert made.values.any()
        assert made.values.dtype == np.float32


@pytest.mark.parametrize(
    ("fields", "starts_at_zero"),
    [
        ((), True),
        (("unlearn.start_input=true",), False),
        (("unlearn.start_input=true", "unlearn.sparsity=0"), True),  # nothing would reach the other layers
    ],
)
def test_a_part_of_the_input_layer_may_start_as_the_others_do(federate, start, fields, starts_at_zero):
    federation = federate("unlearn.start=negate", "unlearn.layers=[conv1, fc3]", *fields)
    made = masks.sparse(Making(federation, start, dict.fromkeys(("conv1", "fc3")), Delivery(0)), None)
    first = made.adapter.layers[0]
    weights = layer_vector(start, "conv1")[first.positions]
    expected = 0 * weights if starts_at_zero else -2 * weights
    assert np.array_equal(made.values[: len(weights)], expected)
    assert np.count_nonzero(made.values[len(weights) :])


def test_a_mask_of_all_of_the_input_layer_cannot_start_as_it_is_told(federate, start):
    federation = federate(
        "unlearn.start=negate", "unlearn.layers=[conv1]", "unlearn.start_input=true", "unlearn.budget=999"
    )
    with pytest.raises(ConfigError, match=r"unlearn.start: a mask of all of the input layer conv1 starts at zero"):
        masks.sparse(Making(federation, start, dict.fromkeys(["conv1"]), Delivery(0)), None)


def test_where_all_heals_and_nothing_is_negated_nobody_is_asked(federate, start):
    federation = federate("unlearn.start=zero", "unlearn.heal=1")
    assert "saliency" not in schedule.rounds(federation.config)
    made = masks.sparse(Making(federation, start, dict.fromkeys(LAYERS), Delivery(0)), None)
    assert not federation.recorder.records
    assert made.adapter.size == made.adapter.entries == made.healing


def test_a_layer_without_chosen_entries_heals_too(federate, start):
    federation = federate("unlearn.heal=1", "unlearn.budget=1", "unlearn.start=negate")
    made = masks.sparse(Making(federation, start, dict.fromkeys(LAYERS), Delivery(0)), None)
    assert made.adapter.size == made.adapter.entries
    assert np.count_nonzero(made.values) == 1


def sent(federation):
    """What the server knows after the last round of gradients."""
    return federation.recorder.saved["saliency"].payload.values


def test_the_mean_over_clients_is_the_gradient_on_all_that_must_be_forgotten(federate, data, scenario, start):
    federation = federate()
    saliency.masks(federation, start, LAYERS, Delivery(0))
    rows = np.concatenate([scenario.forgotten(client) for client in range(5)])
    assert len({len(scenario.forgotten(client)) for client in range(5)}) == 5
    expected, loss = plain_gradient(start, data, data.train_labels, rows)
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(sent(federation), expected, rtol=1e-3, atol=1e-6)
    (record,) = federation.recorder.records
    assert record.loss == pytest.approx(loss, rel=1e-5)


def test_a_mask_that_keeps_everything_asks_nobody(federate, start):
    for given, asked in (["unlearn.sparsity=0"], 0), (["unlearn.sparsity=0", "unlearn.budget=30"], 2):
        federation = federate("unlearn.saliency=difference", *given)
        found = salient(Making(federation, start, dict.fromkeys(LAYERS), Delivery(0)), None)
        assert schedule.rounds(federation.config).get("saliency", 0) == len(federation.recorder.records) == asked
        if not asked:
            assert found.digest == choose(start, LAYERS, np.zeros(found.size), None, 1.0).digest
            assert [mask.positions.tolist() for mask in found.layers] == [list(range(m.entries)) for m in found.layers]


def test_the_gradient_is_of_the_labels_that_clients_train_on(federate, data, scenario, start):
    flipped = dataclasses.replace(scenario, train_labels=(scenario.train_labels + 1) % 4)
    federation = federate(on=flipped)
    saliency.masks(federation, start, LAYERS, Delivery(0))
    rows = np.flatnonzero(data.train_labels == 0)
    expected, _ = plain_gradient(start, data, flipped.train_labels, rows)
    assert np.allclose(sent(federation), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("on", ["forgotten", "retained"])
def test_a_client_with_several_blocks_of_examples_sends_their_mean(make_config, make_data, make_scenario, start, on):
    data = make_data(train=1200)
    one = make_scenario(data, 1)
    space = Workspace(make_config(), data, one)
    space.install(state.flatten(start))
    before = state.state_hash(start)
    work = Gradient("saliency", 1, on, LAYERS)
    rows = work.indices(one, 0)
    assert len(rows) in (300, 900)
    assert set(data.train_labels[rows]) == ({0} if on == "forgotten" else {1, 2, 3})
    update = work.update(space, Payload(np.zeros(1, np.float32)), 0)
    expected, loss = plain_gradient(start, data, data.train_labels, rows)
    assert np.allclose(update.payload.values, expected, rtol=1e-3, atol=1e-6)
    assert update.loss == pytest.approx(loss, rel=1e-5)
    assert space.base_hashes() == [before] * 2


def test_the_mask_takes_the_entries_with_the_largest_score(federate, start):
    federation = federate("unlearn.budget=30")
    masks = saliency.masks(federation, start, LAYERS, Delivery(0))
    vectors = {layer: layer_vector(start, layer) for layer in LAYERS}
    score = -np.concatenate(list(vectors.values())) * sent(federation)
    positions = {mask.layer: mask.positions for mask in masks.layers}
    inside = np.concatenate([np.isin(np.arange(v.size), positions.get(layer, [])) for layer, v in vectors.items()])
    assert masks.size == inside.sum() == 30
    assert score[inside].min() >= score[~inside].max()


def test_the_difference_sets_the_retained_datas_gradient_against_it(federate, data, start):
    federation = federate("unlearn.saliency=difference", "unlearn.budget=30")
    found = saliency.masks(federation, start, LAYERS, Delivery(0))
    gone, kept = data.train_labels == 0, data.train_labels != 0
    g_u, _ = plain_gradient(start, data, data.train_labels, np.flatnonzero(gone))
    g_r, _ = plain_gradient(start, data, data.train_labels, np.flatnonzero(kept))
    assert np.allclose(sent(federation), np.concatenate([g_u, g_r]), rtol=1e-3, atol=1e-6)
    values = sent(federation)
    assert found.digest == choose(start, LAYERS, values[: len(g_u)] - values[len(g_u) :], 30, 0).digest
    assert found.digest != saliency.masks(federate("unlearn.budget=30"), start, LAYERS, Delivery(0)).digest


def test_removing_what_it_chose_hurts_the_forgotten_data_more_than_removing_others(federate, data, start):
    rows = np.flatnonzero(data.train_labels == 0)

    def loss(masks):
        values = start_values(masks, start, "reset", "conv1")
        return plain_gradient(masks.apply(start, values), data, data.train_labels, rows)[1]

    found = loss(saliency.masks(federate("unlearn.budget=18"), start, LAYERS, Delivery(0)))
    others = [loss(random_budget(0, start, LAYERS, 18, draw)) for draw in range(5)]
    assert found > max(others) + 0.2


# -- who sends what


def test_only_clients_that_hold_such_data_send(federate, scenario, start):
    some = tuple(part if client in (1, 3) else scenario.held[client] for client, part in enumerate(scenario.retained))
    federation = federate("unlearn.saliency=difference", on=dataclasses.replace(scenario, retained=some))
    saliency.masks(federation, start, LAYERS, Delivery(0))
    assert [(r.phase, r.round, r.clients_used) for r in federation.recorder.records] == [
        ("saliency", 1, 2),
        ("saliency", 2, 5),
    ]


def test_bytes_are_one_gradient_up_and_once_the_mask_down(federate, start):
    federation = federate("unlearn.budget=40")
    found = fused.unlearn(federation, start)
    gradient, *rounds = federation.recorder.records
    size = 16 * (6 * 25 + 1) + 4 * (84 + 1)
    assert gradient.bytes_up == wire.values_bytes(size) == len(wire.encode(Payload(np.ones(size, np.float32))))
    assert found.mask_bytes == wire.mask_bytes(found.adapter)
    assert gradient.bytes_down == 0
    assert [record.bytes_up for record in rounds] == [wire.values_bytes(40)] * 2
    assert [record.bytes_down for record in rounds] == [wire.values_bytes(40)] * 2
    assert [record.once for record in rounds] == [dict.fromkeys(range(5), found.mask_bytes), {}]


def test_it_forgets_without_any_round_of_training(federate, start):
    federation = federate("unlearn.rounds=0", "unlearn.budget=18", "unlearn.start=negate")
    found = fused.unlearn(federation, start)
    assert [record.phase for record in federation.recorder.records] == ["saliency"]
    assert found.metrics == found.start_metrics
    assert found.adapter.size == 18
    for name, array in found.adapter.apply(start, found.values).items():
        assert found.state[name].tobytes() == array.tobytes()
        assert np.array_equal(np.abs(array), np.abs(start[name]))


def test_it_resumes_between_its_two_rounds(federate, start):
    whole = federate("unlearn.saliency=difference", "unlearn.budget=18")
    expected = fused.unlearn(whole, start)
    for number in (1, 2):
        saved = {"saliency": whole.recorder.rounds["saliency", number]}
        again = federate("unlearn.saliency=difference", "unlearn.budget=18", saved=saved)
        found = fused.unlearn(again, start)
        left = [(record.phase, record.round) for record in again.recorder.records]
        assert left == [("saliency", 2)] * (number == 1) + [("unlearn", 1), ("unlearn", 2)]
        assert found.adapter.digest == expected.adapter.digest
        assert found.values.tobytes() == expected.values.tobytes()


def test_the_same_bits_come_out_twice_and_whatever_the_cache(federate, start):
    first, again, uncached = (
        fused.unlearn(federate("unlearn.budget=18", *more), start) for more in ((), (), ("engine.prefix_cache_mb=0",))
    )
    assert first.adapter.digest == again.adapter.digest == uncached.adapter.digest
    assert first.values.tobytes() == again.values.tobytes() == uncached.values.tobytes()
