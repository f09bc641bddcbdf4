"""What the registry says without loading anything is what one finds after loading it."""

from __future__ import annotations

import inspect
from importlib import import_module

import numpy as np
import pytest

from fused_ray.config import DataConfig, ModelConfig
from fused_ray.config.parts.datasets import DATASETS
from fused_ray.config.parts.door import function
from fused_ray.config.parts.methods import METHODS
from fused_ray.config.parts.models import MODELS
from fused_ray.config.parts.scenarios import SCENARIOS
from fused_ray.core.standard import standard
from fused_ray.data import datasets
from fused_ray.models.anatomy import anatomy, gated

COLOUR = (3, 32, 32)
KNOWN = {name: info for name, info in DATASETS.items() if info is not None}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [*{info.shape for info in KNOWN.values()}, COLOUR])
def test_the_layers_of_a_model(name: str, shape: tuple[int, int, int]) -> None:
    """All modules that own a weight, in the order in which they run; those that normalise; stages that agree."""
    info = MODELS[name]
    with standard():
        found = anatomy(ModelConfig(name=name), shape, 7)
    assert found.layers == info.layers
    assert found.norms == info.norms
    assert found.idle == ()
    assert found.cut == "declared"
    assert found.stages > 4


SMALL = {"simplevit": {"width": 24, "depth": 1, "heads": 2}, "vit-small": {"width": 24, "depth": 1, "heads": 2}}


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_of_a_model_that_cannot_learn_from_zero(name: str) -> None:
    """In full for LeNet; of a ResNet its first and last layers; of a transformer one block."""
    info, side = MODELS[name], max(MODELS[name].min_side, 8)
    config = ModelConfig(name=name, args=SMALL.get(name, {}))
    with standard():
        layers = anatomy(config, (1, side, side), 7).layers
        layers = layers if len(layers) < 10 else (*layers[:5], *layers[-5:])
        assert gated(config, (1, side, side), 7, layers) == tuple(name for name in layers if name in info.gated)


@pytest.mark.parametrize("name", KNOWN)
def test_the_shape_of_a_data_set(name: str) -> None:
    config, info = DataConfig(name=name), KNOWN[name]
    if datasets.find(config) is None:
        pytest.skip(f"{name} is not on this machine")
    data = datasets.load(config, 0)
    assert (data.name, data.classes, data.class_names) == (name, info.classes, info.class_names)
    assert data.train_images.shape == (info.train_examples, *info.shape)
    assert data.test_images.shape == (info.test_examples, *info.shape)
    assert set(data.train_labels) == set(data.test_labels) == set(range(info.classes))
    # the constants are those of the whole set, of which the embedded one is a part
    pixels, close = data.train_images / np.float32(255), 5e-5 if name != "fashion-mnist-mini" else 1e-3
    assert data.mean == info.mean == pytest.approx(pixels.mean((0, 2, 3), np.float64), abs=close)
    assert data.std == info.std == pytest.approx(pixels.std((0, 2, 3), np.float64), abs=close)


@pytest.mark.parametrize("name", KNOWN)
def test_every_class_has_a_name_of_its_own(name: str) -> None:
    info = KNOWN[name]
    assert len(set(info.class_names)) == len(info.class_names) == info.classes


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_called_with_a_federation_and_the_model_that_remembers(name: str) -> None:
    module, _, function = str(METHODS[name].entry).partition(":")
    signature = inspect.signature(getattr(import_module(module), function))
    signature.bind("federation", "base")
    assert signature.return_annotation == "Unlearned"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_can_do_scenarios_that_there_are(name: str) -> None:
    able = METHODS[name].scenarios
    assert able
    assert set(able) <= set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_called_with_a_configuration_the_data_and_who_holds_them(name: str) -> None:
    signature = inspect.signature(function(SCENARIOS[name].forget))
    signature.bind("config", "data", "who")
    assert signature.return_annotation == "Forgotten"
    assert SCENARIOS[name].like == name
