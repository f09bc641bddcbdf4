"""What kind of file or folder something is, so that a wrong command can name the right one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fused_ray.config.paths import expanded
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError

RUN, SWEEP, COMPARISON, SCALING = "run", "sweep", "comparison", "scaling-study"
COMMANDS = {
    RUN: "fused-ray run",
    SWEEP: "fused-ray sweep",
    COMPARISON: "fused-ray compare",
    SCALING: "fused-ray scale",
}

_RUN_SECTIONS = {"data", "model", "federation", "train", "pretrain", "forget", "unlearn", "retrain", "engine"}


def kind_of(values: Mapping[str, Any]) -> str | None:
    """What a file's keys say that it describes; None if they don't."""
    if "space" in values:
        return SWEEP
    if {"methods", "scenarios"} & set(values):
        return COMPARISON
    if "points" in values:
        return SCALING
    return RUN if _RUN_SECTIONS & set(values) and "base" not in values else None


def check_kind(values: Mapping[str, Any], wanted: str, source: str | Path) -> None:
    """Raises ConfigError naming the command where the values from a file are for another one."""
    kind = kind_of(values)
    if kind not in (wanted, None):
        raise ConfigError(f"{source} describes a {kind}, not a {wanted}: {COMMANDS[str(kind)]} {source}")


def base_of(base: Any, source: str | Path = "") -> Any:
    """The values of a `base` that is the path of a run's file, which counts from the source's folder.

    Raises ConfigError if it cannot be read or is no run's file.
    """
    if not isinstance(base, str):
        return base
    try:
        path = Path(source).parent / expanded(base)
    except ConfigError as error:
        raise ConfigError(f"base: {error}") from None
    values = read_yaml(path)
    check_kind(values, RUN, path)
    return values
