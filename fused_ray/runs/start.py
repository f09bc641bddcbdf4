"""One run from end to end: fresh, resumed, or on an earlier run's model; here, or on Ray.

Neither PyTorch nor Ray is imported until the configuration has been checked and the run directory made.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_ray.config import DataConfig, RunConfig, schedule
from fused_ray.config.kinds import COMMANDS
from fused_ray.config.older_names import present_name
from fused_ray.config.parts.callbacks import NEEDED, hears
from fused_ray.config.parts.metrics import FULL
from fused_ray.config.parts.trackers import check_installed
from fused_ray.config.paths import remote
from fused_ray.config.validation import validated
from fused_ray.errors import ConfigError, RunDirectoryError
from fused_ray.seeding import untouched
from fused_ray.stopping import requested

if TYPE_CHECKING:
    from fused_ray.runs.directory import RunDirectory
    from fused_ray.runs.progress import Progress
    from fused_ray.storage.folder import Folder

Listener = Callable[["Progress"], None]
Look = Callable[[DataConfig], tuple[tuple[int, ...], int] | None]

PLOTS = "output.plots"
MAY_CHANGE = ("engine.", PLOTS, "output.report", "output.callbacks", "output.trackers", "federation.clients_per_actor",
               "federation.actor_cpus", "federation.actor_gpus", "federation.actor_labels")  # fmt: skip
"""What may differ when a run goes on: nothing that changes a result."""


def run(
    config: RunConfig,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
    progress: bool = False,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Run a configuration into a new directory, `output.dir`, and return the content of its result.json.

    Raises FusedRayError with one line that says what is wrong and how to mend it. `listener` hears of progress;
    `progress` shows it on standard error instead, as the command line does. `callbacks` are objects of this process
    that hear of events (`fused_ray.api.Callback`), on the local backend alone.
    """
    check_callbacks(config, callbacks)
    directory, config = prepare(config, overwrite=overwrite)
    if not progress:
        return execute(directory, config, listener, callbacks=callbacks)
    from fused_ray.runs.display import show_progress

    with show_progress(directory.path) as show:
        return execute(directory, config, show, callbacks=callbacks)


