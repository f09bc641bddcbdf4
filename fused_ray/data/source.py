"""What every reader of a data set gives: labels at once, images only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fused_ray.errors import DataError
from fused_ray.types import IntVector

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """The training or the test part of a data set."""

    labels: IntVector
    """int64 [n], not negative."""
    images: Callable[[IntVector | None], Pixels]
    """The images uint8 [k, channels, height, width] of ascending rows [k], all of them for None. Raises DataError."""


@dataclass(frozen=True)
class Source:
    """A data set whose labels are read and checked: each stands for one of the classes."""

    train: Split
    test: Split
    class_names: tuple[str, ...]


def in_memory(images: Pixels, labels: IntVector) -> Split:
    """A split whose images are read already."""
    return Split(labels, lambda rows: images if rows is None else images[rows])


def numbered(labels: Mapping[str, IntVector], names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names of the classes that labels [n] stand for, by number where they have none.

    `labels` are by where they come from, for the message. Raises DataError naming the row of one that cannot be a
    class: below 0, beyond the names, or, without names, as large as there are examples (such numbers are ids).
    """
    count = sum(len(given) for given in labels.values())
    limit = count if names is None else len(names)
    for where, given in labels.items():
        wrong = np.flatnonzero((given < 0) | (given >= limit))
        if len(wrong):
            known = f"{limit} classes have names" if names is not None else f"there are only {count} examples"
            raise DataError(
                f"{where}, row {wrong[0]}: {given[wrong[0]]} is no class; {known}, and classes count from 0"
            )
    if names is not None:
        return names
    return tuple(str(label) for label in range(1 + max(int(given.max(initial=-1)) for given in labels.values())))
