"""What can only be checked with the model at hand: that it can be built, what its layers are, that its weights fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fused_ray import consistency, models
from fused_ray.config import RunConfig
from fused_ray.core import pretrained, state
from fused_ray.errors import ConfigError
from fused_ray.models.anatomy import Anatomy, anatomy


def check_model(config: RunConfig, shape: Sequence[int], classes: int) -> Anatomy:
    """Build the configured model for images of (channels, height, width) and look at it.

    Raises ConfigError in one line: no such factory, nothing usable from it, layers that it lacks, weights that do not
    fit.
    """
    found = anatomy(config.model, shape, classes)
    try:
        consistency.check_layers(config, found.layers, found.ranked)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.model.weights is not None:
        channels, height, width = shape
        like = state.arrays(models.build(config.model, (channels, height, width), classes))
        pretrained.read(Path(config.model.weights), like, config.model.label)
    return found
