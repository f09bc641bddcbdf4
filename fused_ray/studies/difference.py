"""`fused-ray diff`: two runs, or two studies of a kind, beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fused_ray.config.kinds import RUN
from fused_ray.errors import FusedRayError
from fused_ray.runs.difference import (
    Difference,
    Figure,
    not_finished,
    of_configurations,
    of_runs,
    of_versions,
    side_by_side,
)
from fused_ray.runs.start import load_run
from fused_ray.storage.folder import kind_of_folder
from fused_ray.storage.mirror import in_words
from fused_ray.studies.directory import StudyDirectory
from fused_ray.studies.folders import opened
from fused_ray.studies.scaling import rows as points
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.sweeps.directory import SweepDirectory


def difference(a: str | Path, b: str | Path) -> Difference:
    """What two folders differ in. Raises FusedRayError where they are not of one kind, or one cannot be read."""
    kinds = [kind_of_folder(each) for each in (a, b)]
    if kinds[0] != kinds[1]:
        raise FusedRayError(f"{a} is a {kinds[0]} and {b} a {kinds[1]}: name two of a kind")
    if kinds[0] == RUN:
        return of_runs(load_run(a), load_run(b))
    ours, theirs = (opened(each) for each in (a, b))
    assert isinstance(ours, StudyDirectory)
    assert isinstance(theirs, StudyDirectory)
    return Difference(
        kind=kinds[0],
        a=in_words(str(ours.path)),
        b=in_words(str(theirs.path)),
        configuration=of_configurations(ours.config, theirs.config),
        figures=side_by_side(dict(_figures(ours)), dict(_figures(theirs))),
        versions=of_versions(ours, theirs),
        unfinished=not_finished(ours, theirs),
    )


def _figures(study: StudyDirectory[Any]) -> Iterator[tuple[str, Figure]]:
    """The figures of a study's runs so far, each under the name of its run."""
    if isinstance(study, ScalingDirectory):
        for row in points.by_point(study.rows, study.config.held_out):
            point = f"{row['clients']} clients, {row['actors']} actors, {row['nodes']} nodes, {row['payload']}"
            yield f"{point}: a round", Figure(row["seconds"], "s")
        return
    for row in study.rows:
        if isinstance(study, SweepDirectory) and not row["last"]:
            continue
        name = _name(row)
        for column, unit in (("status", ""), ("verdict", ""), ("ra", ""), ("fa", ""), ("bytes_up_total", "bytes")):
            if row.get(column) is not None:
                told = {"ra": "RA", "fa": "FA", "bytes_up_total": "sent up"}.get(column, column)
                yield f"{name}: {told}", Figure(row[column], unit)


def _name(row: Mapping[str, Any]) -> str:
    """A cell's or a trial's, by what tells it from the others."""
    if "scenario" in row:
        return f"{row['scenario']}, {row['method']}, seed {row['seed']}"
    return ", ".join(f"{key}={value}" for key, value in json.loads(row["values"]).items())
