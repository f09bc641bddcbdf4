"""`fused-ray compare`: methods x scenarios x seeds in one go. Neither PyTorch nor Ray is imported until it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fused_ray.cli.completion import of_presets
from fused_ray.cli.options import AsJson, DefaultGroup, Overrides, end, print_json
from fused_ray.cli.settings import SettingsCommand
from fused_ray.config import RunConfig
from fused_ray.config.preset import presets
from fused_ray.studies.comparisons.config import CompareConfig

if TYPE_CHECKING:
    from fused_ray.studies.comparisons.directory import ComparisonDirectory

app = typer.Typer(
    cls=DefaultGroup,
    help="Compare unlearning methods over scenarios and seeds.",
)

_WHOLE, _FIELDS = (", ".join(presets(kind)) for kind in ("compare", "run"))


@app.command(cls=SettingsCommand, epilog="The tables of a comparison once more: fused-ray compare show DIRECTORY")
def start(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file with methods, scenarios, seeds, base.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Put it under the file's: a comparison, which needs no file ({_WHOLE}), or {_FIELDS}.",
            autocompletion=of_presets("compare", "run"),
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Cut it down as its section `quick` says.")] = False,
    set_: Overrides = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this comparison; try again what failed.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier comparison in output.dir.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every method on every scenario with every seed, audit what they forgot, and show the tables."""
    from fused_ray.studies.comparisons.start import complete, prepare, prepare_resume

    if resume is not None:
        if config is not None or preset or quick or overwrite:
            raise typer.BadParameter("--resume goes on with the comparison's own configuration; give nothing but --set")
        directory, settings = prepare_resume(resume, set_ or [])
    else:
        if config is None and (preset is None or preset in presets("run")):
            raise typer.BadParameter(f"name a YAML file, or a preset: --preset {_WHOLE}")
        settings = CompareConfig.from_yaml(config, set_ or [], quick, preset)
        directory, settings = prepare(settings, overwrite=overwrite)
    _carry_out(directory, settings, started=not complete(directory), as_json=as_json)


def run_over_seeds(config: RunConfig, seeds: Sequence[int], *, overwrite: bool, as_json: bool) -> None:
    """Make a run with several seeds, and show means and spreads."""
    from fused_ray.studies.comparisons.seeds import over_seeds
    from fused_ray.studies.comparisons.start import prepare

    _carry_out(*prepare(over_seeds(config, seeds), overwrite=overwrite), started=True, as_json=as_json)


def _carry_out(directory: ComparisonDirectory, settings: CompareConfig, *, started: bool, as_json: bool) -> None:
    """Run what is left, unless nothing is, and show the tables."""
    from fused_ray.studies.comparisons.display import show_comparison  # loads PyTorch
    from fused_ray.studies.display import show_progress
    from fused_ray.studies.start import execute

    if started:
        with directory.attempt(), show_progress(directory.path, directory.RUNS) as listener:
            execute(directory, settings, listener)
    show_comparison(directory, to_error=as_json)
    end(directory, as_json=as_json)


@app.command()
def show(
    comparison: Annotated[Path, typer.Argument(help="A comparison directory.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show a comparison's tables, as far as it has come."""
    from fused_ray.studies.comparisons.display import show_comparison, so_far
    from fused_ray.studies.comparisons.start import load_comparison

    directory = load_comparison(comparison)
    show_comparison(directory, to_error=as_json)
    if as_json:
        print_json(directory.result if directory.finished else so_far(directory))
