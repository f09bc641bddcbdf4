"""Runs that are made, finished or failed at a place."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from fused_ray.config import RunConfig
from fused_ray.runs.directory import RunDirectory

CONFIG = RunConfig.from_dict({"seed": 5})


OTHER = RunConfig.from_dict({"seed": 6})


ROWS = pa.table({"round": [1]})


def names(place: Path) -> list[str]:
    """What lies at the place and beside it."""
    return sorted(path.name for path in place.parent.iterdir())


def finished(place: Path, config: RunConfig = CONFIG) -> RunDirectory:
    run = RunDirectory.create(place, config)
    run.lock(0)
    run.write_part("rounds", "1-pretrain-000001", ROWS)
    run.write_json("result.json", {"metrics": 1})
    run.unlock()
    return run
