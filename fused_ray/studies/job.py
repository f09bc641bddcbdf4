"""What a driver does for a study: its models and audits on one pool, its runs side by side by Ray Tune."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fused_ray.core.lease import Lease
from fused_ray.engine.autoscale import asked
from fused_ray.engine.parts import check_parts
from fused_ray.engine.pool import RayPool
from fused_ray.storage.place import Mark
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.study import CarryOut, Study, execute, one_by_one
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.tune import search
from fused_ray.studies.tune.shares import AUTO, shared_out
from fused_ray.studies.tune.tuning import Tuning
from fused_ray.studies.views import AnyConfig, opened


@dataclass(frozen=True)
class StudyJob:
    """A study in its prepared directory. Raises at once where its parts or its runs do not fit the cluster."""

    path: str
    mark: Mark | None
    config: AnyConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        check_parts(self.config.runs)
        with (
            asked(self.config.base, stopped) as request,
            contextlib.closing(Lease(request.until(RayPool))) as lease,
            opened(self.path, self.mark, self.config, hear, stopped, (*notes, *request.notes)) as study,
        ):
            side_by_side = self._side_by_side(study.waiting)
            if side_by_side is None:
                return execute(study, lease, one_by_one(lease))

            def carry_out(study: Study) -> None:
                lease.close()  # its cores are the runs' now
                side_by_side(study)

            return execute(study, lease, carry_out)

    def _side_by_side(self, waiting: int) -> CarryOut | None:
        """None where runs go on one at a time, as timings must; a comparison's cells keep the pool of their models."""
        config, limit = self.config, self.config.base.engine.start_timeout
        if isinstance(config, ScaleConfig):
            return None
        optuna = isinstance(config, SweepConfig) and config.search == "optuna"
        parts = shared_out(config.runs, config.max_concurrent, max(1, waiting), 1 if optuna else AUTO)
        if isinstance(config, CompareConfig):
            return Tuning(parts, limit) if len(parts) > 1 else None
        return Tuning(parts, limit, search.scheduler(config), search.search if optuna else None)
