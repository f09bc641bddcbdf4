"""What every reader of a data set gives: labels at once, images only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fused_ray.data.columns import Column, joined
from fused_ray.data.reading import refuse
from fused_ray.types import IntVector

Pixels = NDArray[Any]
"""Images uint8 [n, channels, height, width], or other inputs float32 [n, ...]."""


class Images(NamedTuple):
    """Images that were read, and what is to be said of how."""

    pixels: Pixels
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """The training or the test part of a data set."""

    labels: IntVector
    """int64 [n], not negative."""
    images: Callable[[IntVector | None], Images]
    """The images of ascending rows [k], all of them for None. Raises DataError."""


@dataclass(frozen=True)
class Source:
    """A data set whose labels are read and checked: each stands for one of the classes."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What the user should know of where it was found."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What else is known of each training example, by name [n]."""


def in_memory(images: Pixels, labels: IntVector) -> Split:
    """A split whose images are read already."""
    return Split(labels, lambda rows: Images(images if rows is None else images[rows]))


def numbered(labels: Mapping[str, Column], names: tuple[str, ...] | None) -> tuple[list[IntVector], tuple[str, ...]]:
    """Labels as classes, int64 [n] each, and what the classes are called.

    Numbers are the classes themselves, which are called so where they have no names. Words are classes by their place
    among the names or, without names, in alphabetical order. `labels` are by where they come from, for the message.
    Raises DataError naming the row of one that cannot be a class: a word without a name, a number below 0, beyond the
    names, or, without names, as large as there are examples (such numbers are ids).
    """
    given, words = joined(labels)
    count = sum(len(numbers) for numbers in given)
    if words is not None:
        known = {name: at for at, name in enumerate(names or words)}
        places = np.array([known.get(word, -1) for word in words], np.int64)
        for where, numbers in zip(labels, given, strict=True):
            why = f"{{}} is no class; {len(known)} classes have other names"
            refuse(places[numbers] < 0, where, why, [words[at] for at in numbers])
        return [places[numbers] for numbers in given], names or words
    limit = count if names is None else len(names)
    known_to = f"{limit} classes have names" if names is not None else f"there are only {count} examples"
    for where, numbers in zip(labels, given, strict=True):
        why = f"{{}} is no class; {known_to}, and classes count from 0"
        refuse((numbers < 0) | (numbers >= limit), where, why, numbers)
    if names is None:
        largest = max((int(numbers.max(initial=-1)) for numbers in given), default=-1)
        names = tuple(str(label) for label in range(1 + largest))
    return given, names
