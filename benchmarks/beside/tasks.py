"""The tasks, written to folders that every system reads: who holds which images, first weights, how to train."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fused_ray import RunConfig, models
from fused_ray.core import state
from fused_ray.data import datasets, scenarios
from fused_ray.types import On

FASHION = [
    *("data.name=fashion-mnist", "data.partition=dirichlet", "data.alpha=1.0", "federation.clients=50"),
    *("train.batch_size=64", "train.lr=0.02", "train.momentum=0.9", "train.weight_decay=5e-4", "train.local_epochs=1"),
]
"""Full Fashion-MNIST, LeNet, 50 clients, all of them in every round."""
CIFAR = ["data.name=parquet", "data.mean=0.5", "data.std=0.5"]
BLAZEFL = [
    *(*CIFAR, "data.partition=pathological", "data.classes_per_client=2", "federation.clients=100"),
    *("train.batch_size=50", "train.lr=0.1", "train.momentum=0", "train.weight_decay=0", "train.local_epochs=5"),
]
"""BlazeFL's CIFAR-10 task (arXiv 2604.03606): 100 clients, two classes each, five epochs, its tutorial's CNN."""
PFL = [
    *(*CIFAR, "data.partition=iid", "federation.clients=1000", "federation.participation=50"),
    *("train.batch_size=10", "train.lr=0.1", "train.momentum=0", "train.weight_decay=0", "train.local_epochs=1"),
    *("model.factory=nets:DropoutNet", "data.min_examples=1"),
]
"""pfl-research's CIFAR-10 IID task (arXiv 2404.06430): 1,000 users of 50 images, 50 of them in a round."""


def write(folder: Path, fields: Sequence[str], net: str, on: On = "held") -> Path:
    """A folder with task.json and arrays; `on`: the clients' images, or those that stay when a class is forgotten."""
    config = RunConfig.from_dict({}, list(fields))
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    parts = scenario.parts(on)
    made = models.initialise(config.model, data.shape, data.classes, config.seed, "init/pretrain")
    share = config.participation("pretrain")
    train = config.train
    settings = {
        "fields": list(fields),
        "net": net,
        "clients": config.federation.clients,
        "per_round": config.federation.clients if share == 1 else int(share),
        "classes": data.classes,
        "mean": list(data.mean),
        "std": list(data.std),
        "batch_size": train.batch_size,
        "lr": train.lr if on == "held" else config.adapter_lr,
        "momentum": train.momentum,
        "weight_decay": train.weight_decay if on == "held" else 0.0,
        "local_epochs": train.local_epochs,
    }
    arrays = {
        "train_images": data.train_images,
        "train_labels": scenario.train_labels,
        "test_images": data.test_images,
        "test_labels": data.test_labels,
        "held": np.concatenate(list(parts)),
        "sizes": parts.sizes,
        **{f"weight={name}": value for name, value in state.arrays(made).items()},
    }
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps(settings, indent=2))
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value)
    return folder
