"""A scaling study: fresh or resumed; here, or on Ray.

Neither PyTorch nor Ray is imported until every configuration has been checked and the directory made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_ray.config.validation import blaming
from fused_ray.runs.start import MAY_CHANGE, PLOTS, asks_for, check_inputs, check_own_model
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.start import Listener, changed, execute

if TYPE_CHECKING:
    from fused_ray.studies.scaling.directory import ScalingDirectory

TIMELESS = (PLOTS, "engine.min_nodes", "engine.wait_nodes", "engine.start_timeout", "engine.client_timeout",
            "engine.max_attempts", "engine.max_lost_nodes")  # fmt: skip
"""Of a run's fields those that may change when some points are measured: timings do not depend on them."""


def scale(config: ScaleConfig, *, overwrite: bool = False, listener: Listener | None = None) -> dict[str, Any]:
    """Run a scaling study into a new directory, `output.dir`, and return the content of its result.json.

    The figures are in points.parquet there. Raises FusedRayError with one line that says what is wrong and how to mend
    it; a run that fails is a row that says so.
    """
    return execute(*prepare(config, overwrite=overwrite), listener)


def resume_scale(
    path: str | Path, overrides: Sequence[str] = (), *, listener: Listener | None = None
) -> dict[str, Any]:
    """Go on with an interrupted study, or try again what failed in a finished one.

    A run that was cut short is made anew: its rounds are timed. Once there are figures, `overrides` may change no more
    than what they do not depend on: limits of base.engine, and base.output.plots, with which the tables of a finished
    study are made anew as well.
    """
    directory, config = prepare_resume(path, overrides)
    return directory.result if complete(directory) else execute(directory, config, listener)


def load_scale(path: str | Path) -> ScalingDirectory:
    """A study's directory for reading: `.config`, `.result`, `.table` (a row per measured round), `.made("points")`."""
    from fused_ray.studies.scaling.directory import ScalingDirectory

    return ScalingDirectory.open(path)


def prepare(config: ScaleConfig, *, overwrite: bool = False) -> tuple[ScalingDirectory, ScaleConfig]:
    """Check what can be checked before anything starts, and make the directory; the configuration to execute."""
    from fused_ray.data import datasets
    from fused_ray.studies.scaling.directory import ScalingDirectory

    config = config.located()
    check_inputs(config.base.inputs, config.output.dir)
    for take in config.takes[: len(config.all_points)]:
        with blaming(partial(config.blamed, point=take.point)):
            datasets.find(take.config.data)
            check_own_model(take.config)
    return ScalingDirectory.create(config.output.dir, config, overwrite), config


def prepare_resume(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ScalingDirectory, ScaleConfig]:
    """The directory to go on with and its configuration."""
    directory = load_scale(path)
    of_runs = TIMELESS if directory.rows else MAY_CHANGE
    config = changed(directory.config, overrides, (), "scaling study", of_runs)
    if directory.finished and asks_for(f"base.{PLOTS}", overrides):
        from fused_ray.studies.scaling.study import conclude_again

        conclude_again(directory, config)
    return directory, config


def complete(directory: ScalingDirectory) -> bool:
    """Whether there is nothing left to run, nor to try again."""
    return directory.finished and not directory.result["failed"]
