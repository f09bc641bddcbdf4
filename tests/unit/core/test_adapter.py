"""The sparse adapter: its masks, where it starts, and that it comes off without a trace."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from fused_ray.config import RunConfig
from fused_ray.core import state
from fused_ray.core.adapter import (
    AttachedMasks,
    Mask,
    Masks,
    attached,
    masks_of,
    random_budget,
    random_mask,
    random_masks,
    start_values,
    worn,
)
from fused_ray.core.layers import layer_vector

LAYERS = ("conv", "fc")
SPECIAL = [-0.0, 0.0, *(float(np.float32(x)) for x in (1e-45, -1e-40, 1e30, 0.1))]
VALUES = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from(SPECIAL)


def small_model(memory_format=torch.channels_last):
    layers = OrderedDict(conv=nn.Conv2d(3, 4, (2, 3)), flatten=nn.Flatten(), fc=nn.Linear(8, 5))
    return nn.Sequential(layers).to(memory_format=memory_format)


def numbered(model):
    """The model with each layer's entry at position p set to p."""
    for name in LAYERS:
        layer = getattr(model, name)
        weight = torch.arange(layer.weight.numel(), dtype=torch.float32)
        layer.weight.data.copy_(weight.reshape(layer.weight.shape))
        layer.bias.data.copy_(torch.arange(len(layer.bias)) + layer.weight.numel())
    return model


def filled(model, values):
    state.write(model, state.Payload(values))
    return model


def bits(arrays):
    return {name: array.tobytes() for name, array in arrays.items()}


SIZE = state.read(small_model()).values.size
ENTRIES = {"conv": 76, "fc": 45}


# -- masks


@pytest.mark.parametrize(
    ("arguments", "digest"),
    [
        ((0, "fc3", 850, 0.5), "d9c654d3e0cd0fd082df94300f80c55dd24866754adf5b69e9b3cf1f97e5d1f5"),
        ((7, "conv1", 156, 0.5), "b7bb383f5a96cc51c0d4f4c97a2412ffb3a681d213139df427bbdc7bdb8b8a3b"),
    ],
)
def test_a_mask_is_the_one_that_it_has_always_been(arguments, digest):
    assert Masks((random_mask(*arguments),)).digest == digest


def test_a_mask_depends_on_seed_layer_size_density_and_draw():
    def digest(*arguments):
        return Masks((random_mask(*arguments),)).digest

    first = digest(1, "fc3", 850, 0.5, 0)
    assert digest(1, "fc3", 850, 0.5, 0) == first
    others = [
        digest(2, "fc3", 850, 0.5, 0),
        digest(1, "fc2", 850, 0.5, 0),
        digest(1, "fc3", 851, 0.5, 0),
        digest(1, "fc3", 850, 0.4, 0),
        digest(1, "fc3", 850, 0.5, 1),
    ]
    assert len({first, *others}) == 6


@pytest.mark.parametrize(("sparsity", "values"), [(0.0, 850), (0.5, 425), (0.9, 85), (0.95, 43), (0.999999, 1)])
def test_a_mask_keeps_the_nearest_whole_number_of_entries_and_at_least_one(sparsity, values):
    mask = random_mask(0, "fc3", 850, RunConfig.from_dict({"unlearn": {"sparsity": sparsity}}).adapter_density)
    assert len(mask.positions) == values
    assert mask.positions.dtype == np.int64
    assert (np.diff(mask.positions) > 0).all()
    assert 0 <= mask.positions[0] <= mask.positions[-1] < 850


@given(st.integers(1, 60), st.floats(0.001, 1), st.integers(0, 2**62))
def test_every_mask_is_ascending_and_within_its_layer(entries, density, seed):
    mask = random_mask(seed, "layer", entries, density)
    assert abs(len(mask.positions) - max(density * entries, 1)) <= 0.5
    assert np.array_equal(mask.positions, np.unique(mask.positions))
    assert mask.positions.min() >= 0
    assert mask.positions.max() < entries


def test_the_digest_changes_with_any_position_size_and_name():
    positions = np.array([1, 4, 6], np.int64)
    first = Masks((Mask("fc", 9, positions),))
    for index in range(3):
        moved = positions.copy()
        moved[index] += 1
        assert Masks((Mask("fc", 9, moved),)).digest != first.digest
    assert Masks((Mask("fc", 10, positions),)).digest != first.digest
    assert Masks((Mask("fd", 9, positions),)).digest != first.digest
    assert Masks((Mask("fc", 9, positions.copy()),)).digest == first.digest


# -- masks over several layers together

BUDGET_BASE = {name: np.zeros(size, np.float32) for name, size in (("a.weight", 40), ("a.bias", 4), ("b.weight", 16))}


