"""`fused-ray sweep` and `fused-ray plan`: a space over config fields. Neither PyTorch nor Ray is imported early."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fused_ray.cli.clusters import Cluster, show_placement
from fused_ray.cli.options import AsJson, DefaultGroup, Overrides, Preset, end, print_json
from fused_ray.cli.settings import SettingsCommand
from fused_ray.studies.sweeps.config import SweepConfig

app = typer.Typer(
    cls=DefaultGroup,
    help="Sweep config fields: grid, random or Optuna.",
)


@app.command(cls=SettingsCommand, epilog="The tables of a sweep once more: fused-ray sweep show DIRECTORY")
def start(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file with base, space, search ...", show_default=False)
    ] = None,
    set_: Overrides = None,
    preset: Preset = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this sweep; try again what failed.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier sweep in output.dir.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every trial, and show the trade-off of RA, FA and bytes with a recommended setting."""
    from fused_ray.studies.display import show_progress
    from fused_ray.studies.start import execute
    from fused_ray.studies.sweeps.display import show_sweep
    from fused_ray.studies.sweeps.start import complete, prepare, prepare_resume

    if resume is not None:
        if config is not None or preset or overwrite:
            raise typer.BadParameter("--resume goes on with the sweep's own configuration; give nothing but --set")
        directory, settings = prepare_resume(resume, set_ or [])
    else:
        settings = SweepConfig.from_yaml(_named(config), set_ or [], preset)
        directory, settings = prepare(settings, overwrite=overwrite)
    if not complete(directory, settings):
        with directory.attempt(), show_progress(directory.path, directory.RUNS) as listener:
            execute(directory, settings, listener)
    show_sweep(directory, to_error=as_json)
    end(directory, as_json=as_json)


@app.command()
def show(
    sweep: Annotated[Path, typer.Argument(help="A sweep directory.", show_default=False)], as_json: AsJson = False
) -> None:
    """Show a sweep's tables, as far as it has come."""
    from fused_ray.studies.sweeps.display import show_sweep, so_far
    from fused_ray.studies.sweeps.start import load_sweep

    directory = load_sweep(sweep)
    show_sweep(directory, to_error=as_json)
    if as_json:
        print_json(directory.result if directory.finished else so_far(directory))


def plan(
    config: Annotated[Path | None, typer.Argument(help="A sweep's YAML file.", show_default=False)] = None,
    set_: Overrides = None,
    preset: Preset = None,
    time: Annotated[bool, typer.Option(help="Time a few training steps here for an estimate.")] = True,
    cluster: Cluster = None,
    as_json: AsJson = False,
) -> None:
    """Show what a sweep would run, and about how long it would take.

    With --cluster: of a run, where its actors would be.
    """
    if cluster is not None:
        show_placement(config, set_ or [], preset, cluster, as_json)
        return
    settings = SweepConfig.from_yaml(_named(config), set_ or [], preset)
    from fused_ray.studies.sweeps.plan import described, show_plan  # imports PyTorch

    if as_json:
        print_json(described(settings, timed=time))
    else:
        show_plan(settings, timed=time)


def _named(config: Path | None) -> Path:
    if config is None:
        raise typer.BadParameter("name a YAML file with base and space")
    return config
