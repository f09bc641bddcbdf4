"""A small federation that trains in milliseconds, and a recorder that keeps everything in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray.config import RunConfig
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation, RoundRecord, Saved
from fused_ray.types import ImageData, PartialSum, Scenario, TestView

FAST = {
    "train": {"lr": 0.05, "batch_size": 16},
    "pretrain": {"rounds": 2},
    "unlearn": {
        "rounds": 3,
        "selection": "critical",
        "sparsity": 0.5,
        "mask": "random",
        "saliency": "forget",
        "start": "zero",
        "lr": 0.5,
    },
    "retrain": {"rounds": 2},
}


class History(MemoryRecorder):
    """Keeps every round's end, not only each phase's last, and counts the clients that were done."""

    def __init__(self, saved: dict[str, Saved] | None = None) -> None:
        super().__init__(saved)
        self.rounds: dict[tuple[str, int], Saved] = {}
        self.done = 0

    def clients_done(self, count: int) -> None:
        self.done += count

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: Any, saved: Saved) -> None:
        super().finish_round(record, total, predictions, saved)
        self.rounds[record.phase, record.round] = saved


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    """Expected bits are computed as the program computes them: on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recorder() -> type[History]:
    return History


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """`make_config("train.lr=1", ...)`: the fast configuration with overrides."""
    return lambda *overrides: RunConfig.from_dict(FAST, overrides)


@pytest.fixture(scope="session")
def make_data() -> Callable[..., ImageData]:
    """Images of a few classes: a fixed pattern each, and noise."""

    def make(train: int = 200, test: int = 60, classes: int = 4) -> ImageData:
        random = np.random.default_rng(0)
        patterns = random.integers(0, 200, (classes, 1, 28, 28))

        def images(count: int) -> tuple[Any, Any]:
            labels = np.arange(count) % classes
            return (patterns[labels] + random.integers(0, 56, (count, 1, 28, 28))).astype(np.uint8), labels

        return ImageData("patterns", classes, (0.4,), (0.3,), *images(train), *images(test))

    return make


@pytest.fixture(scope="session")
def data(make_data: Callable[..., ImageData]) -> ImageData:
    return make_data()


@pytest.fixture(scope="session")
def make_scenario() -> Callable[..., Scenario]:
    """Clients that hold slices of uneven sizes; class 0 is forgotten."""

    def make(data: ImageData, clients: int = 5) -> Scenario:
        n = len(data.train_labels)
        bounds = np.cumsum(np.arange(1, clients + 1)) * n // (clients * (clients + 1) // 2)
        held = tuple(np.split(np.arange(n), bounds[:-1]))
        kept, gone = np.flatnonzero(data.test_labels != 0), np.flatnonzero(data.test_labels == 0)
        return Scenario(
            held=held,
            retained=tuple(part[data.train_labels[part] != 0] for part in held),
            train_labels=data.train_labels,
            views={
                "ra": TestView(kept, data.test_labels[kept]),
                "fa": TestView(gone, data.test_labels[gone]),
            },
            partition_sha256="",
        )

    return make


@pytest.fixture(scope="session")
def scenario(data: ImageData, make_scenario: Callable[..., Scenario]) -> Scenario:
    return make_scenario(data)


@pytest.fixture
def federate(make_config, data, scenario, recorder):
    """`federate("train.lr=1", ...)`: a federation on the local pool; `on` and `pool` replace its parts."""

    def make(*overrides, on=scenario, wrap=lambda pool: pool):
        config = make_config(*overrides)
        return Federation(config, data, on, wrap(LocalPool(config, data, on)), recorder())

    return make
