"""The proof that an adapter comes off without a trace: of a live model that has worked with it on."""

from __future__ import annotations

import torch
from torch import nn

from fused_ray import models
from fused_ray.core import state
from fused_ray.core.adapter import Adapter, attached
from fused_ray.core.state import Arrays
from fused_ray.errors import NumericsError
from fused_ray.types import FloatVector


def removal_hash(model: nn.Module, base: Arrays, adapter: Adapter, values: FloatVector, images: torch.Tensor) -> str:
    """SHA-256 of a live model after the adapter went on, answered, and came off.

    The model answers on inputs [n, *shape] in evaluation mode. Raises NumericsError unless its
    logits have, with the adapter on, the bits of M_f = M_r + A_f merged, and afterwards those of M_r, as its state has.
    """
    model.eval()

    def answers() -> bytes:
        with torch.no_grad(), models.seeded(0):
            logits: torch.Tensor = models.logits_of(model(images))
        return logits.cpu().numpy().tobytes()

    state.write(model, state.flatten(adapter.apply(base, values)))
    merged = answers()
    state.write(model, state.flatten(base))
    before = answers()
    with attached(model, adapter, values):
        worn = answers()
    digest = state.state_hash(state.arrays(model))
    if worn != merged:
        raise NumericsError("with the adapter on, the model does not answer as M_r + A_f: a fault of this program")
    if digest != state.state_hash(base):
        raise NumericsError("with the adapter off, the model is not M_r: a fault of this program")
    if answers() != before:
        raise NumericsError("with the adapter off, the model does not answer as M_r: a fault of this program")
    return digest
