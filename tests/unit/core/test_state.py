"""A model's state as arrays, as one payload, and as a hash."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fused_ray.core import state
from fused_ray.types import Payload


def batch_norm_model():
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), flatten=nn.Flatten(), fc=nn.Linear(4, 2))
    model = nn.Sequential(layers).to(memory_format=torch.channels_last)
    model.norm.num_batches_tracked.fill_(2**40 + 1)
    model.norm.running_var.fill_(3.5)
    return model


STATE = {
    "a": np.array([[1.5, -0.0], [1e-45, 3]], np.float32),
    "b": np.array([7, 8], np.int64),
    "c": np.zeros(3, np.float32),
}


@given(st.sampled_from(sorted(STATE)), st.integers(0, 15), st.integers(0, 7))
def test_the_hash_changes_with_any_bit(name, byte, bit):
    changed = {key: array.copy() for key, array in STATE.items()}
    raw = changed[name].reshape(-1).view(np.uint8)
    raw[byte % raw.size] ^= 1 << bit
    assert state.state_hash(changed) != state.state_hash(STATE)


@pytest.mark.parametrize(
    "changed",
    [
        {"A": STATE["a"], "b": STATE["b"], "c": STATE["c"]},
        {"a": STATE["a"].astype(np.float64), "b": STATE["b"], "c": STATE["c"]},
        {"a": STATE["a"].view(np.int32), "b": STATE["b"], "c": STATE["c"]},
        {"a": STATE["a"].reshape(4), "b": STATE["b"], "c": STATE["c"]},
        {"a": STATE["a"], "b": STATE["b"]},
        {**STATE, "d": np.zeros(0, np.float32)},
        {"a": STATE["a"], "c": STATE["b"], "b": STATE["c"]},
    ],
)
def test_the_hash_changes_with_names_dtypes_and_shapes(changed):
    assert state.state_hash(changed) != state.state_hash(STATE)


def test_the_hash_knows_neither_order_of_names_nor_memory_layout():
    turned = {name: np.asfortranarray(STATE[name]) for name in reversed(list(STATE))}
    assert state.state_hash(turned) == state.state_hash(STATE)
    model = batch_norm_model()
    expected = state.state_hash(state.arrays(model))
    assert state.state_hash(state.arrays(model.to(memory_format=torch.contiguous_format))) == expected


def test_arrays_are_copies_in_logical_order():
    model = batch_norm_model()
    arrays = state.arrays(model)
    assert np.array_equal(arrays["conv.weight"], model.conv.weight.detach().numpy())
    assert arrays["conv.weight"].flags.c_contiguous
    before = arrays["fc.bias"].copy()
    with torch.no_grad():
        model.fc.bias += 1
    assert np.array_equal(arrays["fc.bias"], before)


def test_flattening_and_back_keeps_every_bit_of_floats_and_counters():
    arrays = state.arrays(batch_norm_model())
    payload = state.flatten(arrays)
    assert payload.values.dtype == np.float32
    assert payload.counters.tolist() == [2**40 + 1]
    assert payload.values.size == 4 * 27 + 4 + 4 * 4 + 8 + 2
    back = state.unflatten(payload, arrays)
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_the_order_in_which_a_state_lists_its_tensors_does_not_matter():
    arrays = state.arrays(batch_norm_model())
    turned = dict(reversed(arrays.items()))
    assert state.flatten(turned).values.tobytes() == state.flatten(arrays).values.tobytes()
    model = batch_norm_model()
    state.write(model, state.flatten(turned))
    assert state.state_hash(state.arrays(model)) == state.state_hash(arrays)


def test_a_state_without_counters_has_an_empty_vector_of_them():
    payload = state.flatten({"w": np.array([[1, 2]], np.float32)})
    assert (payload.counters.dtype, payload.counters.size) == (np.int64, 0)


def test_writing_loads_every_value_and_keeps_the_memory_format():
    source, target = batch_norm_model(), batch_norm_model()
    target.norm.num_batches_tracked.zero_()
    state.write(target, state.read(source))
    assert state.state_hash(state.arrays(target)) == state.state_hash(state.arrays(source))
    assert target.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not target.conv.weight.is_contiguous()
    assert target.norm.num_batches_tracked.item() == 2**40 + 1


def test_writing_from_a_read_only_array_leaves_it_alone():
    model = batch_norm_model()
    payload = state.read(model)
    payload.values.setflags(write=False)
    state.write(model, payload)
    with torch.no_grad():
        model.fc.bias += 1
    assert np.array_equal(state.unflatten(payload, state.arrays(model))["fc.bias"] + 1, model.fc.bias.detach().numpy())


@pytest.mark.parametrize("change", [-1, 1])
def test_a_payload_of_another_size_is_refused(change):
    arrays = state.arrays(batch_norm_model())
    payload = state.flatten(arrays)
    wrong = Payload(np.resize(payload.values, payload.values.size + change), payload.counters)
    with pytest.raises((AssertionError, ValueError)):
        state.unflatten(wrong, arrays)
    with pytest.raises((AssertionError, RuntimeError)):
        state.write(batch_norm_model(), wrong)
