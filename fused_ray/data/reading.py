"""Other people's files: whatever a library raises over one becomes a line that names the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray.errors import DataError


@contextmanager
def reading(where: str, problem: str) -> Iterator[None]:
    """Turn any error inside into a DataError: where, the problem, and what the library says of it.

    Broken bytes make decoders raise whatever comes to hand (struct.error, SyntaxError, MemoryError, KeyError ...), so
    no list of exceptions would be complete.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where} {problem}: {error or type(error).__name__}") from None


def refuse(wrong: NDArray[np.bool_], where: str, why: str, values: Sequence[Any] | NDArray[Any] = ()) -> None:
    """Raise DataError naming the first row (from 0) that is wrong, if any is; `{}` in `why` is its value."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{where}, row {row}: {why.format(*values[row : row + 1])}")


def some(names: Sequence[str], shown: int = 5) -> str:
    """Names for a message: all, or the first and the last of many."""
    return ", ".join(names if len(names) <= shown else (*names[: shown - 1], "...", names[-1]))
