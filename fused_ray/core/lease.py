"""A pool that outlives the runs which borrow it, so that a series of runs starts its workers once.

It is called like a pool's constructor. A loan of the same model, data and scenario as the last one finds the workers
as they were, with the activations that they cached; another one assigns them anew. What is lent is a pool like any
other, and gives the same bits as a fresh one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fused_ray.config import RunConfig
from fused_ray.core.pools import ClientDone, ClientPool
from fused_ray.core.work import Evaluation, Work
from fused_ray.types import Identity, ImageData, IntVector, PartialSum, Payload, Scenario


class Lease:
    """Lends one pool to one run after another. `close` ends it, and its workers with it."""

    def __init__(self, make_pool: Callable[[RunConfig, ImageData, Scenario], ClientPool]) -> None:
        self._make_pool = make_pool
        self._pool: ClientPool | None = None
        self._wanted: Any = None
        self.base: Payload | None = None
        """What is installed."""
        self.in_use = False
        """Whether work was begun and not finished; such a pool is not lent again."""

    def __call__(self, config: RunConfig, data: ImageData, scenario: Scenario) -> ClientPool:
        # all that a pool and its workers read of a configuration; a round's work brings along what else it needs
        wanted = (config.data, config.model, config.federation, config.engine, data, scenario)
        if self._pool is not None and self.in_use:
            self.close()
        if self._pool is None:
            self._pool = self._make_pool(config, data, scenario)
        elif not same(wanted, self._wanted):
            self.base = None
            with self.using():
                self._pool.assign(config, data, scenario)
        self._wanted = wanted
        return _Lent(self, self._pool)

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
        self._pool, self._wanted, self.base, self.in_use = None, None, None, False

    @contextmanager
    def using(self) -> Iterator[None]:
        """Work goes on inside; it stays marked as begun if it raises or is given up."""
        self.in_use = True
        yield
        self.in_use = False


class _Lent:
    """The pool as a run sees it: closing it gives it back."""

    def __init__(self, lease: Lease, pool: ClientPool) -> None:
        self._lease, self._pool = lease, pool

    @property
    def identities(self) -> Sequence[Identity]:
        return self._pool.identities

    def assign(self, config: RunConfig, data: ImageData, scenario: Scenario) -> None:
        raise AssertionError("a lent pool is not assigned; borrow it again")

    def install(self, base: Payload) -> None:
        if not same(base, self._lease.base):  # installing empties the workers' caches
            self._lease.base = None
            with self._lease.using():
                self._pool.install(base)
            self._lease.base = base

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        with self._lease.using():
            yield from self._pool.train(work, payload, clients, done, keep_updates)

    def evaluate(self, evaluation: Evaluation, payload: Payload) -> IntVector:
        with self._lease.using():
            return self._pool.evaluate(evaluation, payload)

    def base_hashes(self) -> list[list[str]]:
        with self._lease.using():
            hashes_of_workers = self._pool.base_hashes()
        # workers that do not agree on their base are not lent again
        self._lease.in_use = len({digest for hashes in hashes_of_workers for digest in hashes}) > 1
        return hashes_of_workers

    def close(self) -> None:
        """Give the pool back; its workers stay."""


def same(a: Any, b: Any) -> bool:
    """Whether two records of arrays and plain values are equal, bit for bit."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
