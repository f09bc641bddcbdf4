"""A model with running statistics, whole clients that are forgotten, and federations on the local pool."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.config.parts.models import MODELS, ModelInfo
from fused_ray.core import state
from fused_ray.core.aggregate import ExactSum, scale_bits
from fused_ray.core.methods import fedavg
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.state import Arrays
from fused_ray.core.workspace import Workspace
from fused_ray.types import Payload, Scenario

TARGETS = (1, 3)


class Tiny(nn.Module):
    """A convolution, BatchNorm and an output layer: buffers and a counter, and little to compute."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 2, 5, stride=3)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(F.relu(self.norm(self.conv(x))), 1))


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Iterator[None]:
    """The model `tiny` is registered."""
    with pytest.MonkeyPatch.context() as patch:
        module = types.ModuleType("tiny_model")
        module.Tiny = Tiny
        patch.setitem(sys.modules, "tiny_model", module)
        patch.setitem(MODELS, "tiny", ModelInfo(("conv", "norm", "fc"), "tiny_model:Tiny"))
        yield


@pytest.fixture(scope="session")
def targets() -> tuple[int, ...]:
    """The clients that are forgotten."""
    return TARGETS


@pytest.fixture(scope="session")
def gone(scenario: Scenario) -> Scenario:
    """All data of two clients of five must go."""
    retained = tuple(part[:0] if client in TARGETS else part for client, part in enumerate(scenario.held))
    return dataclasses.replace(scenario, retained=retained)


@pytest.fixture(scope="session")
def federate(make_config, data, gone, recorder) -> Callable[..., Federation]:
    """`federate("train.lr=1", ..., on=scenario, start=saved)`: a federation that trains the model `tiny`."""

    def make(*overrides: str, on: Scenario = gone, start=None) -> Federation:
        config = make_config("model.name=tiny", "forget.scenario=client", *overrides)
        return Federation(config, data, on, LocalPool(config, data, on), recorder(start))

    return make


@pytest.fixture(scope="session")
def pretrained() -> Callable[[Federation], Arrays]:
    """`pretrained(federation)`: M_r."""

    def make(federation: Federation) -> Arrays:
        like = fedavg.initial(federation, "pretrain")
        return state.unflatten(fedavg.pretrain(federation, state.flatten(like)).payload, like)

    return make


@pytest.fixture(scope="session")
def space_of() -> Callable[[Federation], Workspace]:
    """`space_of(federation)`: a workspace to compute single clients in."""
    return lambda federation: Workspace(federation.config, federation.data, federation.scenario)


@pytest.fixture(scope="session")
def mean() -> Callable[..., Payload]:
    """`mean(payloads, weights, of)`: the exact mean; `of` is the weight of all clients that could take part."""

    def make(payloads: list[Payload], weights: list[int], of: int) -> Payload:
        exact = ExactSum(len(payloads[0].values), scale_bits(of))
        for payload, weight in zip(payloads, weights, strict=True):
            exact.add(payload.values, weight)
        return Payload(exact.mean(), np.max([payload.counters for payload in payloads], axis=0))

    return make
