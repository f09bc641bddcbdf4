"""A sweep's dimensions as Ray Tune's primitives, and back."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.search.sample import Categorical, Float, LogUniform, Uniform

from fused_ray.errors import ConfigError
from fused_ray.trials import Dimension


def to_tune(dimension: Dimension) -> Any:
    """The primitive that a searcher proposes values from; a grid is a choice to it."""
    if dimension.values is not None:
        return tune.choice(list(dimension.values))
    low, high = dimension.bounds
    return tune.uniform(low, high) if dimension.uniform else tune.loguniform(low, high)


def from_tune(key: str, found: Any) -> Any:
    """What a sweep's file says for a primitive; anything else as it is. Raises ConfigError for another primitive."""
    if isinstance(found, dict):
        return found
    if isinstance(found, Categorical):
        return {"choice": list(found.categories)}
    if isinstance(found, Float):
        sampler = found.get_sampler()
        for kind, name in ((LogUniform, "loguniform"), (Uniform, "uniform")):
            if isinstance(sampler, kind):
                return {name: [found.lower, found.upper]}
    raise ConfigError(f"space: {key}: use tune.grid_search, tune.choice, tune.uniform or tune.loguniform")
