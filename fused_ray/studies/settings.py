"""What the configurations of all studies can do."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from fused_ray.config import Section
from fused_ray.config.validation import put, validated
from fused_ray.config.yaml_text import dump

Self = TypeVar("Self", bound="StudySettings")


class StudySettings(Section):
    """A study's configuration, which says in `output.dir` where the study goes."""

    def at(self: Self, path: str | Path) -> Self:
        """The same study in another directory."""
        values = self.model_dump(mode="json", by_alias=True)
        put(values, "output.dir", str(path), "output")
        return validated(type(self), values)

    def to_yaml(self) -> str:
        """The whole configuration as YAML, which `from_yaml` reads back to an equal object."""
        return dump(self.model_dump(mode="json", by_alias=True))
