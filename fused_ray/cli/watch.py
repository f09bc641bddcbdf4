"""`fused-ray watch`: a run or a study that another process works on, by what it writes to disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fused_ray.cli.options import RUNS_FAILED
from fused_ray.config.paths import expanded, remote
from fused_ray.errors import RunDirectoryError

if TYPE_CHECKING:
    from fused_ray.studies.watching import Watched

_PATIENCE = 10.0
"""Seconds to wait for a folder that is not there yet."""

Watchable = Annotated[Path, typer.Argument(help="Of a run or a study, here or on S3.", show_default=False)]
Every = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="How often to look.")]
Once = Annotated[bool, typer.Option("--once", help="Look once, print where it is, and end.")]


def watch(folder: Watchable, every: Every = 2.0, once: Once = False) -> None:
    """Show how far a run or a study of another process is.

    It looks until that ends. Ctrl-C leaves it alone.
    """
    from fused_ray.runs.screen import make_screen
    from fused_ray.studies.watching import opened

    if not once:
        _await(folder)
    watched, screen = opened(folder), make_screen()
    if once:

        def tell(progress: Any) -> None:
            for line in watched.lines(progress):
                screen.say(line)

        if not _look(watched, folder, tell):
            return
    else:
        with watched.listening(screen) as listener:
            while not _look(watched, folder, listener):
                time.sleep(every)
    watched.show_outcome()
    if watched.directory.result.get("failed"):
        raise typer.Exit(RUNS_FAILED)


def _await(folder: Path) -> None:
    """Give a folder some time to come."""
    deadline = time.monotonic() + _PATIENCE
    while not remote(folder) and not os.path.isdir(expanded(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _look(watched: Watched, folder: Path, tell: Callable[[Any], object]) -> bool:
    """Tell how far it is, unless it is finished; whether it is. Raises RunDirectoryError where nobody works on it."""
    from fused_ray.studies.watching import fetch

    worker = watched.directory.worker  # asked first: who has let go by now has written all
    fetch(folder)
    if watched.directory.finished:
        return True
    tell(watched.look())
    if worker is None:
        place = watched.directory.path
        raise RunDirectoryError(f"nobody works on {place} any more; {watched.directory.how_to_go_on}")
    return False
