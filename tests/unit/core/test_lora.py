"""The low-rank adapter: its size, its start, its gradients, and that it comes off without a trace."""

from __future__ import annotations

from collections import OrderedDict
from math import exp, log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.func import functional_call

from fused_ray import models
from fused_ray.core import state, wire
from fused_ray.core.adapter import attached
from fused_ray.core.lora import AttachedLora, Lora, make_lora
from fused_ray.core.methods.fused import AdapterTraining
from fused_ray.core.pools import LocalPool
from fused_ray.core.simulation import simulate
from fused_ray.core.training import AdapterStep, batches, train_adapter
from fused_ray.core.workspace import Workspace
from fused_ray.types import Payload

LAYERS = ("conv", "fc")
FORMATS = [torch.channels_last, torch.contiguous_format]


def small_model(memory_format=torch.channels_last):
    layers = OrderedDict(conv=nn.Conv2d(3, 4, (2, 3)), flatten=nn.Flatten(), fc=nn.Linear(8, 5))
    return nn.Sequential(layers).to(memory_format=memory_format)


def filled(model, values):
    state.write(model, Payload(values))
    return model


def bits(arrays):
    return {name: array.tobytes() for name, array in arrays.items()}


SIZE = state.read(small_model()).values.size
SHAPE = make_lora(state.arrays(small_model()), LAYERS, 3, 6.0)


# -- its shape and its start


def test_the_released_codes_adapter_of_lenet_has_2000_values():
    base = state.arrays(models.build("lenet", (1, 28, 28), 10))
    adapter = make_lora(base, ["conv1", "fc3"], 16, 32.0)
    assert adapter.size == 16 * (6 + 25) + 16 * (10 + 84) == 2000
    assert adapter.entries == 6 * 25 + 10 * 84
    assert (adapter.names, adapter.scale) == (("conv1", "fc3"), 2.0)
    assert 8000 < len(wire.encode(Payload(adapter.start_values(0)))) < 8100


def test_it_starts_as_the_base_with_b_at_zero_and_a_within_its_bound():
    base = state.arrays(models.build("lenet", (1, 28, 28), 10))
    adapter = make_lora(base, ["conv1", "fc3"], 16, 32.0)
    values = adapter.start_values(0)
    assert (values.dtype, values.shape) == (np.float32, (2000,))
    for columns, (a, b) in zip((25, 84), adapter.split(torch.tensor(values)), strict=True):
        assert a.shape == (16, columns)
        assert not b.any()
        assert 0.9 * columns**-0.5 < a.abs().max() <= columns**-0.5
        assert abs(a.mean()) < 0.1 * columns**-0.5
    assert state.state_hash(adapter.apply(base, values)) == state.state_hash(base)


def test_the_start_depends_on_seed_and_layer_alone():
    base = state.arrays(models.build("lenet", (1, 28, 28), 10))
    alone, both = make_lora(base, ["fc3"], 4, 8.0), make_lora(base, ["fc2", "fc3"], 4, 8.0)
    start = alone.start_values(5)
    assert start.tobytes() == alone.start_values(5).tobytes() == both.start_values(5)[-start.size :].tobytes()
    assert start.tobytes() != alone.start_values(6).tobytes()
    twins = Lora(("one", "two"), ((5, 7), (5, 7)), 2, 4.0).start_values(0)
    assert not np.array_equal(twins[:14], twins[24:38])


def test_values_are_a_then_b_layer_after_layer():
    adapter = Lora(("one", "two"), ((2, 3), (1, 2, 1, 2)), 2, 2.0)
    assert adapter.size == 2 * (2 + 3) + 2 * (1 + 4)
    (a, b), (c, d) = adapter.split(torch.arange(20))
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert b.tolist() == [[6, 7], [8, 9]]
    assert c.tolist() == [[10, 11, 12, 13], [14, 15, 16, 17]]
    assert d.tolist() == [[18, 19]]


def test_a_product_by_hand():
    base = {"one.weight": np.array([[1, 2], [3, 4]], np.float32), "one.bias": np.array([5, 6], np.float32)}
    adapter = make_lora(base, ["one"], 1, 0.5)
    after = adapter.apply(base, np.array([1, -2, 3, 4], np.float32))  # A = (1, -2), B = (3, 4)
    assert after["one.weight"].tolist() == [[1 + 1.5, 2 - 3], [3 + 2, 4 - 4]]
    assert after["one.bias"].tolist() == [5, 6]
    assert base["one.weight"].tolist() == [[1, 2], [3, 4]]


def test_the_sum_is_rounded_once():
    base = {"one.weight": np.array([[-1]], np.float32)}
    factor = 1 + 2.0**-20
    after = make_lora(base, ["one"], 1, 1.0).apply(base, np.array([factor, factor], np.float32))
    assert after["one.weight"].item() == 2.0**-19 + 2.0**-40


