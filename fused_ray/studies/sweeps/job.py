"""What a driver does for a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fused_ray.core.lease import Lease
from fused_ray.engine.parts import check_parts
from fused_ray.engine.pool import RayPool
from fused_ray.storage.place import Mark
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.execute import Sweep, execute


@dataclass(frozen=True)
class SweepJob:
    """A sweep in its prepared directory: its shared models on one pool, its trials by Ray Tune."""

    path: str
    mark: Mark | None
    config: SweepConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        from fused_ray.studies.sweeps.tune.tuning import Tuning

        check_parts(self.config.runs)
        tuning = Tuning(self.config)  # refuses at once what does not fit
        with contextlib.closing(Lease(RayPool)) as lease:

            def run_trials(sweep: Sweep) -> None:
                lease.close()  # its cores are the trials' now
                tuning(sweep)

            directory = SweepDirectory.open(self.path, self.mark)
            return execute(directory, self.config, lease, run_trials, hear, stopped, notes)
