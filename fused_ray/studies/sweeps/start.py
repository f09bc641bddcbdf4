"""A sweep over config fields: fresh or resumed; here, or by Ray Tune.

Neither PyTorch nor Ray is imported until every configuration has been checked and the directory made.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_ray.config import RunConfig
from fused_ray.config.validation import blaming
from fused_ray.errors import ConfigError, RunDirectoryError
from fused_ray.runs.start import PLOTS, asks_for, check_inputs, check_own_model
from fused_ray.studies.start import Listener, changed, execute
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.dimension import KINDS

if TYPE_CHECKING:
    from fused_ray.studies.sweeps.directory import SweepDirectory


def sweep(
    config: SweepConfig | RunConfig,
    space: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Run a sweep into a new directory, `output.dir`, and return the content of its result.json.

    Give a SweepConfig, or a base RunConfig with a space whose values are as in a sweep's file or made by
    `tune.grid_search`, `tune.choice`, `tune.uniform` or `tune.loguniform`, and further fields of SweepConfig. The
    figures are in trials.parquet there. Raises FusedRayError with one line that says what is wrong and how to mend it;
    a trial that fails is a row that says so.
    """
    if isinstance(config, RunConfig):
        if any(_made_by_tune(found) for found in (space or {}).values()):
            from fused_ray.studies.tune.space import from_tune

            space = {key: from_tune(key, found) for key, found in (space or {}).items()}
        base = config.model_dump(mode="json", by_alias=True)
        config = SweepConfig.from_dict({"base": base, "space": dict(space or {}), **settings})
    elif space is not None or settings:
        raise ConfigError("sweep: a SweepConfig has its space and settings already; give nothing beside it")
    return execute(*prepare(config, overwrite=overwrite), listener)


def resume_sweep(
    path: str | Path, overrides: Sequence[str] = (), *, listener: Listener | None = None
) -> dict[str, Any]:
    """Go on with an interrupted sweep, and try again what failed in a finished one, or judge it by newer rules.

    `overrides` may change how it is executed (max_concurrent, base.engine.*), not what is computed; how many candidates
    are audited at most (audits); and `samples`, to draw more trials, which leaves those that are done as they are.
    """
    directory, config = prepare_resume(path, overrides)
    return directory.result if complete(directory, config) else execute(directory, config, listener)


def load_sweep(path: str | Path) -> SweepDirectory:
    """A sweep's directory for reading: `.config`, `.result`, `.table` (a row per trial and round).

    One of the first release is read too, and has what was recorded then.
    """
    from fused_ray.studies.sweeps.directory import SweepDirectory

    return SweepDirectory.open(path, older=True)


def prepare(config: SweepConfig, *, overwrite: bool = False) -> tuple[SweepDirectory, SweepConfig]:
    """Check what can be checked before anything starts, and make the directory; the configuration to execute."""
    from fused_ray.data import datasets
    from fused_ray.studies.sweeps.directory import SweepDirectory

    config = config.located()
    if config.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError("search: optuna is not installed: pip install optuna")
    runs = config.runs
    with blaming(config.blamed):
        for settings in {run.data: run.data for run in runs}:
            datasets.find(settings)
        for run in {(run.model, run.data.name): run for run in runs}.values():
            check_own_model(run)
    for run in runs:
        check_inputs(run.inputs, config.output.dir)
    return SweepDirectory.create(config.output.dir, config, overwrite), config


def prepare_resume(path: str | Path, overrides: Sequence[str] = ()) -> tuple[SweepDirectory, SweepConfig]:
    """The directory to go on with and its configuration."""
    directory = load_sweep(path)
    if directory.older:
        raise RunDirectoryError(f"{path}: {directory.how_to_go_on}")
    before = directory.config
    may_change = ("samples=", "max_trials=", "audits=", f"{PLOTS}=", "max_concurrent=")
    config = changed(before, overrides, may_change, "sweep")
    if config.samples != before.samples:
        if config.search == "grid":
            raise ConfigError(
                "samples: a grid's list of trials is fixed; start another sweep, which shares the models of this one "
                f"with --set output.store={before.store}"
            )
        if config.count < before.count:
            raise ConfigError(f"samples: {before.count} are drawn already; there can only be more")
    if directory.finished and asks_for(PLOTS, overrides):
        from fused_ray.studies.sweeps.study import redraw

        with directory.attempt():
            redraw(directory, config)
    return directory, config


def complete(directory: SweepDirectory, config: SweepConfig) -> bool:
    """Whether there is nothing left to run, or to audit by this version's rules, nor to try again."""
    if not directory.finished or directory.result["trials"] < config.count:
        return False
    if directory.config.audits != config.audits or directory.outdated:
        return False
    return not directory.result["failed"] or config.search == "optuna"


def _made_by_tune(found: Any) -> bool:
    return not (isinstance(found, dict) and set(found) <= {*KINDS, "grid_search"})