def test_the_digest_changes_with_layers_shapes_rank_and_alpha():
    others = [
        Lora(("one",), ((2, 3),), 2, 4.0),
        Lora(("two",), ((2, 3),), 2, 4.0),
        Lora(("one",), ((3, 2),), 2, 4.0),
        Lora(("one",), ((2, 3),), 3, 4.0),
        Lora(("one",), ((2, 3),), 2, 8.0),
    ]
    assert len({adapter.digest for adapter in others}) == 5
    assert others[0].digest == Lora(("one",), ((2, 3),), 2, 4.0).digest


# -- on and off

WEIGHTS = arrays(np.float32, SIZE, elements=st.floats(-(2.0**100), 2.0**100, width=32))
VALUES = arrays(np.float32, SHAPE.size, elements=st.floats(-(2.0**50), 2.0**50, width=32))


@given(WEIGHTS, VALUES, st.sampled_from(FORMATS))
def test_applying_to_arrays_gives_the_bits_of_the_live_model(weights, values, memory_format):
    model = filled(small_model(memory_format), weights)
    before = state.arrays(model)
    untouched = bits(before)
    with attached(model, SHAPE, values):
        assert bits(state.arrays(model)) == bits(SHAPE.apply(before, values))
    assert bits(before) == untouched


@given(WEIGHTS, VALUES, st.sampled_from(FORMATS))
def test_an_adapter_that_was_trained_comes_off_without_a_trace(weights, values, memory_format):
    model = filled(small_model(memory_format), weights)
    before = bits(state.arrays(model))
    with attached(model, SHAPE, values) as (live, theta):
        for _ in range(2):
            theta.mul_(1.7).add_(0.1)
            live.write(theta)
    assert bits(state.arrays(model)) == before


def test_the_adapter_comes_off_when_training_fails():
    model = small_model()
    before = bits(state.arrays(model))
    with pytest.raises(ZeroDivisionError), attached(model, SHAPE, np.ones(SHAPE.size, np.float32)):
        raise ZeroDivisionError
    assert bits(state.arrays(model)) == before


# -- training


def explicit(adapter, base, values):
    """The parameters W + (alpha / rank) B A as autograd can follow them."""
    result = dict(base)
    for name, (a, b) in zip(adapter.names, adapter.split(values), strict=True):
        weight = base[f"{name}.weight"]
        result[f"{name}.weight"] = weight + adapter.alpha / adapter.rank * (b @ a).reshape(weight.shape)
    return result


@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradients_are_autograds_on_an_explicit_product(memory_format):
    torch.manual_seed(0)
    model = small_model(memory_format)
    x, y = torch.randn(7, 3, 2, 4).contiguous(memory_format=memory_format), torch.arange(7) % 5
    base = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    values = torch.randn(SHAPE.size).requires_grad_()
    loss = F.cross_entropy(functional_call(model, explicit(SHAPE, base, values), (x,)), y)
    (expected,) = torch.autograd.grad(loss, values)
    with attached(model, SHAPE, values.detach().numpy()) as (live, theta):
        found = live.gradient(theta, torch.autograd.grad(F.cross_entropy(model(x), y), live.parameters))
    assert expected.abs().min() > 0
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


def two_steps(step):
    """Two steps on the example x = 1 of class 0, from W = 0 with A = 1/2, B = (0, 0) and a scale of 2."""
    model = nn.Sequential(OrderedDict(fc=nn.Linear(1, 2)))
    model.fc.weight.data.zero_()
    model.fc.bias.data.zero_()
    space = SimpleNamespace(model=model, device=torch.device("cpu"), suffix=lambda cut, x: model(x))
    adapter = Lora(("fc",), ((2, 1),), 1, 2.0)
    y = torch.zeros(1, dtype=torch.int64)
    with attached(model, adapter, np.array([0.5, 0, 0], np.float32)) as (live, theta):
        order = iter([np.array([0]), np.array([0])])
        values, loss = train_adapter(space, step, live, theta, torch.ones(1, 1), y, 0, order)
        return values.tolist(), loss, model.fc.weight.flatten().tolist(), model.fc.bias.tolist()


def test_steps_with_momentum_by_hand():
    values, loss, weight, bias = two_steps(AdapterStep(lr=1.0, momentum=0.5, weight_decay=0.0))
    # first step: dW = (-1/2, 1/2), so dB = 2 dW A = (-1/2, 1/2) and dA = 0: B = (1/2, -1/2), logits 1/2 and -1/2
    # second step: dW = (-q, q), so dA = 2 B dW = -2q and dB = (-q, q), and B's velocity has half of the first step
    q = 1 / (1 + exp(1))
    a, b = 0.5 + 2 * q, 0.5 + 0.25 + q
    assert values == pytest.approx([a, b, -b], rel=1e-6)
    assert weight == pytest.approx([2 * a * b, -2 * a * b], rel=1e-6)
    assert bias == [0, 0]
    assert loss == pytest.approx((log(2) + log(1 + exp(-1))) / 2, rel=1e-6)


