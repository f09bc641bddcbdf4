"""Aggregates that need every single update: robust ones, against clients that send anything.

Both are those of Yin et al. 2018 (arXiv 1803.01498), coordinate by coordinate and unweighted as there: a client that
claims many examples has no more to say than another. Every coordinate is sorted first, so that the order of the
clients changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fused_ray.config.parts.aggregates import TrimmedConfig
from fused_ray.types import FloatVector

_CHUNK = 1 << 16
"""Values that are sorted at a time, so that there is no second copy of all updates."""


def median(updates: Sequence[FloatVector], examples: Sequence[int], settings: None) -> FloatVector:
    """The median of every value; of an even number of clients the middle between the two in the middle."""
    low, high = (len(updates) - 1) // 2, len(updates) // 2
    return np.concatenate([_mean(part[low : high + 1]) for part in _sorted(updates)])


def trimmed_mean(updates: Sequence[FloatVector], examples: Sequence[int], settings: TrimmedConfig) -> FloatVector:
    """The mean of every value without the `share` of the clients with the smallest and that with the largest of it."""
    out = int(settings.share * len(updates))
    return np.concatenate([_mean(part[out : len(updates) - out]) for part in _sorted(updates)])


def _sorted(updates: Sequence[FloatVector]) -> Iterator[FloatVector]:
    """Some values of all clients at a time [clients, some], each value's in ascending order."""
    for start in range(0, len(updates[0]), _CHUNK):
        part = np.stack([update[start : start + _CHUNK] for update in updates])
        part += np.float32(0)  # -0 becomes 0: sorting does not tell them apart
        part.sort(axis=0)
        yield part


def _mean(rows: NDArray[np.float32]) -> FloatVector:
    """The mean of some rows, added up one after the other in float64 and rounded once."""
    total = np.zeros(rows.shape[1], np.float64)
    for row in rows:
        total += row
    return (total / len(rows)).astype(np.float32)
