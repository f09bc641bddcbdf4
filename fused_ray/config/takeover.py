"""A second request on an earlier run's model: what `pretrain.from=RUN` takes over from that run's configuration.

What comes out is complete: it says all that the model was made with, and needs the earlier run's no more.
"""

from __future__ import annotations

import os
from typing import Any

from fused_ray.config.paths import expanded
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError

CONFIG = "config.yaml"
"""A run's configuration in its folder."""
_TAKEN = (
    *("seed", "data", "model", "federation.clients", "federation.aggregate", "federation.aggregate_args"),
    *("federation.server", "federation.server_args", "federation.participation", "federation.sampling"),
    "federation.on_failure",
    *("train", "pretrain.rounds", "pretrain.participation"),
)
"""Fields and sections that a model is made with."""


def taken_over(values: dict[str, Any]) -> str:
    """Fill in, under what is given, what the model of the run that `pretrain.from` names was made with.

    Returns that run's folder, or nothing where none is named. Raises ConfigError if its configuration cannot be read.
    """
    pretrain = values.get("pretrain")
    where = pretrain.get("from") if isinstance(pretrain, dict) else None
    if not isinstance(where, str) or not where:
        return ""
    try:
        file = expanded(where) / CONFIG
    except ConfigError as error:
        raise ConfigError(f"pretrain.from: {error}") from None
    if not os.path.isfile(file):
        return ""
    earlier = read_yaml(file)
    for key in _TAKEN:
        _fill(values, earlier, *key.split("."))
    deployment = earlier.get("deployment")
    if isinstance(deployment, dict) and deployment.get("participation") == "available":  # it decided who counted
        _fill(values, earlier, "deployment")
    forget, was = values.get("forget"), earlier.get("forget")
    asked = forget.get("scenario") if isinstance(forget, dict) else None
    if isinstance(was, dict) and _shapes(was) and asked in (None, was["scenario"]):
        _fill(values, earlier, "forget")
    return where


def _shapes(forget: dict[str, Any]) -> bool:
    """Whether it is part of the data that the model has seen: who held what, or what was poisoned."""
    scenario = forget.get("scenario")
    if scenario in ("client", "sample"):
        return bool(forget.get("poison"))
    return scenario not in (None, "class")  # what another package's does to labels is not known


def _fill(values: dict[str, Any], earlier: dict[str, Any], section: str, *field: str) -> None:
    """What is not given becomes what it was: a field at the top, one field of a section, or all of them."""
    was = earlier.get(section)
    if not isinstance(was, dict):
        if section in earlier:
            values.setdefault(section, was)
        return
    if values.get(section) is None:
        values[section] = {}
    if isinstance(values[section], dict):
        for name in field or was:
            if name in was:
                values[section].setdefault(name, was[name])
