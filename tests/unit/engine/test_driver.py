"""A driver does its job in the folder that it was made for, and in no later one at the same place."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray.config import RunConfig
from fused_ray.errors import RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.jobs import AuditJob, RunJob
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.job import StudyJob

RUN = RunConfig.from_dict({})
COMPARISON = CompareConfig.from_dict({"methods": ["fused"], "scenarios": ["class"]})


@pytest.mark.parametrize(
    ("kind", "config", "job"),
    [
        (RunDirectory, RUN, RunJob),
        (RunDirectory, RUN, AuditJob),
        (ComparisonDirectory, COMPARISON, StudyJob),
    ],
)
def test_a_driver_that_comes_late_leaves_a_later_folder_alone(tmp_path: Path, kind, config, job) -> None:
    """The command that started it was killed, and so will it be; meanwhile another start replaced the folder."""
    mark = kind.create(tmp_path / "one", config).mark
    later = kind.create(tmp_path / "one", config, overwrite=True)
    (later.path / "result.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="was taken over by another run"):
        job(str(later.path), mark, config)(lambda progress: None, lambda: False, ())
    assert (later.path / "result.json").read_text() == "{}"
    later.lock(0)
