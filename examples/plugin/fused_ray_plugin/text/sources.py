"""Sources: a client holds the documents of some sources, in their order, so that each holds about as many."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fused_ray.api import Partitioning, Section


class Sources(Section):
    column: str = "source"
    """Of the data set: what an example's source is."""


def split(labels: Any, clients: int, seed: int, columns: Mapping[str, Any], *, column: str) -> list[Any]:
    """No source is split between two clients."""
    sources, counts = np.unique(columns[column], return_counts=True)
    client = np.minimum((np.cumsum(counts) - 1) * clients // len(labels), clients - 1)
    owner = client[np.searchsorted(sources, columns[column])]
    return [np.flatnonzero(owner == number) for number in range(clients)]


PARTITION = Partitioning(split, Sources)
