"""Columns of labels and of clients: whole numbers or words, however a file writes them.

Whole numbers may be integers, booleans (0 and 1), floats and decimals without a fraction, or text such as 3 and 3.0. A
column of text that is not all such numbers is one of words, without the spaces around them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fused_ray.data.reading import reading, refuse
from fused_ray.errors import DataError
from fused_ray.types import IntVector

_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?")
"""007 is a word: as a number it would lose its name."""
_TEXT = {"string", "large_string", "string_view", "binary", "large_binary", "binary_view"}


@dataclass(frozen=True)
class Column:
    """A column [n] without gaps."""

    values: IntVector
    """The numbers themselves, or the places of the words in `words`."""
    words: tuple[str, ...] | None
    """Distinct; None for a column of numbers."""


def column(cells: pa.ChunkedArray, where: str, what: str) -> Column:
    """What an Arrow column holds. Raises DataError naming the row (from 0) and what is missing or no whole number."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if str(cells.type) in _TEXT:
        return _words(cells, where, what)
    if pa.types.is_floating(cells.type) or pa.types.is_decimal(cells.type):
        return _rounded(cells.cast(pa.float64()), where, what)
    if not (pa.types.is_integer(cells.type) or pa.types.is_boolean(cells.type) or pa.types.is_null(cells.type)):
        raise DataError(f"{where}: {cells.type}, neither whole numbers nor words")
    refuse(cells.is_null().to_numpy(), where, f"there is no {what}")
    with reading(where, "holds numbers that are too large"):
        return Column(cells.cast(pa.int64()).to_numpy(), None)


def joined(columns: Mapping[str, Column]) -> tuple[list[IntVector], tuple[str, ...] | None]:
    """The values of several columns of one meaning, which must be all words or all numbers, and the words of all.

    Columns are by where they come from, for the message. Raises DataError.
    """
    texts = sorted({word for column in columns.values() for word in column.words or ()})
    if texts and all(_NUMBER.fullmatch(word) for word in texts):  # numbers that somebody wrote as text
        columns = {where: _as_numbers(column) for where, column in columns.items()}
    worded = [where for where, column in columns.items() if column.words is not None]
    if not worded:
        return [column.values for column in columns.values()], None
    for where, column in columns.items():
        if column.words is None:
            raise DataError(f"{where}: numbers, but {worded[0]} has words")
    place = {word: at for at, word in enumerate(texts)}
    placed = [np.array([place[word] for word in column.words or ()], np.int64) for column in columns.values()]
    return [at[column.values] for at, column in zip(placed, columns.values(), strict=True)], tuple(texts)


def numbers(cells: pa.ChunkedArray, where: str, what: str) -> IntVector:
    """A column of whole numbers alone [n]. Raises DataError naming the row of what is none."""
    (values,), words = joined({where: column(cells, where, what)})
    if words is not None:
        others = [at for at, word in enumerate(words) if not _NUMBER.fullmatch(word)]
        refuse(np.isin(values, others), where, f"{what} {{}} is no whole number", [words[at] for at in values])
    return values


def from_numpy(vector: NDArray[Any]) -> pa.Array:
    """A NumPy vector as Arrow has it. Raises what Arrow raises over kinds that it does not know."""
    return pa.array(vector.astype(vector.dtype.newbyteorder("=")))


def _words(cells: pa.ChunkedArray, where: str, what: str) -> Column:
    with reading(where, "is not text in UTF-8"):
        cells = pc.utf8_trim_whitespace(cells.cast(pa.large_string()))
        refuse(pc.fill_null(pc.equal(cells, ""), True).to_numpy(), where, f"there is no {what}")
        encoded = cells.combine_chunks().dictionary_encode()
        return Column(encoded.indices.to_numpy().astype(np.int64), tuple(encoded.dictionary.to_pylist()))


def _rounded(cells: pa.ChunkedArray, where: str, what: str) -> Column:
    refuse(pc.is_null(cells, nan_is_null=True).to_numpy(), where, f"there is no {what}")
    numbers = cells.to_numpy()
    broken = (np.floor(numbers) != numbers) | (np.abs(numbers) >= 2.0**53)
    refuse(broken, where, f"{what} {{}} is no whole number", numbers)
    return Column(numbers.astype(np.int64), None)


def _as_numbers(column: Column) -> Column:
    if column.words is None:
        return column
    meant = np.array([int(word.partition(".")[0]) for word in column.words], np.int64)
    return Column(meant[column.values], None)
