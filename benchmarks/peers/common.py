"""What the peers' scripts share: the task that bench.py wrote, a client's training, and the lines that they print.

For environments that have numpy and torch, and not fused_ray.
"""

import json
import os
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from nets import NETS
from torch import nn

EVALUATED = 500
"""Test images at a time."""
PROCESSES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Of systems that leave it to their user: one for each core, as fused_ray has."""


@dataclass
class Task:
    """Who holds which images, the weights to begin with, and how to train: the same for everybody."""

    settings: dict
    arrays: dict

    def __getattr__(self, name: str):
        """`clients`, `per_round`, `rounds`, `net`, `batch_size`, `lr`, `momentum`, `weight_decay`, `local_epochs`."""
        try:
            return self.__dict__["settings"][name]
        except KeyError:
            raise AttributeError(name) from None

    @cached_property
    def train(self) -> tuple:
        """Images as the network wants them, float32 [n, c, h, w], and labels."""
        return self._normalised("train_images"), torch.from_numpy(self.arrays["train_labels"])

    @cached_property
    def test(self) -> tuple:
        return self._normalised("test_images"), torch.from_numpy(self.arrays["test_labels"])

    @cached_property
    def held(self) -> list:
        """Every client's training images, as indices."""
        return np.split(self.arrays["held"], np.cumsum(self.arrays["sizes"])[:-1])

    @property
    def weights(self) -> dict:
        """By name, what everybody begins with."""
        start = "weight/"
        return {n.removeprefix(start): torch.from_numpy(v) for n, v in self.arrays.items() if n.startswith(start)}

    def model(self) -> nn.Module:
        model = NETS[self.net](tuple(self.arrays["train_images"].shape[1:]), self.classes)
        model.load_state_dict(self.weights)
        return model

    def share(self, client: int) -> tuple:
        """A client's images and labels."""
        rows = torch.from_numpy(self.held[client])
        return self.train[0][rows], self.train[1][rows]

    def chosen(self, number: int) -> list:
        """Who takes part in a round."""
        if self.per_round == self.clients:
            return list(range(self.clients))
        return np.random.default_rng(number).choice(self.clients, self.per_round, replace=False).tolist()

    def optimiser(self, parameters, lr=None) -> torch.optim.Optimizer:
        rate = self.lr if lr is None else lr
        return torch.optim.SGD(parameters, lr=rate, momentum=self.momentum, weight_decay=self.weight_decay)

    def learn(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        """A client's training: epochs of shuffled batches, the last one of what is left."""
        model.train()
        optimiser = self.optimiser(model.parameters())
        for _ in range(self.local_epochs):
            for rows in torch.randperm(len(labels)).split(self.batch_size):
                optimiser.zero_grad()
                F.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimiser.step()

    def _normalised(self, name: str) -> torch.Tensor:
        pixels, shape = torch.from_numpy(self.arrays[name]).float() / 255, (1, -1, 1, 1)
        mean, std = (torch.tensor(self.settings[key], dtype=torch.float32).view(shape) for key in ("mean", "std"))
        return (pixels - mean) / std


@lru_cache(maxsize=1)
def task(folder: str) -> Task:
    """Read once a process."""
    path = Path(folder)
    return Task(
        json.loads((path / "task.json").read_text()),
        {file.stem.replace("=", "/"): np.load(file) for file in sorted(path.glob("*.npy"))},
    )


def correct(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """How many images the model knows."""
    model.eval()
    with torch.no_grad():
        parts = zip(images.split(EVALUATED), labels.split(EVALUATED), strict=True)
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)


class Clock:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def lap(self) -> float:
        before, self.at = self.at, time.perf_counter()
        return self.at - before


def tell(**line) -> None:
    """One line of JSON to bench.py."""
    os.write(1, (json.dumps(line) + "\n").encode())
