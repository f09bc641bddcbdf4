"""Who holds what, from the user's own file: Parquet, CSV or a NumPy vector.

Parquet and CSV have a column `client` (its number, from 0) and, unless the rows stand in the order of the training set,
a column `example` (its position there, from 0). A .npy file is the vector of clients. All name each example of the
whole training set once, before `data.limit`, so that one file serves every limit.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from fused_ray.data.location import locate
from fused_ray.errors import DataError
from fused_ray.types import IntVector

_FIELD = "data.partition_file"


def owners(where: str, clients: int, examples: int) -> IntVector:
    """The client of each training example, int64 [examples], from a path or URI.

    Raises DataError naming the file and the row (from 0) unless each example is there once, with a client.
    """
    client, example = _read(where)
    _refuse(where, (client < 0) | (client >= clients), client, f"client {{}} is none of 0 to {clients - 1}")
    if example is None:
        if len(client) != examples:
            raise DataError(f"{where} names {len(client)} clients in a row, but there are {examples} training examples")
        return client
    outside = f"example {{}} is none of 0 to {examples - 1}"
    _refuse(where, (example < 0) | (example >= examples), example, outside)
    _, first = np.unique(example, return_index=True)
    again = np.ones(len(example), bool)
    again[first] = False
    _refuse(where, again, example, "example {} has a client already")
    result = np.full(examples, -1, np.int64)
    result[example] = client
    missing = np.flatnonzero(result < 0)
    if len(missing):
        raise DataError(f"{where} names no client for example {missing[0]} ({len(missing)} of {examples} are missing)")
    return result


def _refuse(where: str, wrong: np.ndarray[tuple[int], np.dtype[np.bool_]], values: IntVector, why: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{where}, row {row}: {why.format(values[row])}")


def _read(where: str) -> tuple[IntVector, IntVector | None]:
    """The columns `client` and, if there is one, `example`."""
    filesystem, path = locate(where, _FIELD)
    kind = PurePosixPath(path).suffix
    try:
        with filesystem.open_input_file(path) as file:
            if kind == ".npy":
                vector = np.load(file, allow_pickle=False)
                if not isinstance(vector, np.ndarray) or vector.ndim != 1 or vector.dtype.kind not in "iu":
                    raise DataError(f"{where} is no vector of whole numbers")
                return vector.astype(np.int64), None
            if kind == ".parquet":
                table = pq.read_table(file)
            elif kind == ".csv":
                types = dict.fromkeys(("client", "example"), pa.int64())
                table = csv.read_csv(file, convert_options=csv.ConvertOptions(column_types=types))
            else:
                raise DataError(f"{_FIELD}: {where} is none of .parquet, .csv and .npy")
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{where} is not a readable {kind} file: {error}") from None
    if "client" not in table.column_names:
        raise DataError(f"{where} has the columns {', '.join(table.column_names)}; it needs client, and maybe example")
    example = _column(where, table, "example") if "example" in table.column_names else None
    return _column(where, table, "client"), example


def _column(where: str, table: pa.Table, name: str) -> IntVector:
    column = table.column(name)
    if not pa.types.is_integer(column.type):
        raise DataError(f"{where}, column {name}: {column.type}, not whole numbers")
    if column.null_count:
        raise DataError(f"{where}, row {column.is_null().to_pylist().index(True)}: there is no {name}")
    numbers: IntVector = column.to_numpy().astype(np.int64)
    return numbers
