"""The smallest study: one method on one scenario with several seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fused_ray.config import RunConfig
from fused_ray.studies.comparisons.config import CompareConfig


def over_seeds(config: RunConfig, seeds: Sequence[int]) -> CompareConfig:
    """A run's configuration as a comparison over seeds, which takes its place. Raises ConfigError."""
    values = config.model_dump(mode="json", by_alias=True)
    method, scenario = config.unlearn.method, config.forget.scenario
    return CompareConfig.from_dict(
        {
            "base": values,
            "methods": [{"label": _label(method), "set": {"unlearn.method": method}}],
            "scenarios": [{"label": _label(scenario), "set": {"forget.scenario": scenario}}],
            "seeds": list(seeds),
            "audit": values["audit"],
            "output": {"dir": config.output.dir},
        }
    )


def _label(name: str) -> str:
    """A part's name as one of a folder: of `package.module:OBJECT`, what comes last of it."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", name.rpartition(".")[2] if ":" in name else name)[:60]
