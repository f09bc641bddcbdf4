"""The kinds of folders of results, and opening one of whatever kind it is."""

from __future__ import annotations

from pathlib import Path

from fused_ray.config.kinds import COMPARISON, RUN, SCALING, SWEEP
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.folder import Folder, kind_of_folder
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.sweeps.directory import SweepDirectory

FOLDERS: dict[str, type[Folder]] = {
    RUN: RunDirectory,
    SWEEP: SweepDirectory,
    COMPARISON: ComparisonDirectory,
    SCALING: ScalingDirectory,
}


def opened(path: str | Path) -> Folder:
    """A folder of results, of an earlier version too. Raises RunDirectoryError if it is none."""
    return FOLDERS[kind_of_folder(path)].open(path, older=True)
