"""Local training against hand-computed steps and PyTorch's own optimiser."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from math import exp, log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fused_ray import models
from fused_ray.config import TrainConfig
from fused_ray.core import state
from fused_ray.core.adapter import Mask, Masks, attached, random_masks
from fused_ray.core.training import AdapterStep, batches, train_adapter, train_model
from fused_ray.core.workspace import Workspace


def linear_space(weight):
    """A stand-in for a workspace: one linear layer from 1 input to 2 classes, bias 0."""
    model = nn.Sequential(OrderedDict(fc=nn.Linear(1, 2)))
    model.fc.weight.data.fill_(weight)
    model.fc.bias.data.zero_()
    return SimpleNamespace(model=model, device=torch.device("cpu"), suffix=lambda cut, x: model(x))


def two_steps(step, weight=0.0):
    """Two steps on the example x = 1 of class 0, with the first weight and the second bias free."""
    space = linear_space(weight)
    masks = Masks((Mask("fc", 4, np.array([0, 3])),))
    with attached(space.model, masks, np.zeros(2, np.float32)) as (adapter, theta):
        order = iter([np.array([0]), np.array([0])])
        y = torch.zeros(1, dtype=torch.int64)
        values, loss = train_adapter(space, step, adapter, theta, torch.ones(1, 1), y, 0, order)
        return values, loss, copy.deepcopy(space.model.fc)


def test_masked_steps_with_momentum_by_hand():
    values, loss, layer = two_steps(AdapterStep(lr=1.0, momentum=0.5, weight_decay=0.0))
    # first step: both probabilities are 1/2, gradients -1/2 and 1/2; then the logits are 1/2 and -1/2
    wrong = 1 / (1 + exp(1))
    second = 0.5 + (0.5 * 0.5 + wrong)
    assert values.tolist() == pytest.approx([second, -second], rel=1e-6)
    assert loss == pytest.approx((log(2) + log(1 + exp(-1))) / 2, rel=1e-6)
    assert layer.weight.flatten().tolist() == pytest.approx([second, 0.0], rel=1e-6)
    assert layer.bias.tolist() == pytest.approx([0.0, -second], rel=1e-6)


def test_weight_decay_pulls_the_adapters_values_not_the_weights():
    values, _, layer = two_steps(AdapterStep(lr=1.0, momentum=0.5, weight_decay=0.1), weight=2.0)
    # the first step starts at a = 0 and has no decay although w = 2; the second one adds 0.1 * a, a = 1/2
    wrong = 1 / (1 + exp(1))
    second = 0.5 + (0.5 * 0.5 + wrong - 0.1 * 0.5)
    assert values.tolist() == pytest.approx([second, -second], rel=1e-6)
    assert layer.weight.flatten().tolist() == pytest.approx([2 + second, 2.0], rel=1e-6)


def test_values_come_back_as_the_difference_to_the_frozen_weights():
    values, _, layer = two_steps(AdapterStep(lr=0.3, momentum=0.0, weight_decay=0.0), weight=2.0)
    assert values[0].item() == (layer.weight[0, 0] - 2.0).item()
    assert values[1].item() == layer.bias[1].item()


def lenet_space(config, data, scenario):
    result = Workspace(config, data, scenario)
    result.load(state.read(models.initialise("lenet", (1, 28, 28), data.classes, 0, "init")))
    return result


@pytest.fixture
def space(make_config, data, scenario):
    return lenet_space(make_config(), data, scenario)


def test_entries_outside_the_mask_never_change(space):
    base = state.read(space.model)
    space.install(base)
    space.use_base()
    before = state.arrays(space.model)
    masks = random_masks(0, before, ("conv2", "fc1", "fc3"), 0.3)
    free = {name: np.zeros(array.size, bool) for name, array in before.items()}
    for mask in masks.layers:
        weight = free[f"{mask.layer}.weight"]
        inside = mask.positions[mask.positions < weight.size]
        weight[inside] = True
        free[f"{mask.layer}.bias"][mask.positions[len(inside) :] - weight.size] = True
    indices = space.scenario.retained[4]
    x, y = space.activations("train", indices, 1), space.labels(indices)
    order = batches(len(indices), TrainConfig(batch_size=8), 0, "unlearn", 1, 4)
    with attached(space.model, masks, np.zeros(masks.size, np.float32)) as (adapter, theta):
        values, _ = train_adapter(space, AdapterStep(0.1, 0.9, 0.01), adapter, theta, x, y, 1, order)
        for name, array in state.arrays(space.model).items():
            changed = array.ravel() != before[name].ravel()
            assert not (changed & ~free[name]).any(), name
            assert changed[free[name]].any() == free[name].any(), name
    assert np.count_nonzero(values.numpy()) > masks.size / 2


def test_an_adapter_over_everything_trains_like_torch_sgd(space):
    """With all entries free and no weight decay, the masked steps are plain SGD."""
    base = state.read(space.model)
    space.install(base)
    space.use_base()
    names = ("conv1", "conv2", "fc1", "fc2", "fc3")
    masks = random_masks(0, state.arrays(space.model), names, 1.0)
    indices = space.scenario.held[3]
    x, y = space.activations("train", indices, 0), space.labels(indices)
    train = TrainConfig(lr=0.05, batch_size=16, local_epochs=2, weight_decay=0.0)
    with attached(space.model, masks, np.zeros(masks.size, np.float32)) as (adapter, theta):
        step = AdapterStep(train.lr, train.momentum, 0.0)
        _, loss = train_adapter(space, step, adapter, theta, x, y, 0, batches(len(x), train, 0, "p", 1, 3))
        found = state.read(space.model).values
    expected, expected_loss = plain_sgd(space, base, train, indices, batches(len(x), train, 0, "p", 1, 3))
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)


def plain_sgd(space, start, train, indices, order):
    """The textbook loop: PyTorch's optimiser in its plainest form, images in their plain memory format."""
    model = copy.deepcopy(space.model).to(memory_format=torch.contiguous_format)
    state.write(model, start)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay, foreach=False
    )
    images = (torch.tensor(space.data.train_images, dtype=torch.float32) / 255 - 0.4) / 0.3
    labels = torch.tensor(space.scenario.train_labels)
    losses = []
    for positions in order:
        rows = torch.tensor(indices[positions])
        loss = F.cross_entropy(model(images[rows]), labels[rows], reduction="none")
        losses += loss.tolist()
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    return state.read(model).values, sum(losses) / len(losses)


