"""Workers that compute clients: the ClientPool protocol, and LocalPool, the plain loop that is its oracle.

Whatever another pool computes must equal LocalPool's result bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from fused_ray.config import RunConfig
from fused_ray.core import numerics
from fused_ray.core.standard import standard
from fused_ray.core.work import Evaluation, Work, compute
from fused_ray.core.workspace import Workspace, test_blocks
from fused_ray.types import Identity, ImageData, IntVector, PartialSum, Payload, Scenario

ClientDone = Callable[[int], None]
"""Called with the number of clients that have just finished; raises Interrupted to end the run."""


class ClientPool(Protocol):
    """Workers that compute clients, wherever they are."""

    @property
    def identities(self) -> Sequence[Identity]:
        """What each worker says of itself."""
        ...

    def assign(self, config: RunConfig, data: ImageData, scenario: Scenario) -> None:
        """Give the workers other clients and data; what was installed is gone."""
        ...

    def install(self, base: Payload) -> None:
        """Give every worker, now and later, the frozen base M_r."""
        ...

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        """Every client's update as exact partial sums, in whatever order they finish.

        Where `federation.on_failure` is skip, clients that failed are in none of them.
        """
        ...

    def evaluate(self, evaluation: Evaluation, payload: Payload) -> IntVector:
        """Predicted classes of the whole test set [m]."""
        ...

    def base_hashes(self) -> list[list[str]]:
        """Each worker's hashes of all that stands for the base there, as it lies; at least one each."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class LocalPool:
    """All clients one after the other in this process, on one thread."""

    def __init__(self, config: RunConfig, data: ImageData, scenario: Scenario) -> None:
        self.assign(config, data, scenario)
        with standard():
            self.identities: Sequence[Identity] = [numerics.identity("local")]

    def assign(self, config: RunConfig, data: ImageData, scenario: Scenario) -> None:
        self._blocks = range(test_blocks(data))
        with standard():
            self._space = Workspace(config, data, scenario)

    @standard()
    def install(self, base: Payload) -> None:
        self._space.install(base)

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        with standard():
            total = compute(self._space, work, payload, clients, keep_updates, lambda _: done(1))
        yield total

    def evaluate(self, evaluation: Evaluation, payload: Payload) -> IntVector:
        with standard():
            return np.concatenate(evaluation.predict(self._space, payload, self._blocks))

    @standard()
    def base_hashes(self) -> list[list[str]]:
        return [self._space.base_hashes()]

    def close(self) -> None:
        """Nothing outlives the object."""
