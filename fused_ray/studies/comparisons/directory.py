"""A comparison's directory: ordinary run directories, and what was made of them.

comparison.yaml      the full configuration
environment.json     versions, machine, code revision
bases/               a run per scenario and seed: pre-trained, and retrained without the forgotten data
cells/               a run per scenario, seed and method
shadows/             shadow models per scenario and seed, for the membership attack
results.parquet      a row per method, scenario and seed (rows.SCHEMA), as far as the comparison has come
table.md, table.tex, plots/, result.json, lock, command.lock
"""

from __future__ import annotations

from pathlib import Path

from fused_ray.config.validation import validated
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError, RunDirectoryError
from fused_ray.storage.folder import TableFolder
from fused_ray.studies.comparisons.config import CompareConfig


class ComparisonDirectory(TableFolder):
    """A comparison's folder."""

    KIND = "comparison directory"
    FORMAT = "fused_ray comparison 1"
    CONFIG = "comparison.yaml"
    RESUME = "fused-ray compare --resume"
    TABLE = "results.parquet"

    @classmethod
    def create(cls, path: str | Path, config: CompareConfig, overwrite: bool = False) -> ComparisonDirectory:
        """A new one. Raises RunDirectoryError if there is something at `path` that is not to be replaced."""
        return cls.make(path, config.to_yaml(), ("bases", "cells", "shadows"), overwrite)

    @property
    def config(self) -> CompareConfig:
        """The configuration that the comparison was started with, at the place where it is now."""
        values = read_yaml(self.path / self.CONFIG) | {"output": {"dir": str(self.path)}}
        try:
            return validated(CompareConfig, values, source=str(self.path / self.CONFIG))
        except ConfigError as error:
            raise RunDirectoryError(f"{self.path} cannot be read: {error}") from None
