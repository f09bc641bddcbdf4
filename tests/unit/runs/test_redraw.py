"""`output.plots` names a format, in runs, comparisons and sweeps, and --resume may change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fused_ray import CompareConfig, RunConfig, SweepConfig
from fused_ray.errors import ConfigError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.start import prepare_resume as resume_run
from fused_ray.storage.folder import Folder
from fused_ray.studies.comparisons import rows as comparison_rows
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.start import prepare_resume as resume_comparison
from fused_ray.studies.sweeps import rows as sweep_rows
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.start import prepare_resume as resume_sweep

SENT = {"up_per_client_per_round": 100, "up_total": 1, "down_total": 1}
RUN = {"layers": {"ranking": []}, "metrics": {}, "bytes": {"unlearn": SENT}, "cases": []}
COMPARED = {"method": "fused", "scenario": "class", "seed": 0, "status": "done", "ra": 0.5, "fa": 0.1, "bytes_up": 9,
            "bytes_up_total": 90}  # fmt: skip
SWEPT = {"trial": 0, "round": 0, "last": True, "bytes_up": 9, "bytes_up_total": 90, "seconds_total": 1.0,
         "status": "done", "seed": 0, "values": "{}", **{f"{name}{half}": 0.5 for name in sweep_rows.ACCURACIES
                                                         for half in ("", "_choose", "_report")}}  # fmt: skip


def make(kind: str, place: Path, plots: Any) -> Folder:
    """A folder of a kind that is done but for its result."""
    output = {"dir": str(place), "plots": plots}
    directory: Folder
    if kind == "run":
        directory = RunDirectory.create(place, RunConfig.from_dict({"output": output}))
    elif kind == "comparison":
        base = {"output": {"plots": plots}}
        config = CompareConfig.from_dict({"base": base, "methods": ["fused"], "scenarios": ["class"]})
        directory = ComparisonDirectory.create(place, config)
    else:
        space = {"unlearn.layers": {"grid": [1, 2]}}
        directory = SweepDirectory.create(place, SweepConfig.from_dict({"space": space, "output": output}))
    with directory.attempt():
        directory.lock(1.0)
        if kind == "comparison":
            directory.write_table("results", comparison_rows.table([COMPARED]))
        elif kind == "sweep":
            directory.write_table("trials", sweep_rows.table([SWEPT]))
        directory.unlock()
    return directory


def finish(directory: Folder) -> None:
    directory.lock(1.0)
    directory.write_json("result.json", RUN)
    directory.unlock()


KINDS = {
    "run": (resume_run, "output.plots", lambda config: config.output.plots),
    "comparison": (resume_comparison, "base.output.plots", lambda config: config.base.output.plots),
    "sweep": (resume_sweep, "output.plots", lambda config: config.output.plots),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "meant"),
    [(True, "png"), (False, "none"), ("png", "png"), ("svg", "svg"), ("pdf", "pdf"), ("none", "none")],
)
def test_a_format_or_yes_or_no(tmp_path: Path, kind: str, given: Any, meant: str) -> None:
    _, _, plots = KINDS[kind]
    directory: Any = make(kind, tmp_path / "it", given)
    assert plots(directory.config) == meant


@pytest.mark.parametrize("wrong", ["gif", 1, None, ["png"]])
def test_another_format_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"output\.plots: .*'png', 'svg', 'pdf' or 'none'"):
        RunConfig.from_dict({"output": {"plots": wrong}})


@pytest.mark.parametrize("kind", KINDS)
def test_resume_may_change_it_and_draws_what_is_finished_anew(tmp_path: Path, kind: str) -> None:
    resume, key, plots = KINDS[kind]
    directory = make(kind, tmp_path / "it", "none")
    _, config = resume(directory.path, [f"{key}=pdf"])
    assert plots(config) == "pdf"
    assert not (directory.path / "plots").exists()  # nothing is finished yet
    finish(directory)
    resume(directory.path, [f"{key}=none"])
    resume(directory.path)
    assert not (directory.path / "plots").exists()
    resume(directory.path, [f"{key}=svg"])
    drawn = sorted(path.suffix for path in (directory.path / "plots").iterdir())
    assert drawn
    assert set(drawn) == {".svg"}
