"""A sweep's dimensions as Ray Tune's primitives, and back."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.search.sample import Categorical, Float, Integer, LogUniform, Quantized, Uniform

from fused_ray.errors import ConfigError
from fused_ray.studies.sweeps.dimension import Dimension


def to_tune(dimension: Dimension) -> Any:
    """The primitive that a searcher proposes values from; a grid is a choice to it."""
    if dimension.values is not None:
        return tune.choice(list(dimension.values))
    low, high = dimension.ends
    if dimension.step is not None:  # both ends are multiples of the step, and belong to the range
        return getattr(tune, dimension.kind)(low, high, dimension.range[2])
    return getattr(tune, dimension.kind)(low, high + 1 if dimension.whole else high)


def from_tune(key: str, found: Any) -> Any:
    """What a sweep's file says for a primitive; anything else as it is. Raises ConfigError for another primitive."""
    if isinstance(found, dict):
        return found
    if isinstance(found, Categorical):
        return {"choice": list(found.categories)}
    if isinstance(found, Float | Integer):
        sampler, step = found.get_sampler(), []  # type: ignore[no-untyped-call]
        if isinstance(sampler, Quantized):
            step, sampler = [sampler.q], sampler.sampler
        for kind, name in ((LogUniform, "log"), (Uniform, "")):
            if isinstance(sampler, kind):
                name = ("q" if step else "") + name + ("uniform" if isinstance(found, Float) else "randint")
                return {name: [found.lower, found.upper, *step]}
    raise ConfigError(
        f"space.{key}: use tune.grid_search, tune.choice, or tune's uniform or randint, their log and quantised kinds"
    )
