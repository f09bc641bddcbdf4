"""`fused-ray scale`: how a round's seconds grow. Neither PyTorch nor Ray is imported until it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fused_ray.cli.options import AsJson, DefaultGroup, Overrides, end, print_json
from fused_ray.cli.settings import SettingsCommand
from fused_ray.studies.scaling.config import ScaleConfig

app = typer.Typer(
    cls=DefaultGroup,
    help="Measure rounds over clients, actors, nodes; predict larger clusters.",
)


@app.command(cls=SettingsCommand, epilog="The tables of a study once more: fused-ray scale show DIRECTORY")
def start(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file with base, payloads, points, hold_out.", show_default=False)
    ] = None,
    set_: Overrides = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this study; try again what failed.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier study in output.dir.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every point, time after time, and show seconds, efficiency, the cost model and its errors."""
    from fused_ray.studies.scaling.start import complete, prepare, prepare_resume

    if resume is not None:
        if config is not None or overwrite:
            raise typer.BadParameter("--resume goes on with the study's own configuration; give nothing but --set")
        directory, settings = prepare_resume(resume, set_ or [])
    else:
        if config is None:
            raise typer.BadParameter("name a YAML file, such as examples/scale.yaml")
        directory, settings = prepare(ScaleConfig.from_yaml(config, set_ or []), overwrite=overwrite)
    from fused_ray.studies.display import show_progress
    from fused_ray.studies.scaling.display import show_scaling
    from fused_ray.studies.start import execute

    if not complete(directory):
        with directory.attempt(), show_progress(directory.path, directory.RUNS) as listener:
            execute(directory, settings, listener)
    show_scaling(directory, to_error=as_json)
    end(directory, as_json=as_json)


@app.command()
def show(
    study: Annotated[Path, typer.Argument(help="A scaling study's directory.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show a study's tables, as far as it has come."""
    from fused_ray.studies.scaling.display import show_scaling, so_far
    from fused_ray.studies.scaling.start import load_scale

    directory = load_scale(study)
    show_scaling(directory, to_error=as_json)
    if as_json:
        print_json(directory.result if directory.finished else so_far(directory))
