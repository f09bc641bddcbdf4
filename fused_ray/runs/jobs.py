"""What a driver does for a single run: run it, or judge it once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fused_ray.config import RunConfig
from fused_ray.engine.autoscale import asked
from fused_ray.engine.meter import Meter
from fused_ray.engine.parts import check_parts
from fused_ray.engine.pool import RayPool
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import audit, execute
from fused_ray.runs.progress import Progress
from fused_ray.storage.place import Mark


@dataclass(frozen=True)
class RunJob:
    """A run in its prepared directory, on a pool of its own."""

    path: str
    mark: Mark | None
    config: RunConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        check_parts([self.config])
        with asked(self.config, stopped) as request:
            directory, make_pool = RunDirectory.open(self.path, self.mark), request.until(RayPool)
            meter = Meter(directory.path.name)

            def heard(progress: Progress) -> None:
                meter.tell(progress)
                hear(progress)

            return execute(directory, self.config, make_pool, heard, stopped, (*notes, *request.notes))


@dataclass(frozen=True)
class AuditJob:
    """The audit of a finished run, on a pool of its own."""

    path: str
    mark: Mark | None
    config: RunConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        check_parts([self.config])
        return audit(RunDirectory.open(self.path, self.mark, older=True), self.config, RayPool, hear, stopped)
