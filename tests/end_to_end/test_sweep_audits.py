"""The audits of a sweep: its candidates, best first, until one is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fused_ray import FusedRayError, SweepConfig, load_run, load_sweep, resume_sweep, sweep
from fused_ray.studies.progress import Progress
from fused_ray.studies.sweeps.display import show_sweep

# -- audits

AUDITED: dict[str, Any] = {
    "base": {
        "data": {"limit": 600},
        "federation": {"clients": 2},
        "forget": {"classes": [1]},
        "train": {"batch_size": 16, "lr": 0.02},
        "pretrain": {"rounds": 5},
        "unlearn": {"rounds": 2, "layers": ["fc3"], "start": "reset", "mask": "random", "sparsity": 0.5, "lr": 0.05},
        "audit": {"relearn_steps": 12, "relearn_repeats": 1},
        "engine": {"backend": "local"},
    },
    "space": {"unlearn.method": {"grid": ["fused", "retrain"]}},
    "seeds": [0, 1],
    "ra_margin": 0.0,
    "output": {"plots": False},
}


def kept_by_audits(path: Path) -> dict[str, int]:
    """When each audit and each run to an earlier round was finished."""
    found = (*path.glob("*/*/audit.json"), *path.glob("audited/*/result.json"))
    return {str(file.relative_to(path)): file.stat().st_mtime_ns for file in found}


def test_candidates_are_audited_best_first_until_one_is_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new last layer is the smallest upload, and shallow; retraining, by itself among the methods, is forgotten."""
    path = tmp_path / "s"
    heard: list[str] = []

    def kill_in_the_second(progress: Progress) -> None:
        heard.append(progress.now if progress.now.startswith("audit") else "")
        if heard[-1] and heard[-1] != next(filter(None, heard)):
            raise KeyboardInterrupt

    with pytest.raises(FusedRayError, match=f"continue with: fused-ray sweep --resume {path}"):
        sweep(SweepConfig.from_dict(AUDITED, [f"output.dir={path}"]), listener=kill_in_the_second)
    before = kept_by_audits(path)
    ends = min(int(name.partition("-r")[2].partition("/")[0]) for name in before)  # forgotten before the last round
    assert sorted(before) == [f"audited/000{n}-r{ends}/{name}.json" for n in (0, 2) for name in ("audit", "result")]
    show_sweep(load_sweep(path))
    assert f"the smallest upload, not audited yet: method fused, I = {ends}" in capsys.readouterr().out

    (case,) = resume_sweep(path)["cases"]
    assert {name: when for name, when in kept_by_audits(path).items() if name in before} == before
    shallow, forgotten = case["audited"]
    assert (shallow["values"], shallow["rounds"]) == ({"unlearn.method": "fused"}, ends)
    assert (shallow["verdict"], shallow["findings"][0]["name"]) == ("shallow", "head only")
    assert shallow["verdict_sentence"].startswith("seed 0: its outputs forgot")
    assert (forgotten["values"], forgotten["verdict"]) == ({"unlearn.method": "retrain"}, "forgotten")
    assert case["recommended"] == forgotten
    assert case["reason"].startswith("the smallest upload that is forgotten: ")

    # what was audited is the model that the setting's figures are of
    rows = load_sweep(path).rows
    for trial in (0, 2):
        (row,) = [row for row in rows if (row["trial"], row["round"]) == (trial, ends)]
        after = load_run(path / "audited" / f"{trial:04d}-r{ends}").result["metrics"]["after"]
        assert after == {name: row[name] for name in after}

    table = pq.read_table(path / "front.parquet")
    verdicts = {(row["values"], row["rounds"]): row["verdict"] for row in table.to_pylist()}
    assert table.schema.field("verdict").type == pa.string()
    assert verdicts['{"unlearn.method": "fused"}', ends] == "shallow"
    assert set(verdicts.values()) <= {None, "shallow", "forgotten"}
    assert None in verdicts.values()
    assert f"- method fused, I = {ends} is shallow: seed 0: its outputs forgot" in (path / "table.md").read_text()
    show_sweep(load_sweep(path))
    said = capsys.readouterr().out
    assert "Recommended: method retrain" in said
    assert "TensorBoard" not in said  # Tune writes its curves, and ran no trial here

    # fewer may be audited, and what is known is not found out again
    everything = kept_by_audits(path)
    (fewer,) = resume_sweep(path, ["audits=1"])["cases"]
    assert (fewer["recommended"], fewer["audited"]) == (None, [shallow])
    assert fewer["reason"].endswith(" more were not audited (audits: at most 1)")
    assert resume_sweep(path)["cases"] == [fewer]
    assert kept_by_audits(path) == everything

    # an audit that fails is a verdict, too
    for file in (*path.glob("*/*/audit.json"), *path.glob("store/retrained/*/retrained.safetensors")):
        file.unlink()
    (failing,) = resume_sweep(path, ["audits=2"])["cases"]
    assert [found["verdict"] for found in failing["audited"]] == ["unjudged", "unjudged"]
    assert failing["recommended"] is None
    assert f"I = {ends} is unjudged: seed 0: the audit failed: there is no file" in (path / "table.md").read_text()