def test_training_a_model_equals_a_plain_torch_loop(make_config, data, scenario):
    # Flat images have ties under a max-pool, and which of them wins is up to a processor's rounding; noise has none.
    noise = np.random.default_rng(0).integers(0, 256, data.train_images.shape, dtype=np.uint8)
    space = lenet_space(make_config(), dataclasses.replace(data, train_images=noise), scenario)
    start = state.read(space.model)
    train = TrainConfig(lr=0.05, batch_size=16, local_epochs=2, weight_decay=0.01)
    indices = space.scenario.held[4]
    loss = train_model(space, train, indices, batches(len(indices), train, 3, "pretrain", 1, 4))
    found = state.read(space.model).values
    order = batches(len(indices), train, 3, "pretrain", 1, 4)
    expected, expected_loss = plain_sgd(space, start, train, indices, order)
    assert np.abs(expected - start.values).max() > 0.01
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)


def test_a_fresh_optimiser_begins_each_training(space):
    start = state.read(space.model)
    train = TrainConfig(lr=0.05, batch_size=16)
    indices = space.scenario.held[2]
    results = []
    for _ in range(2):
        space.load(start)
        train_model(space, train, indices, batches(len(indices), train, 0, "pretrain", 1, 2))
        results.append(state.read(space.model).values.tobytes())
    assert results[0] == results[1]


