"""`fused-ray report`: results to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    list[Path], typer.Argument(metavar="PATH", help="Directories of runs and studies.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where to write it; unset: report.html in the folder of the only result, of several in this folder.",
        show_default=False,
    ),
]


def report(paths: Results, out: Out = None) -> None:
    """Write results as one HTML file to look at: runs and studies.

    It holds all that it shows, loads nothing, and has no images of the data. A run has written its own already.
    """
    from fused_ray.studies.pages import write

    print(f"wrote {write(paths, out)}")
