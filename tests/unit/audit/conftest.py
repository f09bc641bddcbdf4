"""A small federation that has a class to forget, trained once for all tests of the audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch

from fused_ray.audit.evidence import NO_MEANS, Means, measured
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import DataConfig, RunConfig
from fused_ray.config.parts.metrics import Metric
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.state import Arrays, flatten, unflatten
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.types import ImageData, Scenario


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class World:
    """A configuration, its data and scenario, and a working model."""

    config: RunConfig
    data: ImageData
    scenario: Scenario

    @property
    def space(self) -> Workspace:
        return Workspace(self.config, self.data, self.scenario)

    @property
    def federation(self) -> Federation:
        pool = LocalPool(self.config, self.data, self.scenario)
        return Federation(self.config, self.data, self.scenario, pool, MemoryRecorder())


@lru_cache
def load(limit: int | None) -> ImageData:
    return datasets.load(DataConfig(limit=limit), seed=0)


@pytest.fixture(scope="session")
def world() -> Callable[..., World]:
    """`world("forget.scenario=client", ...)`: two clients that share 1,500 embedded images, with overrides."""

    def make(*overrides: str) -> World:
        base = {
            "data": {"limit": 1_500, "partition": "iid"},
            "federation": {"clients": 2},
            "train": {"lr": 0.05, "batch_size": 32, "local_epochs": 2},
            "pretrain": {"rounds": 4},
        }
        config = RunConfig.from_dict(base, overrides)
        data = load(config.data.limit)
        scenario = scenarios.build(config, data)
        return World(config, scenarios.extended(config, data, scenario), scenario)

    return make


@pytest.fixture(scope="session")
def forgetting(world: Callable[..., World]) -> World:
    """Class 0 is to be forgotten."""
    return world("forget.scenario=class")


@pytest.fixture(scope="session")
def yardstick(forgetting: World) -> Yardstick:
    """A model that knows class 0 and two that never saw it."""
    federation = forgetting.federation
    start = fedavg.initial(federation, "pretrain")
    before = fedavg.pretrain(federation, flatten(start)).payload
    retrained = fedavg.retrain(federation, flatten(fedavg.initial(federation, "retrain"))).payload
    again = fedavg.fedavg(federation, flatten(fedavg.initial(federation, "again")), "again", "retained", 4).payload

    def arrays(payload: Any) -> Arrays:
        return unflatten(payload, start)

    return Yardstick(
        space=forgetting.space,
        before=arrays(before),
        retrained=arrays(retrained),
        others=[arrays(again)],
        repeats=1,
    )


@pytest.fixture(scope="session")
def third(forgetting: World, yardstick: Yardstick) -> Arrays:
    """One more that never saw class 0, and that nobody is measured against."""
    federation = forgetting.federation
    start = flatten(fedavg.initial(federation, "third"))
    return unflatten(fedavg.fedavg(federation, start, "third", "retained", 4).payload, yardstick.before)


@dataclass(frozen=True)
class Asked:
    """What an audit says of one model by one metric."""

    figures: dict[str, float]
    """By what stands behind the metric's name."""
    passes: bool | None
    said: str
    details: dict[str, Any]


@pytest.fixture(scope="session")
def ask() -> Callable[..., Asked]:
    """`ask(metric, yardstick, after)`: the answer for a model as it stands in a report."""

    def answer(metric: Metric, yardstick: Yardstick, after: Arrays, means: Means = NO_MEANS) -> Asked:
        found = measured((metric,), yardstick, after, yardstick.see(after), means)
        assert found["audit_metrics_failed"] == []
        (answer,) = found["audit_answers"]
        figures = {f["name"].removeprefix(f"{metric.name}_"): f["value"] for f in found["audit_metrics"]}
        assert figures.pop("passes", None) == answer["passes"]
        return Asked(figures, answer["passes"], answer["said"], found["audit_details"][metric.name])

    return answer
