"""What is checked with the model at hand, before anything is trained."""

from __future__ import annotations

import pytest
from safetensors.numpy import save_file

from fused_ray import models
from fused_ray.core import state
from fused_ray.core.model_check import check_model
from fused_ray.errors import ConfigError


def test_a_model_that_can_be_used_is_described(make_config):
    found = check_model(make_config(), (1, 28, 28), 10)
    assert found.layers == ("conv1", "conv2", "fc1", "fc2", "fc3")
    assert found.parameters == 44_426


def test_a_layer_that_it_lacks_is_named(make_config):
    with pytest.raises(ConfigError, match="fc9") as caught:
        check_model(make_config("unlearn.layers=[fc9]"), (1, 28, 28), 10)
    assert "\n" not in str(caught.value)


def test_weights_must_fit_the_images_and_classes(make_config, tmp_path):
    save_file(state.arrays(models.build("lenet", (1, 28, 28), 10)), tmp_path / "w.safetensors")
    config = make_config(f"model.weights={tmp_path}/w.safetensors")
    assert check_model(config, (1, 28, 28), 10).parameters == 44_426
    with pytest.raises(ConfigError, match=r"fc3.weight in .*w.safetensors is \[10, 84\], lenet needs \[4, 84\]"):
        check_model(config, (1, 28, 28), 4)
    with pytest.raises(ConfigError, match=r"conv1.weight in .* is \[6, 1, 5, 5\], lenet needs \[6, 3, 5, 5\]"):
        check_model(config, (3, 28, 28), 10)
