"""A study's folder: its configuration, the table of its runs, and what was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from fused_ray.config import Section
from fused_ray.config.validation import put, validated
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError, RunDirectoryError
from fused_ray.storage.table_folder import TableFolder

Settings = TypeVar("Settings", bound=Section)


class StudyDirectory(TableFolder, Generic[Settings]):
    """A study's folder."""

    SETTINGS: ClassVar[type[Section]]
    """What its configuration is an object of."""
    RUNS: ClassVar[str]
    """What it calls its runs, and the folder that has them."""

    @property
    def config(self) -> Settings:
        """The configuration that the study was started with, at the place where it is now."""
        values = read_yaml(self.path / self.CONFIG)
        put(values, "output.dir", str(self.path), self.CONFIG)
        try:
            return validated(self.SETTINGS, values, source=str(self.path / self.CONFIG))  # type: ignore[return-value]
        except ConfigError as error:
            raise RunDirectoryError(f"{self.path} cannot be read: {error}") from None

    @property
    def statuses(self) -> Sequence[str]:
        """How the runs ended that are over (studies.status)."""
        return [row["status"] for row in self.rows]
