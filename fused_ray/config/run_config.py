"""The one configuration object: frozen, validated at birth, from YAML and dotted overrides.

Each field has one docstring line, which `fused-ray init` and the reference documentation reuse. Neither torch nor
Ray is imported here, so that a wrong configuration is answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import model_validator

from fused_ray.config import consistency, keys
from fused_ray.config.kinds import RUN, check_kind
from fused_ray.config.older_names import all_renamed
from fused_ray.config.paths import absolute
from fused_ray.config.preset import over, read_preset
from fused_ray.config.settings import Settings
from fused_ray.config.takeover import taken_over
from fused_ray.config.validation import nested, put, validated
from fused_ray.config.yaml_text import dump, plain, read_yaml


class RunConfig(Settings):
    """Everything that a run depends on."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        consistency.check(self)
        self.audit.check_fits(self.kind, self.forget.scenario)
        return self

    def located(self) -> RunConfig:
        """The same with absolute paths of what is read, so that it means the same in any process."""
        values = self.model_dump(mode="json", by_alias=True)
        for key, where in self.inputs.items():
            put(values, key, absolute(where), key)
        return validated(RunConfig, values)

    def pretrain_key(self) -> str:
        """SHA-256 over everything that pre-training reads: equal keys give the same M_r, bit for bit."""
        return keys.pretrain_key(self)

    def retrain_key(self) -> str:
        """SHA-256 over everything that retraining reads: equal keys give the same retrained model, bit for bit."""
        return keys.retrain_key(self)

    def to_yaml(self) -> str:
        """The whole configuration as YAML, which `from_yaml` reads back to an equal object."""
        return dump(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "", preset: str | None = None
    ) -> RunConfig:
        """Validate nested values, over those of a preset, plus `dotted.key=value` overrides.

        Where `pretrain.from` names an earlier run, what its model was made with is taken over unless it is given here.
        Raises ConfigError in one line that names every wrong key and, if given, the source of the values.
        """
        values = all_renamed(plain(values, source or "the config"))
        merged = nested(over(read_preset(preset), values) if preset else values, overrides, source)
        if earlier := taken_over(merged):
            source = f"{source or 'this configuration'} with what pretrain.from takes over from {earlier}"
        return validated(cls, merged, source=source)

    @classmethod
    def from_yaml(cls, path: str | Path | None, overrides: Sequence[str] = (), preset: str | None = None) -> RunConfig:
        """Read a YAML file (None: all defaults), put a preset under it, and apply overrides. Raises ConfigError."""
        if path is None:
            return cls.from_dict({}, overrides, preset=preset)
        values = read_yaml(path)
        check_kind(values, RUN, path)
        return cls.from_dict(values, overrides, str(path), preset)