def resume(
    path: str | Path, overrides: Sequence[str] = (), *, listener: Listener | None = None, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Go on with an interrupted run; the outcome has the same bits as an undisturbed run's.

    `overrides` may change how it is executed (engine.*, federation.clients_per_actor and actor_*) and
    who hears of it (output.callbacks and output.trackers), not what is computed; output.plots draws the plots of a
    finished run anew. `callbacks` are as of `run`.
    """
    directory, config = prepare_resume(path, overrides)
    check_callbacks(config, callbacks)
    if (directory.path / "result.json").exists():
        return directory.result
    return execute(directory, config, listener, callbacks=callbacks)


def audit_run(
    path: str | Path, *, full: bool = False, overrides: Sequence[str] = (), listener: Listener | None = None
) -> dict[str, Any]:
    """Judge the model of a finished run again, inside as well (`audit.probes`); returns the content of result.json.

    `full` also trains what tells chance from difference, two shadow models and two more retrained models or as many as
    the run's `audit` section asks for, and measures what the models give away. `overrides` are of that section alone.
    Nothing of the run is trained again, no model changes. Raises RunDirectoryError for a run of a comparison or a
    sweep, which judges it against models beyond the run's folder.
    """
    from fused_ray.runs.progress import Progress

    directory = load_to_audit(path)
    config = _to_audit(directory.config, full, overrides)
    settings = config.audit
    hear: Listener = listener or (lambda progress: None)
    if notes := tuple(_anew(config)):
        hear(Progress(notes=notes))
    words = [*(["--full"] if full else []), *(word for override in overrides for word in ("--set", override))]
    again = shlex.join(["fused-ray", "audit", str(directory.path), *words])
    with untouched(), directory.attempt(again):
        if config.engine.backend == "ray" and settings.needs_workers(config):
            from fused_ray.engine.submit import execute_on_ray
            from fused_ray.runs.jobs import AuditJob

            return execute_on_ray(AuditJob(str(directory.path), directory.mark, config), config.engine, hear)
        from fused_ray.core.pools import LocalPool
        from fused_ray.runs.execute import audit

        return audit(directory, config, LocalPool, hear, requested)


def _to_audit(config: RunConfig, full: bool, overrides: Sequence[str]) -> RunConfig:
    """A run's configuration as its model is to be judged. Raises ConfigError."""
    for override in overrides:
        if not override.strip().startswith("audit."):
            raise ConfigError(f"--set {override!r}: a finished run is only judged; set a field of audit")
    settings = config.audit
    if overrides:
        settings = validated(RunConfig, config.model_dump(mode="json", by_alias=True), overrides).audit
    changes: dict[str, Any] = {"enabled": True, "probes": True}
    if full:
        changes |= {"shadows": max(2, settings.shadows), "retrained": max(3, settings.retrained)}
        changes["metrics"] = tuple(dict.fromkeys([*settings.metrics, *FULL]))
    return config.model_copy(update={"audit": settings.model_copy(update=changes)})


def _anew(config: RunConfig) -> Iterator[str]:
    """What the audit will train beside shadow models and retrained ones, a line each."""
    for name, (times, rounds) in schedule.audit_rounds(config).items():
        yield f"audit.{name}: trains anew, {times} x {rounds} rounds; what is done already is kept"


def load_run(path: str | Path) -> RunDirectory:
    """A run directory for reading: `.config`, `.result`, `.table("rounds")`, `.table("clients")`.

    One of the first release is read too, and has what was recorded then.
    """
    from fused_ray.runs.directory import RunDirectory

    return RunDirectory.open(path, older=True)


def load_to_audit(path: str | Path) -> RunDirectory:
    """A run directory to judge by itself. Raises RunDirectoryError if it is a comparison's or a sweep's."""
    from fused_ray.storage.folder import study_of

    directory = load_run(path)
    if study := study_of(directory.path):
        kind, folder = study[0], shlex.quote(str(study[1]))
        raise RunDirectoryError(
            f"{path} is part of a {kind}, whose verdicts rest on models beyond this folder: {COMMANDS[kind]} --resume "
            f"{folder} makes those that are missing or by other rules, unless audits are off there; fused-ray show "
            f"{folder} tells them"
        )
    return directory


def prepare(config: RunConfig, *, overwrite: bool = False) -> tuple[RunDirectory, RunConfig]:
    """Check what can be checked before anything starts, and make the run directory; the configuration to execute."""
    from fused_ray.data import datasets
    from fused_ray.runs.directory import RunDirectory
    from fused_ray.runs.earlier import check_earlier
    from fused_ray.storage import place

    config = config.located()
    check_inputs(config.inputs, config.output.dir)
    datasets.find(config.data)
    if config.pretrain.from_ is not None and not os.path.exists(config.pretrain.from_):
        told = place.told(Path(config.pretrain.from_))
        raise ConfigError(f"pretrain.from: there is no run or file {config.pretrain.from_}{told}")
    check_earlier(config)
    check_own_model(config)
    return RunDirectory.create(config.output.dir, config, overwrite), config


def check_inputs(inputs: Mapping[str, str], place: str) -> None:
    """Raises ConfigError if what is to be read lies where the results go: replacing those would remove it."""
    if remote(place):
        return
    target = Path(place).resolve()
    for key, where in inputs.items():
        if "://" not in where and Path(where).resolve().is_relative_to(target):
            raise ConfigError(f"output.dir: {place} holds {key} {where}; choose another output.dir for the results")


def check_own_model(config: RunConfig, look: Look | None = None) -> None:
    """Try a model that is not known beforehand on images of the data's shape, if that can be told without reading all.

    One that is known is tried too where single updates must fit into memory: its size is not known.

    `look` stands for `datasets.look`, where it remembers. Raises ConfigError if the model cannot be used, and DataError
    if the user's own data cannot be.
    """
    each = config.federation.aggregate_part[0].entry is not None
    if config.model.known is None or config.model.weights is not None or each:
        from fused_ray.core.model_check import check_model
        from fused_ray.data import datasets

        info = config.data.known
        about = (look or datasets.look)(config.data) if info is None else (info.shape, info.classes)
        if about is not None:
            check_model(config, *about)


def prepare_resume(path: str | Path, overrides: Sequence[str] = ()) -> tuple[RunDirectory, RunConfig]:
    """The run directory to go on with and its configuration."""
    directory = load_run(path)
    if directory.older and not directory.finished:
        raise RunDirectoryError(f"{path} is not finished; {directory.how_to_go_on}")
    for override in overrides:
        if not present_name(override.partition("=")[0].strip()).startswith(MAY_CHANGE):
            raise ConfigError(
                f"--set {override!r}: a run goes on with the configuration it was started with; only "
                f"{', '.join(MAY_CHANGE)} may change"
            )
    config = validated(RunConfig, directory.config.model_dump(mode="json", by_alias=True), overrides)
    if directory.finished and asks_for(PLOTS, overrides):
        from fused_ray.runs.execute import redraw

        with directory.attempt():
            redraw(directory, config.output.plots)
    return directory, config


def asks_for(key: str, overrides: Sequence[str]) -> bool:
    """Whether one of the overrides sets a field."""
    return any(override.partition("=")[0].strip() == key for override in overrides)


def check_callbacks(config: RunConfig, callbacks: Sequence[Any]) -> None:
    """Raises ConfigError where objects of this process cannot be called by the run, or are no callbacks."""
    if callbacks and config.engine.backend != "local":
        raise ConfigError(
            "callbacks: a run on Ray is driven by another process, where objects of this one cannot be called; name "
            "them in output.callbacks as package.module:object, or set engine.backend=local"
        )
    for number, given in enumerate(callbacks):
        if not hears(given):
            raise ConfigError(f"callbacks[{number}]: it is of type {type(given).__name__}, not {NEEDED}")


def check_trackers(config: RunConfig, directory: Folder) -> None:
    """Raises ConfigError where a tracker's package is missing, or cannot write where the results go."""
    check_installed(config.output.trackers)
    if "tensorboard" in config.output.trackers and directory.remote:
        raise ConfigError(
            "output.trackers: tensorboard writes into output.dir, and cannot on S3; name mlflow or wandb, or another "
            "output.dir"
        )


def execute(
    directory: RunDirectory, config: RunConfig, listener: Listener | None = None, *, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Run what is still to be done in a prepared directory."""
    hear: Listener = listener or (lambda progress: None)
    with untouched(), directory.attempt():
        check_trackers(config, directory)
        if config.engine.backend == "local":
            from fused_ray.core.pools import LocalPool
            from fused_ray.runs.execute import execute as execute_here

            return execute_here(directory, config, LocalPool, hear, requested, callbacks=callbacks)
        from fused_ray.engine.submit import execute_on_ray
        from fused_ray.runs.jobs import RunJob

        return execute_on_ray(RunJob(str(directory.path), directory.mark, config), config.engine, hear)
