"""Presets: YAML files in presets/ that come with the package and are put under what the user says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fused_ray.config.suggest import did_you_mean
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"
"""YAML files by what they preset: run/ has fields of a run, compare/ has whole comparisons."""


def presets(*kinds: str) -> dict[str, Path]:
    """The files of the presets of some kinds, by name."""
    return {path.stem: path for kind in kinds for path in sorted((PRESETS / kind).glob("*.yaml"))}


def read_preset(name: str | None, *others: str) -> dict[str, Any]:
    """What a run's preset says, or one of the other kinds; nothing for None. Raises ConfigError."""
    if name is None:
        return {}
    known = presets("run", *others)
    if name not in known:
        raise ConfigError(
            f"there is no preset {name!r}{did_you_mean(name, known) or ';'} choose one of {', '.join(known)}"
        )
    return read_yaml(known[name])


def over(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with a user's values on top: sections are merged, whatever else is said replaces the preset's."""
    merged = {**preset, **values}
    for key in preset.keys() & values.keys():
        if isinstance(preset[key], dict):
            if values[key] is None:  # a section whose keys are all commented out
                merged[key] = preset[key]
            elif isinstance(values[key], dict):
                merged[key] = over(preset[key], values[key])
    return merged
