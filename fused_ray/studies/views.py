"""The views of a study, comparisons, sweeps and scaling: from a configuration to what is known of it in its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.storage.place import Mark
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.study import Comparison
from fused_ray.studies.progress import Progress
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.scaling.study import Scaling
from fused_ray.studies.study import Study
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.study import Sweep

AnyConfig = CompareConfig | SweepConfig | ScaleConfig


@contextmanager
def opened(
    path: str,
    mark: Mark | None,
    config: AnyConfig,
    listener: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
    notes: Sequence[str] = (),
) -> Iterator[Study]:
    """A study in its prepared folder, which nobody else writes in meanwhile. `mark` as for `Folder.open`."""
    config.base.check_parts_of_driver()
    if isinstance(config, CompareConfig):
        config.check_parts_of_driver()
        comparison = ComparisonDirectory.open(path, mark)
        comparison.lock(LOCK_WAIT)
        try:
            yield Comparison(comparison, config, listener, stopped, notes)
        finally:
            comparison.unlock()
    elif isinstance(config, ScaleConfig):
        scaling = ScalingDirectory.open(path, mark)
        scaling.lock(LOCK_WAIT)
        try:
            yield Scaling(scaling, config, listener, stopped, notes)
        finally:
            scaling.unlock()
    else:
        sweep = SweepDirectory.open(path, mark)
        sweep.lock(LOCK_WAIT)
        try:
            sweep.extend(config)
            yield Sweep(sweep, config, listener, stopped, notes)
        finally:
            sweep.unlock()
