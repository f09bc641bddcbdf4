"""What each client's device is like, from a trace: a Parquet file with a row a client.

Column `client`: whole numbers from 0, each once; others of `config.deployment.DEVICE` and, where clients come and go in
a cycle, of `CYCLE`, each a number per client.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fused_ray.config.deployment import CYCLE, DEVICE, LEAST, MOST
from fused_ray.data.location import locate
from fused_ray.data.reading import reading
from fused_ray.errors import DataError

_FIELD = "deployment.trace"
_MAY_BE_0 = ("latency_s", "phase_s")


def devices(where: str, clients: int, cycle: bool = False) -> dict[str, NDArray[np.float64]]:
    """By column, float64 [clients]. Raises DataError where a client or a figure is missing or impossible."""
    filesystem, path = locate(where, _FIELD)
    with reading(where, "is not a readable Parquet file"), filesystem.open_input_file(path) as file:
        table = pq.read_table(file)
    names, known = table.column_names, (*DEVICE, *CYCLE) if cycle else DEVICE
    unknown = sorted({*names} - {"client", *known})
    if "client" not in names or unknown or len({*names}) < len(names):
        told = f"has the columns {', '.join(names)}"
        raise DataError(f"{_FIELD}: {where} {told}; it takes client and, each once, some of {', '.join(known)}")
    if {"ms_per_sample", "teraflops"} <= {*names}:
        raise DataError(f"{_FIELD}: {where} has ms_per_sample and teraflops, which say the same; keep one")
    order = _numbers(table, "client", where)
    if len(order) < clients or not np.array_equal(np.sort(order), np.arange(len(order))):
        raise DataError(f"{_FIELD}: {where} must have the clients 0 to {clients - 1}, or more, each in one row")
    found = {}
    for name in names:
        if name == "client":
            continue
        values = _numbers(table, name, where)[np.argsort(order)][:clients]
        fine = (values >= LEAST) & (values <= MOST)
        wrong = np.flatnonzero(~(fine | (values == 0)) if name in _MAY_BE_0 else ~fine)
        if len(wrong):
            at, or_0 = wrong[0], "0, or " if name in _MAY_BE_0 else ""
            told = f"{name} of client {at} is {values[at]:g}; it must be {or_0}from {LEAST:g} to {MOST:g}"
            raise DataError(f"{_FIELD}: {where}, {told}")
        found[name] = values
    return found


def _numbers(table: pa.Table, name: str, where: str) -> NDArray[np.float64]:
    """A column's numbers. Raises DataError where one is missing: an unknown cost is never taken as nothing."""
    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(f"{_FIELD}: {where}, column {name} holds {column.type}, not numbers")
    values: NDArray[np.float64] = column.to_numpy().astype(np.float64)
    if column.null_count or not np.isfinite(values).all():
        raise DataError(f"{_FIELD}: {where}, column {name} lacks a number in some row; a cost must be known")
    return values
