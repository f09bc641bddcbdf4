"""The registered networks: sizes, positions by hand, where they are cut."""

from __future__ import annotations

import math

import pytest
import torch

from fused_ray import models
from fused_ray.config import ModelConfig
from fused_ray.models.anatomy import anatomy, stages
from fused_ray.models.lenet import halved
from fused_ray.models.simplevit import sine_cosine


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lenet", 44_426),
        ("resnet18", 11_172_810),
        ("resnet18-imagenet", 11_175_370),
        ("simplevit", 1_787_722),
        ("vit-small", 21_324_298),
    ],
)
def test_sizes_on_grey_images_of_28_pixels(name: str, parameters: int) -> None:
    assert anatomy(ModelConfig(name=name), (1, 28, 28), 10).parameters == parameters


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(3, 6, 24, 24), (2, 16, 8, 8), (2, 3, 7, 5), (1, 2, 2, 3)])
def test_halving_is_max_pooling(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for x in (noise, noise.abs().round(decimals=1)):  # the second with equal pixels
        x = x.contiguous(memory_format=layout)
        x[0, 0, 0, 0] = math.nan
        pooled = torch.nn.functional.max_pool2d(x, 2)
        with torch.inference_mode():
            found = halved(x)
        assert torch.equal(found.nan_to_num(9.0), pooled.nan_to_num(9.0))
        assert found.isnan().sum() == 1
        assert found.is_contiguous(memory_format=layout)


def test_positions_by_hand() -> None:
    """Width 8: frequencies 1 and 1/10,000; row 1, column 2 of a grid of 2 x 3."""
    found = sine_cosine(2, 3, 8)
    assert found.shape == (6, 8)
    x, y = 2.0, 1.0
    expected = [math.sin(x), math.sin(x / 1e4), math.cos(x), math.cos(x / 1e4)]
    expected += [math.sin(y), math.sin(y / 1e4), math.cos(y), math.cos(y / 1e4)]
    assert found[1 * 3 + 2].tolist() == pytest.approx(expected)


def test_simplevit_is_the_mean_over_patches_and_its_positions_are_no_state() -> None:
    model = models.build("simplevit", (3, 16, 16), 5).eval()
    assert "positions" not in model.state_dict()
    x = torch.linspace(-1, 1, 2 * 3 * 256).reshape(2, 3, 16, 16)
    tokens = model.patches(x).flatten(2).transpose(1, 2) + model.positions
    for block in model.blocks:
        tokens = block(tokens)
    assert tokens.shape == (2, 16, 192)
    assert torch.equal(model(x), model.head(model.norm(tokens).mean(1)))


def test_the_output_layers_input_is_a_vector_an_image() -> None:
    """What is cached for an adapter on the last layer."""
    for name, size in (("resnet18", 512), ("simplevit", 192)):
        model = models.build(name, (3, 16, 16), 10).eval()
        x = torch.zeros(2, 3, 16, 16)
        for stage in stages(model, (3, 16, 16))[:-1]:
            x = stage.forward(x)
        assert x.shape == (2, size)


def test_the_small_stem_keeps_the_image_and_imagenets_does_not() -> None:
    x = torch.zeros(1, 3, 32, 32)
    sides = [stages(models.build(name, (3, 32, 32), 10).eval(), (3, 32, 32))[0].forward(x).shape[-1]
             for name in ("resnet18", "resnet18-imagenet")]  # fmt: skip
    assert sides == [32, 8]
