"""Noise to train on, a folder of its own, and the models as a module."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fused_ray.types import ImageData
from tests.brought import odd_models, own_models
from tests.brought.own_models import CLASSES, SHAPE


@pytest.fixture(scope="module")
def images() -> ImageData:
    pixels = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (36, *SHAPE), np.uint8)
    labels = np.arange(36) % CLASSES
    return ImageData("noise", CLASSES, (0.5,) * 3, (0.3,) * 3, pixels, labels, pixels[:9], labels[:9])


@pytest.fixture(scope="module")
def brought_models() -> Iterator[None]:
    """The models as a module of their own, and PyTorch on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        module = types.ModuleType("brought")
        module.__dict__.update(
            {
                name: value
                for models in (own_models, odd_models)
                for name, value in vars(models).items()
                if callable(value)
            }
        )
        patch.setitem(sys.modules, "brought", module)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own; a SIGTERM that comes too late ends nothing."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)
