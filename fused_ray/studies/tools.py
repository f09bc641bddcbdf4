"""What a study's runs are carried out with, in the driver or a worker: a pool to borrow, and data that stay loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from fused_ray.config import RunConfig
from fused_ray.data import datasets
from fused_ray.runs import execute as single
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import MakePool, Prepare
from fused_ray.runs.progress import Progress
from fused_ray.types import ImageData, Scenario


@dataclass(frozen=True)
class Tools:
    """One process's means to carry out runs."""

    make_pool: MakePool
    """Best a lease, which keeps the workers from run to run."""
    prepare: Prepare
    listener: Callable[[Progress], None] = lambda progress: None
    stopped: Callable[[], bool] = lambda: False

    def finish(self, config: RunConfig) -> RunDirectory:
        """The finished run of a configuration. Raises FusedRayError, Interrupted when stopped among them."""
        return single.finish(config, self.make_pool, self.listener, self.stopped, (), self.prepare)


def preparer() -> Prepare:
    """Like `prepared`, but with the same objects again for the same data and scenario: a lease finds them unchanged."""
    read = lru_cache(maxsize=2)(datasets.load)

    @lru_cache(maxsize=2)
    def build(key: RunConfig) -> tuple[ImageData, Scenario]:
        return single.prepared(key, lambda data, seed: read(data, seed if data.limit is not None else 0))

    def prepare(config: RunConfig) -> tuple[ImageData, Scenario]:
        kept = ("seed", "data", "model", "federation", "forget")
        return build(RunConfig(**{name: getattr(config, name) for name in kept}))

    return prepare