def laid_end_to_end(masks):
    """The chosen positions among a's 44 entries and, behind them, b's 16."""
    return {start + p for mask in masks.layers for start in ({"a": 0, "b": 44}[mask.layer],) for p in mask.positions}


@given(st.integers(1, 80), st.integers(0, 5))
def test_a_random_budget_is_that_many_entries_over_all_layers_and_grows_by_adding(budget, draw):
    masks = random_budget(3, BUDGET_BASE, ("a", "b"), budget, draw)
    assert masks.size == min(budget, 60)
    for mask in masks.layers:
        assert mask.entries == {"a": 44, "b": 16}[mask.layer]
        assert mask.positions.dtype == np.int64
        assert np.array_equal(mask.positions, np.unique(mask.positions))
        assert 0 <= mask.positions[0] <= mask.positions[-1] < mask.entries
    more = random_budget(3, BUDGET_BASE, ("a", "b"), budget + 1, draw)
    assert laid_end_to_end(masks) <= laid_end_to_end(more)


def test_a_random_budget_depends_on_seed_layers_and_draw():
    def found(*arguments):
        return random_budget(*arguments).digest

    first = found(1, BUDGET_BASE, ("a", "b"), 12, 0)
    assert found(1, BUDGET_BASE, ("a", "b"), 12, 0) == first
    others = [found(2, BUDGET_BASE, ("a", "b"), 12, 0), found(1, BUDGET_BASE, ("a", "b"), 12, 1)]
    others.append(found(1, BUDGET_BASE, ("a",), 12, 0))
    assert len({first, *others}) == 4


def test_a_random_budget_reaches_every_layer_in_proportion():
    drawn = [laid_end_to_end(random_budget(0, BUDGET_BASE, ("a", "b"), 15, draw)) for draw in range(200)]
    counts = np.array([sum(position in one for one in drawn) for position in range(60)])
    assert counts.min() > 25  # 50 on average, with a standard deviation of 6
    assert counts.max() < 75


def test_positions_laid_end_to_end_are_split_into_the_layers_that_have_some():
    masks = masks_of({"a": 3, "b": 2, "c": 4}, np.array([8, 2, 5, 0]))
    assert [(m.layer, m.entries, m.positions.tolist()) for m in masks.layers] == [("a", 3, [0, 2]), ("c", 4, [0, 3])]
    assert (masks.names, masks.size, masks.entries) == (("a", "c"), 4, 7)


def test_values_are_split_layer_after_layer():
    masks = Masks((Mask("a", 5, np.array([0, 3])), Mask("b", 5, np.array([2])), Mask("c", 5, np.array([1, 4]))))
    parts = [(mask.layer, part.tolist()) for mask, part in masks.split(np.arange(5, dtype=np.float32))]
    assert masks.size == 5
    assert parts == [("a", [0, 1]), ("b", [2]), ("c", [3, 4])]


# -- where an adapter starts

WEIGHTS = {"in.weight": np.array([[3, 7]], np.float32), "fc.weight": np.array([[1.5, -2], [0.1, -0.0]], np.float32)}
WEIGHTS |= {"fc.bias": np.array([4, -5e-41], np.float32)}
START_MASKS = Masks((Mask("in", 2, np.array([1])), Mask("fc", 6, np.array([0, 1, 2, 3, 5]))))


@pytest.mark.parametrize(
    ("start", "expected"),
    [("zero", [0, 0, 0, 0, 0, 0]), ("reset", [0, -1.5, 2, -0.1, 0, 5e-41]), ("negate", [0, -3, 4, -0.2, 0, 1e-40])],
)
def test_start_values_by_hand_with_the_input_layer_at_zero(start, expected):
    values = start_values(START_MASKS, WEIGHTS, start, "in")
    assert values.dtype == np.float32
    assert values.tolist() == np.array(expected, np.float32).tolist()
    assert not np.signbit(values[values == 0]).any()


@given(arrays(np.float32, 6, elements=VALUES))
def test_a_reset_reads_exactly_zero_and_a_negation_exactly_minus_the_weight(weights):
    base = {"fc.weight": weights[:4].reshape(2, 2), "fc.bias": weights[4:], "in.weight": weights[:2]}
    masks = Masks((Mask("fc", 6, np.array([0, 2, 5])),))
    for start, factor in (("zero", 1), ("reset", 0), ("negate", -1)):
        after = layer_vector(masks.apply(base, start_values(masks, base, start, "in")), "fc")
        assert after[[0, 2, 5]].tolist() == (factor * weights[[0, 2, 5]]).tolist()
        assert after[[1, 3, 4]].tobytes() == weights[[1, 3, 4]].tobytes()


# -- on and off