def test_a_model_trains_whole_after_an_adapter_froze_most_of_it(space):
    start = state.read(space.model)
    space.install(start)
    space.use_base()
    masks = random_masks(0, state.arrays(space.model), ("fc3",), 0.5)
    indices = space.scenario.held[1]
    x, y = space.activations("train", indices, 4), space.labels(indices)
    train = TrainConfig(batch_size=16)
    with attached(space.model, masks, np.zeros(masks.size, np.float32)) as (adapter, theta):
        train_adapter(
            space, AdapterStep(0.1, 0.9, 0), adapter, theta, x, y, 4, batches(len(x), train, 0, "unlearn", 1, 1)
        )
    space.load(start)
    train_model(space, train, indices, batches(len(indices), train, 0, "retrain", 1, 1))
    after = state.arrays(space.model)
    before = state.unflatten(start, after)
    assert all(not np.array_equal(after[name], before[name]) for name in after)


@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 3))
def test_batches_cover_every_example_once_an_epoch(examples, batch_size, epochs):
    train = TrainConfig(batch_size=batch_size, local_epochs=epochs)
    found = list(batches(examples, train, 0, "pretrain", 1, 2))
    per_epoch = -(-examples // batch_size)
    assert len(found) == epochs * per_epoch
    for epoch in range(epochs):
        part = found[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert [len(batch) for batch in part[:-1]] == [batch_size] * (per_epoch - 1)
        assert np.array_equal(np.sort(np.concatenate(part)), np.arange(examples))


@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 40))
def test_local_steps_are_the_first_batches_of_as_many_epochs_as_they_take(examples, batch_size, steps):
    train = TrainConfig(batch_size=batch_size, local_steps=steps)
    found = [batch.tolist() for batch in batches(examples, train, 0, "pretrain", 1, 2)]
    many = TrainConfig(batch_size=batch_size, local_epochs=steps)
    assert found == [batch.tolist() for batch in batches(examples, many, 0, "pretrain", 1, 2)][:steps]
    assert len(found) == train.steps(examples) == steps
    assert sum(map(len, found)) == train.shown(examples)


def test_two_steps_with_a_proximal_term_by_hand():
    space = linear_space(0.0)
    space.model.fc.bias.requires_grad_(False)
    space.images, space.labels = (lambda source, rows, shown: torch.ones(1, 1)), (lambda rows: torch.zeros(1).long())
    train = TrainConfig(lr=1.0, momentum=0.0, weight_decay=0.0, proximal=0.1)
    loss = train_model(space, train, np.array([7]), iter([np.array([0])] * 2))
    # the first gradient is (-1/2, 1/2) and leads to (1/2, -1/2); the second has 0.1 (w - w_0) beside the loss's own
    wrong = 1 / (1 + exp(1))
    assert space.model.fc.weight.flatten().tolist() == pytest.approx([0.5 + wrong - 0.05, -0.5 - wrong + 0.05])
    assert loss == pytest.approx((log(2) + log(1 + exp(-1))) / 2)  # of the data alone


@pytest.mark.parametrize(("examples", "last"), [(64, 64), (65, 1), (66, 2), (67, 3), (127, 63), (128, 64), (1, 1)])
def test_the_last_batch_may_be_short(examples, last):
    sizes = [len(batch) for batch in batches(examples, TrainConfig(batch_size=64), 0, "pretrain", 1, 0)]
    assert sizes == [64] * ((examples - 1) // 64) + [last]


def test_the_order_depends_on_seed_phase_epoch_round_and_client():
    def order(seed, phase, round, client):
        return np.concatenate(list(batches(50, TrainConfig(local_epochs=2), seed, phase, round, client)))

    first = order(0, "pretrain", 1, 0)
    assert np.array_equal(order(0, "pretrain", 1, 0), first)
    assert not np.array_equal(first[:50], first[50:])
    others = [order(1, "pretrain", 1, 0), order(0, "retrain", 1, 0), order(0, "pretrain", 2, 0)]
    others.append(order(0, "pretrain", 1, 1))
    assert len({first.tobytes(), *(other.tobytes() for other in others)}) == 5
