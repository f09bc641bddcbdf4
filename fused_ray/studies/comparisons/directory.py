"""A comparison's directory: ordinary run directories, and what was made of them.

comparison.yaml      the full configuration
environment.json     versions, machine, code revision
bases/               a run per scenario and seed: pre-trained, and retrained without the forgotten data
cells/               a run per scenario, seed and method
shadows/             shadow models per scenario and seed, for the membership attack
results.parquet      a row per method, scenario and seed (rows.SCHEMA), as far as the comparison has come
tune/                Ray Tune's own files, where several cells went on at a time; never read back
table.md, table.tex, plots/, result.json, lock, command.lock
"""

from __future__ import annotations

from pathlib import Path

from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.directory import StudyDirectory


class ComparisonDirectory(StudyDirectory[CompareConfig]):
    """A comparison's folder."""

    KIND = "comparison directory"
    FORMAT = "fused_ray comparison 1"
    CONFIG = "comparison.yaml"
    RESUME = "fused-ray compare --resume"
    TABLE = "results.parquet"
    SETTINGS = CompareConfig
    RUNS = "cells"

    @classmethod
    def create(cls, path: str | Path, config: CompareConfig, overwrite: bool = False) -> ComparisonDirectory:
        """A new one. Raises RunDirectoryError if there is something at `path` that is not to be replaced."""
        return cls.make(path, config.to_yaml(), ("bases", "cells", "shadows"), overwrite)