CASE = st.tuples(
    arrays(np.float32, SIZE, elements=VALUES),
    st.integers(0, 10**6),
    st.sampled_from([0.02, 0.3, 1.0]),
    st.sampled_from([torch.channels_last, torch.contiguous_format]),
)


@given(CASE, st.data())
def test_an_adapter_that_was_trained_comes_off_without_a_trace(case, data):
    weights, seed, density, memory_format = case
    model = filled(small_model(memory_format), weights)
    before = state.arrays(model)
    masks = random_masks(seed, before, LAYERS, density)
    values = data.draw(arrays(np.float32, masks.size, elements=VALUES))
    with attached(model, masks, values) as (live, theta):
        for _ in range(2):
            theta.mul_(1.7).add_(0.1)
            live.write(theta)
    assert bits(state.arrays(model)) == bits(before)


@given(CASE, st.data())
def test_applying_to_arrays_gives_the_bits_of_the_live_model(case, data):
    weights, seed, density, memory_format = case
    model = filled(small_model(memory_format), weights)
    before = state.arrays(model)
    masks = random_masks(seed, before, LAYERS, density)
    values = data.draw(arrays(np.float32, masks.size, elements=VALUES))
    untouched = bits(before)
    with attached(model, masks, values):
        assert bits(state.arrays(model)) == bits(masks.apply(before, values))
    assert bits(before) == untouched


def test_the_adapter_comes_off_when_training_fails():
    model = numbered(small_model())
    before = state.arrays(model)
    masks = random_masks(0, before, LAYERS, 0.5)
    with pytest.raises(ZeroDivisionError), attached(model, masks, np.ones(masks.size, np.float32)):
        raise ZeroDivisionError
    assert bits(state.arrays(model)) == bits(before)


def test_the_adapter_comes_off_when_it_was_not_wholly_on():
    model = numbered(small_model())
    before = state.arrays(model)
    masks = random_masks(0, before, LAYERS, 0.5)
    live = masks.attach(model)
    live.write, whole = lambda theta: (whole(theta), 1 / 0) if (theta != live.base).any() else whole(theta), live.write
    with pytest.raises(ZeroDivisionError), worn(live, torch.ones(masks.size)):
        pass
    assert bits(state.arrays(model)) == bits(before)


def test_applying_changes_the_masked_entries_alone():
    before = state.arrays(numbered(small_model()))
    masks = random_masks(3, before, LAYERS, 0.3)
    after = masks.apply(before, np.full(masks.size, 0.5, np.float32))
    assert [array.shape for array in after.values()] == [array.shape for array in before.values()]
    for mask in masks.layers:
        changed = np.flatnonzero(layer_vector(after, mask.layer) != layer_vector(before, mask.layer))
        assert changed.tolist() == mask.positions.tolist()


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_positions_mean_the_logical_order_in_every_memory_format(memory_format):
    model = numbered(small_model(memory_format))
    assert model.conv.weight.is_contiguous() == (memory_format is torch.contiguous_format)
    masks = random_masks(1, state.arrays(model), LAYERS, 0.4)
    adapter = AttachedMasks(model, masks)
    expected = np.concatenate([mask.positions for mask in masks.layers])
    assert adapter.base.tolist() == expected.tolist()
    adapter.write(torch.arange(masks.size) + 1000.0)
    found = [layer_vector(state.arrays(model), mask.layer)[mask.positions] for mask in masks.layers]
    assert np.concatenate(found).tolist() == [1000 + i for i in range(masks.size)]
    assert model.conv.weight.is_contiguous() == (memory_format is torch.contiguous_format)


@pytest.mark.parametrize("of_model", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("of_gradient", [torch.channels_last, torch.contiguous_format])
def test_gradients_in_another_memory_format_are_gathered_in_the_same_order(of_model, of_gradient):
    model = numbered(small_model(of_model))
    masks = random_masks(2, state.arrays(model), LAYERS, 0.4)
    adapter = AttachedMasks(model, masks)
    gradients = [
        p.detach().clone().contiguous(memory_format=of_gradient if p.dim() == 4 else torch.contiguous_format)
        for p in adapter.parameters
    ]
    assert adapter.gather(gradients).tolist() == np.concatenate([m.positions for m in masks.layers]).tolist()


def test_parameters_without_a_masked_entry_are_left_out():
    model = small_model()
    adapter = AttachedMasks(model, Masks((Mask("conv", 76, np.array([75])), Mask("fc", 45, np.array([0, 39])))))
    assert [id(p) for p in adapter.parameters] == [id(model.conv.bias), id(model.fc.weight)]


def test_a_mask_made_for_another_size_is_refused():
    with pytest.raises(AssertionError, match="the mask of fc is for 44 entries, the layer has 45"):
        AttachedMasks(small_model(), Masks((Mask("fc", 44, np.array([0])),)))
