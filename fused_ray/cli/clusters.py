"""`fused-ray plan --cluster`: where a run's actors would be. Neither PyTorch nor Ray is imported early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fused_ray.cli.options import print_json
from fused_ray.config import RunConfig

Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="NODES",
        help='Of a run: place its actors on such nodes, as "1x4c, 2x8c/1g/32GB"; auto: on the cluster that is there.',
    ),
]


def show_placement(
    config: Path | None, overrides: Sequence[str], preset: str | None, cluster: str, as_json: bool
) -> None:
    """Print a run's placement. Raises FusedRayError."""
    settings = RunConfig.from_yaml(config, list(overrides), preset)
    from fused_ray.runs.placement import described, show

    if as_json:
        print_json(described(settings, cluster))
    else:
        show(settings, cluster)
