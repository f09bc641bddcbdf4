"""What a driver does for a comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fused_ray.core.lease import Lease
from fused_ray.engine.parts import check_parts
from fused_ray.engine.pool import RayPool
from fused_ray.storage.place import Mark
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.execute import execute


@dataclass(frozen=True)
class CompareJob:
    """A comparison in its prepared directory, all of it on one pool."""

    path: str
    mark: Mark | None
    config: CompareConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        check_parts(cell.config or cell.base for cell in self.config.cells)
        with contextlib.closing(Lease(RayPool)) as lease:
            directory = ComparisonDirectory.open(self.path, self.mark)
            return execute(directory, self.config, lease, hear, stopped, notes)
