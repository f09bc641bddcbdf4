"""A folder whose figures are in one Parquet file, as a study's are."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.errors import RunDirectoryError
from fused_ray.storage.folder import Folder


class TableFolder(Folder):
    """A folder whose figures are in one Parquet file."""

    TABLE: ClassVar[str]
    """The file."""

    @property
    def table(self) -> pa.Table:
        """Its content; empty before the first row. Raises RunDirectoryError if it cannot be read."""
        path = self.path / self.TABLE
        try:
            return pq.read_table(path) if path.exists() else pa.table({})
        except (OSError, pa.ArrowException) as error:
            raise RunDirectoryError(f"{path} cannot be read: {error}") from None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The same as plain values."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows
