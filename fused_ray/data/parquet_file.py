"""One Parquet file, read a column and a row group at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from fused_ray.data.reading import reading
from fused_ray.errors import DataError
from fused_ray.types import IntVector


@dataclass(frozen=True)
class ParquetFile:
    """One file, and how it is called in messages."""

    filesystem: FileSystem
    path: str
    name: str

    @cached_property
    def content(self) -> pq.ParquetFile:
        """The file with its footer read. Raises DataError."""
        with reading(self.name, "is not a readable Parquet file"):
            return pq.ParquetFile(self.filesystem.open_input_file(self.path))

    @cached_property
    def schema(self) -> pa.Schema:
        """Its columns as Arrow has them. Raises DataError."""
        with reading(self.name, "is not a readable Parquet file"):
            return self.content.schema_arrow

    @cached_property
    def features(self) -> dict[str, dict[str, Any]]:
        """What its Hugging Face metadata say of its columns; nothing where there are none."""
        try:
            features = json.loads(self.schema.metadata[b"huggingface"])["info"]["features"]
            return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError):
            return {}

    @property
    def rows(self) -> int:
        """How many there are. Raises DataError."""
        return int(self.content.metadata.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column. Raises DataError."""
        groups = range(self.content.num_row_groups)
        chunks = [chunk for group in groups for chunk in self._group(group, name).chunks]
        return pa.chunked_array(chunks, self.schema.field(name).type)

    def cells(self, name: str, rows: IntVector) -> Iterator[tuple[IntVector, list[Any]]]:
        """Ascending rows of a column with what they hold, a row group at a time. Raises DataError."""
        at = 0
        for group in range(self.content.num_row_groups):
            end = at + self._rows(group)
            inside = rows[(rows >= at) & (rows < end)]
            if len(inside):
                wanted = np.zeros(end - at, bool)
                wanted[inside - at] = True
                with reading(self.name, "is damaged"):
                    # other than take, filter keeps the chunks, each of less than 2 GB
                    column = self._group(group, name).filter(pa.array(wanted))
                    if pa.types.is_struct(column.type):
                        column = pc.struct_field(column, "bytes")
                    values = column.to_pylist()
                yield inside, values
            at = end

    def _rows(self, group: int) -> int:
        return int(self.content.metadata.row_group(group).num_rows)

    def _group(self, group: int, name: str) -> pa.ChunkedArray:
        """A column of one row group."""
        with reading(self.name, "is damaged"):
            column = self.content.read_row_group(group, columns=[name]).column(name)
        if len(column) != self._rows(group):
            raise DataError(f"{self.name} is damaged: of {self._rows(group)} rows, column {name} has {len(column)}")
        return column
