"""Several unlearning methods side by side: fresh or resumed; here, or on Ray.

Neither PyTorch nor Ray is imported until every configuration has been checked and the directory made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_ray.audit.rules import outdated
from fused_ray.config.validation import blaming
from fused_ray.runs.start import PLOTS, asks_for, check_inputs, check_own_model
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.start import Listener, changed, execute

if TYPE_CHECKING:
    from fused_ray.studies.comparisons.directory import ComparisonDirectory


def compare(config: CompareConfig, *, overwrite: bool = False, listener: Listener | None = None) -> dict[str, Any]:
    """Run a comparison into a new directory, `output.dir`, and return the content of its result.json.

    The figures are in results.parquet there. Raises FusedRayError with one line that says what is wrong and how to
    mend it; a cell that fails is a row that says so.
    """
    return execute(*prepare(config, overwrite=overwrite), listener)


def resume_comparison(
    path: str | Path, overrides: Sequence[str] = (), *, listener: Listener | None = None
) -> dict[str, Any]:
    """Go on with an interrupted comparison, and try again what failed in a finished one, or judge it by newer rules.

    `overrides` may change how it is executed (max_concurrent, base.engine.*), not what is computed.
    """
    directory, config = prepare_resume(path, overrides)
    return directory.result if complete(directory) else execute(directory, config, listener)


def load_comparison(path: str | Path) -> ComparisonDirectory:
    """A comparison's directory for reading: `.config`, `.result`, `.table` (a row per method, scenario and seed)."""
    from fused_ray.studies.comparisons.directory import ComparisonDirectory

    return ComparisonDirectory.open(path)


def prepare(config: CompareConfig, *, overwrite: bool = False) -> tuple[ComparisonDirectory, CompareConfig]:
    """Check what can be checked before anything starts, and make the directory; the configuration to execute."""
    from fused_ray.data import datasets
    from fused_ray.studies.comparisons.directory import ComparisonDirectory

    config = config.located()
    for cell in config.cells:
        check_inputs(cell.base.inputs, config.output.dir)
    cells = {cell.base.data: cell for cell in config.cells}
    for data, cell in cells.items():
        with blaming(partial(config.blamed, scenario=cell.scenario)):
            datasets.find(data)
    look = lru_cache(datasets.look)  # the user's own data are read once
    for cell in config.cells:
        with blaming(partial(config.blamed, scenario=cell.scenario, method=cell.method)):
            check_own_model(cell.config or cell.base, look)
    return ComparisonDirectory.create(config.output.dir, config, overwrite), config


def prepare_resume(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ComparisonDirectory, CompareConfig]:
    """The directory to go on with and its configuration."""
    directory = load_comparison(path)
    config = changed(directory.config, overrides, ("max_concurrent=",), "comparison")
    if directory.finished and asks_for(f"base.{PLOTS}", overrides):
        from fused_ray.studies.comparisons.study import redraw

        with directory.attempt():
            redraw(directory, config)
    return directory, config


def complete(directory: ComparisonDirectory) -> bool:
    """Whether there is nothing left to run, nor to try again, nor to judge by this version's rules."""
    return directory.finished and not directory.result["failed"] and not any(map(outdated, directory.rows))
