"""Who holds what, as people have it: a Parquet, CSV or NumPy file, or a column of the Parquet data themselves.

Parquet and CSV have a column `client` (or what `data.client_column` names) and, unless the rows stand in the order of
the training set, a column `example` (its position there, from 0). A .npy file is the vector of clients. All name each
example of the whole training set once, before `data.limit`, so that one file serves every limit.

Clients are whole numbers or words; in ascending order they are the clients 0, 1, 2 ...
"""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from fused_ray.config import DataConfig
from fused_ray.data.columns import column, from_numpy, joined, numbers
from fused_ray.data.location import locate
from fused_ray.data.parquet import training_columns
from fused_ray.data.reading import reading, refuse, some
from fused_ray.errors import DataError
from fused_ray.types import IntVector

_FIELD = "data.partition_file"


class Owners(NamedTuple):
    """Who holds the examples of the whole training set."""

    client: IntVector
    """int64 [examples], from 0."""
    names: tuple[str, ...]
    """What the clients are called, by number; none where that is their number."""


def owners(config: DataConfig, clients: int, examples: int) -> Owners:
    """The client of each training example, as `data.partition_file` says or, without one, the data's own column.

    Raises DataError naming file and row (from 0) unless each example is there once, and so many clients.
    """
    example = None
    if config.partition_file is not None:
        where = config.partition_file
        name = config.client_column or "client"
        table = _read(where, name)
        cells = {f"{where}, column {name}": _only(where, table, name)}
        if "example" in table.column_names:
            example = _examples(where, table, examples)
    else:
        where, name = str(config.root), str(config.client_column)  # a valid configuration has both
        cells = training_columns(where, name)
    columns = {place: column(cell, place, "client") for place, cell in cells.items()}
    values, names = joined(columns)
    client = np.concatenate(values)
    if example is None and len(client) != examples:
        raise DataError(f"{where} names {len(client)} clients in a row, but there are {examples} training examples")
    if names is None:
        refuse(client < 0, where, "client {} is below 0", client)
        distinct, client = np.unique(client, return_inverse=True)
        names = tuple(map(str, distinct))
    if len(names) != clients:
        raise DataError(
            f"federation.clients: {where} names {len(names)} clients ({some(names)}), not {clients}; set "
            f"federation.clients={len(names)}"
        )
    if example is not None:
        client = client[np.argsort(example)]
    return Owners(client, () if names == tuple(map(str, range(clients))) else names)


def _examples(where: str, table: pa.Table, examples: int) -> IntVector:
    """The column `example`, if it names each of them once."""
    example = numbers(_only(where, table, "example"), f"{where}, column example", "example")
    refuse((example < 0) | (example >= examples), where, f"example {{}} is none of 0 to {examples - 1}", example)
    _, first = np.unique(example, return_index=True)
    again = np.ones(len(example), bool)
    again[first] = False
    refuse(again, where, "example {} has a client already", example)
    missing = np.setdiff1d(np.arange(examples), example)
    if len(missing):
        raise DataError(f"{where} names no client for example {missing[0]} ({len(missing)} of {examples} are missing)")
    return example


def _only(where: str, table: pa.Table, name: str) -> pa.ChunkedArray:
    """The column of a name. Raises DataError where there is none, or more than one."""
    times = table.column_names.count(name)
    if times == 0:
        raise DataError(
            f"{where} has the columns {', '.join(table.column_names)}; it needs {name}, and maybe example: set "
            "data.client_column to the one that says whose an example is"
        )
    if times > 1:
        raise DataError(f"{where} has {times} columns that are called {name}; keep one")
    return table.column(table.column_names.index(name))


def _read(where: str, client: str) -> pa.Table:
    filesystem, path = locate(where, _FIELD)
    name = PurePosixPath(path).name.lower()
    kind = next((kind for kind in _READERS if name.endswith(kind)), None)
    if kind is None:
        raise DataError(f"{_FIELD}: {where} is none of {', '.join(_READERS)}")
    with reading(where, f"is not a readable {kind} file"):
        return _READERS[kind](filesystem, path, client)


def _parquet(filesystem: FileSystem, path: str, client: str) -> pa.Table:
    """The columns that matter: the file may be the data themselves, images and all."""
    with filesystem.open_input_file(path) as file:
        content = pq.ParquetFile(file)
        names = content.schema_arrow.names
        if names.count(client) != 1 or names.count("example") > 1:
            return content.schema_arrow.empty_table()  # what is wrong with its columns is all that will be said
        return content.read(columns=[name for name in (client, "example") if name in names])


def _csv(filesystem: FileSystem, path: str, client: str) -> pa.Table:
    """All columns as text: only who reads one knows whether 007 is a number."""
    with io.TextIOWrapper(filesystem.open_input_stream(path), encoding="utf-8-sig", newline="") as text:
        lines = [line for line in csv.reader(text, strict=True) if line]
    if not lines:
        raise ValueError("it is empty")
    head, *rows = lines
    for number, row in enumerate(rows):
        if len(row) != len(head):
            raise ValueError(f"row {number} has {len(row)} fields, not {len(head)}")
    columns = [[row[at] for row in rows] for at in range(len(head))]
    return pa.table([pa.array(cells, pa.string()) for cells in columns], [name.strip() for name in head])


def _npy(filesystem: FileSystem, path: str, client: str) -> pa.Table:
    with filesystem.open_input_file(path) as file:
        vector = np.load(file, allow_pickle=False)
    if not isinstance(vector, np.ndarray) or vector.ndim != 1:
        raise ValueError("it is no vector")
    return pa.table([from_numpy(vector)], ["client"])


_READERS = {".parquet": _parquet, ".csv": _csv, ".csv.gz": _csv, ".npy": _npy}
