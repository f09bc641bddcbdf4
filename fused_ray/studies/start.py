"""What starting studies has in common: going on with one, and executing it here or on Ray.

Neither PyTorch nor Ray is imported until every configuration has been checked and the directory made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fused_ray.config import Section
from fused_ray.config.older_names import present_name
from fused_ray.config.validation import validated
from fused_ray.errors import ConfigError
from fused_ray.runs.start import MAY_CHANGE, check_trackers
from fused_ray.seeding import untouched
from fused_ray.stopping import requested

if TYPE_CHECKING:
    from fused_ray.storage.folder import Folder
    from fused_ray.studies.progress import Progress
    from fused_ray.studies.views import AnyConfig

Listener = Callable[["Progress"], None]
Config = TypeVar("Config", bound=Section)


def changed(
    config: Config, overrides: Sequence[str], may_change: Sequence[str], what: str, of_runs: Sequence[str] = MAY_CHANGE
) -> Config:
    """The configuration to go on with. Raises ConfigError where an override would change what is computed.

    `may_change` are fields of the study that may, `of_runs` those of its runs.
    """
    allowed = (*may_change, *(f"base.{key}" for key in of_runs))
    for override in overrides:
        if not f"{present_name(override.partition('=')[0].strip())}=".startswith(allowed):
            raise ConfigError(
                f"--set {override!r}: a {what} goes on with the configuration it was started with; only "
                f"{', '.join(allowed)} may change"
            )
    return validated(type(config), config.model_dump(mode="json", by_alias=True), overrides)


def unused(config: AnyConfig) -> list[str]:
    """What a configuration asks for that has no effect, for a study's first lines."""
    if config.base.engine.backend != "local" or config.max_concurrent in ("auto", 1):
        return []
    return [
        f"max_concurrent: {config.max_concurrent} at a time take base.engine.backend=ray; on the local backend one run "
        "goes on after the other"
    ]


def execute(directory: Folder, config: AnyConfig, listener: Listener | None = None) -> dict[str, Any]:
    """Run what is still to be done in a prepared directory."""
    hear: Listener = listener or (lambda progress: None)
    config = config.at(directory.path)
    with untouched(), directory.attempt():
        check_trackers(config.base, directory)
        if config.base.engine.backend == "local":
            from fused_ray.core.lease import Lease
            from fused_ray.core.pools import LocalPool
            from fused_ray.studies import study
            from fused_ray.studies.views import opened

            with (
                contextlib.closing(Lease(LocalPool)) as lease,
                opened(str(directory.path), directory.mark, config, hear, requested, unused(config)) as found,
            ):
                return study.execute(found, lease, study.one_by_one(lease))
        from fused_ray.engine.submit import execute_on_ray
        from fused_ray.studies.job import StudyJob

        return execute_on_ray(StudyJob(str(directory.path), directory.mark, config), config.base.engine, hear)