def test_weight_decay_pulls_both_factors():
    values, *_ = two_steps(AdapterStep(lr=1.0, momentum=0.0, weight_decay=0.1))
    # after the first step A = 0.45 and B = (1/2, -1/2), so the logits are 0.45 and -0.45
    q = 1 / (1 + exp(0.9))
    assert values == pytest.approx([0.45 + 2 * q - 0.045, 0.5 + 0.9 * q - 0.05, -(0.5 + 0.9 * q - 0.05)], rel=1e-6)


def test_the_layers_biases_and_the_other_layers_need_no_gradient():
    model = small_model()
    live = AttachedLora(model, SHAPE)
    assert [id(parameter) for parameter in live.parameters] == [id(model.conv.weight), id(model.fc.weight)]


# -- through a whole simulation

LORA = ["unlearn.adapter=lora", "unlearn.layers=[fc3, conv2]", "unlearn.rank=4", "unlearn.lr=0.05", "retrain.rounds=0"]


@pytest.fixture(scope="module")
def run(make_config, data, scenario, recorder):
    def make(*overrides):
        config, keeps = make_config(*LORA, *overrides), recorder()
        return keeps, simulate(config, data, scenario, LocalPool(config, data, scenario), keeps)

    return make


@pytest.fixture(scope="module")
def whole(run):
    return run()


def test_a_simulation_with_it_is_reversible_and_counts_its_bytes(whole):
    keeps, outcome = whole
    adapter, values = keeps.adapter
    assert (adapter.names, adapter.rank) == (("conv2", "fc3"), 4)
    assert adapter.size == 4 * (16 + 6 * 25) + 4 * (4 + 84) == values.size
    base = keeps.models["base"]
    assert outcome.restored_hash == outcome.base_hash == state.state_hash(base)
    assert outcome.unlearned_hash == state.state_hash(adapter.apply(base, values)) != outcome.base_hash
    sent = len(wire.encode(Payload(values)))
    rounds = [record for record in keeps.records if record.phase == "unlearn"]
    assert [(record.bytes_up, record.bytes_down) for record in rounds] == [(sent, sent)] * 3
    assert outcome.unlearned.mask_bytes == 0


def test_its_metrics_are_those_of_the_merged_model(whole, make_config, data, scenario):
    keeps, outcome = whole
    adapter, values = keeps.adapter
    assert outcome.unlearned.start_metrics == outcome.before
    space = Workspace(make_config(), data, scenario)
    (predicted,) = space.predict_model(state.flatten(adapter.apply(keeps.models["base"], values)), [0])
    for name, view in scenario.views.items():
        assert outcome.unlearned.metrics[name] == np.mean(predicted[view.indices] == view.labels)


def test_two_runs_have_the_same_bits_whatever_the_cache(run, whole):
    _, again = run("engine.prefix_cache_mb=0")
    assert again.unlearned_hash == whole[1].unlearned_hash
    _, other = run("unlearn.alpha=8")
    assert other.unlearned_hash != whole[1].unlearned_hash


def test_clients_train_values_that_change_the_model_as_a_plain_loop_does(whole, make_config, data, scenario):
    """One client's round against PyTorch's own optimiser on the factors."""
    keeps, _ = whole
    config = make_config(*LORA)
    base, (adapter, _) = keeps.models["base"], keeps.adapter
    space = Workspace(config, data, scenario)
    space.install(state.flatten(base))
    start = adapter.start_values(config.seed)
    step = AdapterStep(config.adapter_lr, config.train.momentum, 0.0)
    found = AdapterTraining("unlearn", 1, config.seed, config.train, step, adapter).update(space, Payload(start), 4)
    space.load(state.flatten(base))
    model = space.model.eval()
    values = torch.tensor(start, requires_grad=True)
    fixed = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD([values], lr=config.train.lr, momentum=config.train.momentum)
    indices = scenario.retained[4]
    for positions in batches(len(indices), config.train, config.seed, "unlearn", 1, 4):
        rows = indices[positions]
        logits = functional_call(model, explicit(adapter, fixed, values), (space.images("train", rows),))
        loss = F.cross_entropy(logits, space.labels(rows))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert np.abs(found.payload.values - start).max() > 0.01
    assert np.allclose(found.payload.values, values.detach().numpy(), rtol=1e-3, atol=1e-5)
