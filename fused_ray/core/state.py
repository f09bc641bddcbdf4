"""A model's whole state, buffers included, as one flat payload or as named arrays, and its hash.

A payload holds the tensors in the order of their names, so that it does not matter where a state comes from: a file
lists them in another order than a module does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fused_ray.types import FloatVector, IntVector, Payload, Spans

Arrays = dict[str, NDArray[np.generic]]


def state_hash(state: Mapping[str, NDArray[np.generic]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.asarray(state[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def arrays(model: nn.Module) -> Arrays:
    """Copies of all parameters and buffers by name, each in its logical (contiguous) order."""
    return {name: tensor.detach().cpu().contiguous().numpy().copy() for name, tensor in model.state_dict().items()}


def flatten(state: Mapping[str, NDArray[np.generic]]) -> Payload:
    """All floating values in one float32 vector and all integers in one int64 vector, in the order of the names."""
    ordered = [state[name] for name in sorted(state)]
    floats = [a.ravel() for a in ordered if np.issubdtype(a.dtype, np.floating)]
    counters = [a.ravel() for a in ordered if np.issubdtype(a.dtype, np.integer)]
    return Payload(
        np.concatenate(floats).astype(np.float32, copy=False),
        np.concatenate(counters).astype(np.int64, copy=False) if counters else np.zeros(0, np.int64),
    )


def unflatten(payload: Payload, like: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """The named arrays of a payload; `like` gives names, shapes and dtypes."""
    state: Arrays = {}
    float_at = counter_at = 0
    for name in sorted(like):
        array = like[name]
        if np.issubdtype(array.dtype, np.floating):
            values: NDArray[np.generic] = payload.values[float_at : float_at + array.size]
            float_at += array.size
        else:
            values = payload.counters[counter_at : counter_at + array.size]
            counter_at += array.size
        state[name] = values.reshape(array.shape).astype(array.dtype, copy=False)
    assert float_at == payload.values.size
    assert counter_at == payload.counters.size
    return state


def read(model: nn.Module) -> Payload:
    """The model's state as a payload."""
    return flatten(arrays(model))


@torch.no_grad()
def write(model: nn.Module, payload: Payload) -> None:
    """Load a payload into the model in place, keeping its memory format and device."""
    floats, counters = torch.tensor(payload.values), torch.tensor(payload.counters)
    float_at = counter_at = 0
    for _, tensor in sorted(model.state_dict().items()):
        size = tensor.numel()
        if tensor.is_floating_point():
            tensor.copy_(floats[float_at : float_at + size].reshape(tensor.shape))
            float_at += size
        else:
            tensor.copy_(counters[counter_at : counter_at + size].reshape(tensor.shape))
            counter_at += size
    assert float_at == floats.numel()
    assert counter_at == counters.numel()


def spans(model: nn.Module) -> list[slice]:
    """Where each parameter that learns lies in a payload's values [P]; the rest are buffers and frozen parameters."""
    parameters = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    places, at = [], 0
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            if name in parameters:
                places.append(slice(at, at + tensor.numel()))
            at += tensor.numel()
    return places


def parameters(model: nn.Module) -> IntVector:
    """The positions of all parameters that learn in a payload's values, ascending."""
    return np.concatenate([np.arange(span.start, span.stop) for span in spans(model)])


def fixed(model: nn.Module) -> Spans:
    """Where the values lie that no optimiser moves: buffers and frozen parameters."""
    size = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    free = spans(model)
    starts, stops = [0, *(span.stop for span in free)], [*(span.start for span in free), size]
    return tuple((start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop)


@contextmanager
def asking(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, gradients lead to these parameters alone; afterwards to those that the model's maker left free."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, free in before:
            parameter.requires_grad_(free)


def trained_change(model: nn.Module, before: Payload, after: Payload) -> FloatVector:
    """What training changed of a model's values [P]; fixed ones, which a pass in training mode may move, read zero."""
    change = np.zeros_like(before.values)
    for span in spans(model):
        change[span] = after.values[span] - before.values[span]
    return change
