"""Partitions, who holds which training examples: what is known of each without importing it.

A new one is a function in `data/partitions.py`, a name here, and its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fused_ray.config.parts.door import Door


@dataclass(frozen=True)
class Partitioning:
    """A way to share training examples out among clients; its settings stand in data.partition_args."""

    split: str | Callable[..., Any]
    """A function of (labels [n], clients, seed, columns, **settings), or where it is: package.module:function. It
    returns, per client, the indices [k] of the examples that it holds; all of them together name each example once.
    `columns` are what the data set tells of each example besides, by name, [n] each."""
    section: type[BaseModel] | None = None
    """The settings of its own, a subclass of `fused_ray.config.Section`."""


PARTITIONS = ("iid", "dirichlet", "pathological", "file")
PARTITIONING: Door[Partitioning | None] = Door(
    "partition", "fused_ray.partitions", dict.fromkeys(PARTITIONS), Partitioning, "a fused_ray.api.Partitioning"
)
"""This package's own are None: data/partitions.py makes them, by the settings of the section `data`."""
