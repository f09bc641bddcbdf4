"""The proof of removal holds for what comes off without a trace, and fails for what does not."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.core import state
from fused_ray.core.adapter import AttachedMasks, Masks, random_masks
from fused_ray.core.lora import make_lora
from fused_ray.core.removal import removal_hash
from fused_ray.errors import NumericsError

IMAGES = torch.linspace(-2, 2, 4 * 3 * 5 * 5).reshape(4, 3, 5, 5)


def make_model(last=nn.Identity):
    """A model with running statistics and dropout, in training mode."""
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), drop=nn.Dropout(), flat=nn.Flatten())
    return nn.Sequential(layers | OrderedDict(fc=nn.Linear(36, 5), last=last())).train()


def case(kind="sparse", last=nn.Identity):
    """A model, its state, an adapter on it and values."""
    torch.manual_seed(0)
    model = make_model(last)
    base = state.arrays(model)
    adapter = (
        random_masks(0, base, ["conv", "fc"], 0.3) if kind == "sparse" else make_lora(base, ["conv", "fc"], 2, 4.0)
    )
    return model, base, adapter, np.random.default_rng(0).normal(size=adapter.size).astype(np.float32)


@pytest.mark.parametrize("kind", ["sparse", "lora"])
def test_an_adapter_that_worked_leaves_every_bit_of_the_base(kind):
    model, base, adapter, values = case(kind)
    assert removal_hash(model, base, adapter, values, IMAGES) == state.state_hash(base)
    assert state.state_hash(state.arrays(model)) == state.state_hash(base)


def test_the_model_may_hold_anything_before():
    model, base, adapter, values = case()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(123)
    assert removal_hash(model, base, adapter, values, IMAGES) == state.state_hash(base)


@dataclass(frozen=True)
class Feigned(Masks):
    """An adapter that never reaches the live model."""

    def attach(self, model):
        class Idle(AttachedMasks):
            def write(self, theta):
                pass

        return Idle(model, self)


def test_an_adapter_that_does_not_work_proves_nothing():
    model, base, adapter, values = case()
    with pytest.raises(NumericsError, match=r"with the adapter on, the model does not answer as M_r \+ A_f"):
        removal_hash(model, base, Feigned(adapter.layers), values, IMAGES)


@dataclass(frozen=True)
class Clinging(Masks):
    """An adapter that leaves one of its entries as it was when it was on."""

    def attach(self, model):
        class Stuck(AttachedMasks):
            def remove(self):
                worn = self.gather([parameter.detach() for parameter in self.parameters])
                self.write(torch.cat([self.base[:-1], worn[-1:]]))

        return Stuck(model, self)


def test_an_entry_that_stays_is_seen_though_it_changes_no_answer():
    model, base, adapter, values = case()
    base["fc.weight"][:] = 0  # nothing below shows
    low = random_masks(0, base, ["conv"], 0.1)
    for masks, given in ((adapter, values), (low, np.ones(low.size, np.float32))):
        assert removal_hash(model, base, masks, given, IMAGES) == state.state_hash(base)
        with pytest.raises(NumericsError, match="with the adapter off, the model is not M_r"):
            removal_hash(model, base, Clinging(masks.layers), given, IMAGES)


class Tired(nn.Module):
    """Remembers, outside any state, how often it was used."""

    def __init__(self):
        super().__init__()
        self.used = 0

    def forward(self, x):
        self.used += 1
        return x * (self.used < 4)


def test_a_model_that_is_another_one_afterwards_is_seen_though_its_state_is_right():
    model, base, adapter, values = case(last=Tired)
    with pytest.raises(NumericsError, match="with the adapter off, the model does not answer as M_r"):
        removal_hash(model, base, adapter, values, IMAGES)


class Noisy(nn.Module):
    def forward(self, x):
        return F.dropout(x, training=True)


def test_a_model_that_draws_in_evaluation_too_is_asked_with_the_same_numbers():
    model, base, adapter, values = case(last=Noisy)
    assert removal_hash(model, base, adapter, values, IMAGES) == state.state_hash(base)
