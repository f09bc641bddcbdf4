"""`fused-ray ls`, `diff` and `clean`: what lies in folders of results. None of them loads PyTorch before it must."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fused_ray.cli.options import AsJson, print_json

_Results = Annotated[Path, typer.Argument(help="A run or a study.", show_default=False)]


def ls(
    where: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="A folder with results in it, or an s3:// URI.")
    ] = Path("runs"),
    inside: Annotated[bool, typer.Option("--all", help="List the runs inside studies, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs and studies in a folder.

    State, verdict, RA, FA, last change, size, and what they are about.
    """
    from fused_ray.studies import listing

    found = listing.rows(where, inside)
    if as_json:
        print_json(listing.plain(found))
    else:
        listing.show(where, found)


def diff(a: _Results, b: _Results, as_json: AsJson = False) -> None:
    """Show what two runs, or two studies of a kind, differ in.

    Configuration, figures, bits, versions.
    """
    from fused_ray.config.kinds import RUN
    from fused_ray.runs.difference import plain, show
    from fused_ray.studies.difference import difference

    found = difference(a, b)
    if as_json:
        print_json(plain(found))
    else:
        show(found, all_figures=found.kind == RUN)


def clean(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Runs and studies.", show_default=False)],
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without, it is only shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what finished runs and studies no longer need.

    Checkpoints above all; --delete removes it.

    `show`, `report`, `diff`, `audit`, `apply` and `restore` work as before. What is lost is said first.
    """
    from fused_ray.studies import tidy

    found = [tidy.look(path) for path in paths]  # before anything goes, all of them are looked at
    if delete:
        found = [tidy.clear(path) for path in paths]
    if as_json:
        print_json(tidy.plain(found, deleted=delete))
    else:
        tidy.show(found, deleted=delete)
