"""A scaling study's directory: ordinary run directories, and what was made of them.

scaling.yaml         the full configuration
environment.json     versions, machine, code revision
runs/                a run per point and repeat
measured.parquet     a row per measured round (rows.MEASURED), as far as the study has come
points.parquet       a row per point: seconds, what they went to, efficiency, what the cost model predicts
model.parquet        the cost model's parameters
paper.parquet        predicted rounds of clusters that need not be there
tables.md, plots/, result.json, lock, command.lock
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.errors import RunDirectoryError
from fused_ray.studies.directory import StudyDirectory
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.scaling.rows import point_of


class ScalingDirectory(StudyDirectory[ScaleConfig]):
    """A scaling study's folder."""

    KIND = "scaling study's directory"
    FORMAT = "fused_ray scaling-study 1"
    CONFIG = "scaling.yaml"
    RESUME = "fused-ray scale --resume"
    TABLE = "measured.parquet"
    SETTINGS = ScaleConfig
    RUNS = "runs"

    @property
    def statuses(self) -> Sequence[str]:
        return list({(point_of(row), row["repeat"]): row["status"] for row in self.rows}.values())

    def made(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table that a finished study has: points, model or paper. Raises RunDirectoryError."""
        try:
            found: list[dict[str, Any]] = pq.read_table(self.path / f"{name}.parquet").to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise RunDirectoryError(f"{self.path / name}.parquet cannot be read: {error}") from None
        return found

    @classmethod
    def create(cls, path: str | Path, config: ScaleConfig, overwrite: bool = False) -> ScalingDirectory:
        """A new one. Raises RunDirectoryError if there is something at `path` that is not to be replaced."""
        return cls.make(path, config.to_yaml(), ("runs",), overwrite)
