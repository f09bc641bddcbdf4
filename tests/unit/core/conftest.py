"""A small federation that trains in milliseconds, and a recorder that keeps everything in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray.config import RunConfig
from fused_ray.core.rounds import RoundRecord, Saved
from fused_ray.types import ImageData, Scenario, TestView

FAST = {
    "train": {"lr": 0.05, "batch_size": 16},
    "pretrain": {"rounds": 2},
    "unlearn": {"rounds": 3},
    "retrain": {"rounds": 2},
}


class MemoryRecorder:
    """Keeps what a run tells its recorder. `start` holds what an earlier run saved, by phase."""

    def __init__(self, start: dict[str, Saved] | None = None) -> None:
        self.start = dict(start or {})
        self.saved: dict[tuple[str, int], Saved] = {}
        self.records: list[RoundRecord] = []
        self.models: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
        self.adapter: tuple[Any, np.ndarray[Any, Any]] | None = None
        self.done = 0

    def resume(self, phase: str) -> Saved | None:
        return self.start.get(phase)

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        pass

    def clients_done(self, count: int) -> None:
        self.done += count

    def finish_round(self, record: RoundRecord, total: Any, predictions: Any, saved: Saved) -> None:
        self.records.append(record)
        self.saved[record.phase, record.round] = saved

    def save_model(self, name: str, state: Any) -> None:
        self.models[name] = {key: np.array(array) for key, array in state.items()}

    def save_adapter(self, masks: Any, values: Any, about: Any) -> None:
        self.adapter = (masks, np.array(values))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Expected bits are computed as the program computes them: on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recorder() -> type[MemoryRecorder]:
    return MemoryRecorder


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
