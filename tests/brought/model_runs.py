"""Small runs of models that people bring."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray import RunConfig, models
from fused_ray.core import state
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import LocalPool
from fused_ray.core.simulation import Outcome, simulate
from fused_ray.data.partitions import digest
from fused_ray.types import ImageData, Scenario
from fused_ray.types import TestView as Rows
from tests.brought.own_models import CLASSES, SHAPE

FEW = ("federation.clients=3", "train.batch_size=5", "train.local_epochs=1", "pretrain.rounds=2", "unlearn.rounds=2",
       "retrain.rounds=1", "unlearn.layers=1", "unlearn.start=zero", "data.min_examples=1")  # fmt: skip


def configured(name: str, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*FEW, f"model.factory=brought:{name}", *fields])


def scenario(images: ImageData, whole: bool = False) -> Scenario:
    """Three clients, the last with one example in its last batch. Class 0 is forgotten, or the first client whole."""
    labels, held = images.train_labels, tuple(np.split(np.arange(36), [10, 20]))
    views = {"ra": Rows(np.array([1, 2]), labels[1:3]), "fa": Rows(np.array([0]), labels[:1])}
    kept = tuple(part[labels[part] != 0] for part in held)
    if whole:
        kept = (held[0][:0], *held[1:])
    return Scenario(held, kept, labels, views, digest(held))


def simulated(images: ImageData, name: str, *fields: str, whole: bool = False) -> tuple[Outcome, MemoryRecorder]:
    config, found, recorder = configured(name, *fields), scenario(images, whole), MemoryRecorder()
    pool = LocalPool(config, images, found)
    return simulate(config, images, found, pool, recorder), recorder


def started(name: str, purpose: str = "init/pretrain", *fields: str) -> dict[str, NDArray[Any]]:
    return state.arrays(models.initialise(configured(name, *fields).model, SHAPE, CLASSES, 0, purpose))
