"""A callback and a metric of another package: in a run, a comparison and a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fused_ray_plugin.metrics import ece

from fused_ray import (
    CompareConfig,
    FusedRayError,
    RunConfig,
    SweepConfig,
    compare,
    load_comparison,
    load_run,
    run,
    sweep,
)
from fused_ray.api import Evidence, Metric
from fused_ray.runs.report import show_result
from fused_ray.studies.comparisons import tables

LINES, ECE = "fused_ray_plugin.callbacks.lines:Lines", "fused_ray_plugin.metrics.ece:METRIC"
BASE: dict[str, Any] = {
    "engine": {"backend": "local"},
    "data": {"limit": 300},
    "federation": {"clients": 3},
    "train": {"batch_size": 32},
    "pretrain": {"rounds": 1},
    "unlearn": {"rounds": 1, "layers": ["fc3"], "mask": "random"},
    "retrain": {"rounds": 1},
    "audit": {"relearn_steps": 1, "relearn_repeats": 1, "metrics": [ECE]},
    "output": {"plots": "none", "callbacks": [LINES]},
}


def fail(evidence: Evidence) -> float:
    """Fails, after trying to change what others are judged by."""
    evidence.after.weights["fc3.bias"][:] = 0
    return 0.0


def infinite(evidence: Evidence) -> dict[str, float]:
    """No figure."""
    return {"of_it": float("inf")}


FAILS = Metric(name="fails", measure=fail, meaning="nothing")
INFINITE = Metric(name="infinite", measure=infinite, meaning="nothing")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]


def test_calibration_by_hand() -> None:
    """Two images with confidence 3/4, one of them right; two with 9/10, both right: (2 x 1/4 + 2 x 1/10) / 4."""
    logits = np.log(np.array([[0.75, 0.25], [0.25, 0.75], [0.9, 0.1], [0.1, 0.9]], np.float32))
    assert ece.error(logits, np.array([0, 0, 0, 1])) == pytest.approx((2 * 0.25 + 2 * 0.1) / 4)


def test_in_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = BASE["audit"] | {"metrics": [ECE, "agreement", f"{__name__}:FAILS", f"{__name__}:INFINITE"]}
    config = RunConfig.from_dict(BASE | {"audit": audit}, [f"output.dir={tmp_path / 'run'}"])
    result = run(config)
    told, rows = lines(tmp_path / "run"), load_run(tmp_path / "run").rounds.to_pylist()
    assert told[-1] == {"verdict": result["verdict"]}
    assert [line["bytes_up"] for line in told[:-1]] == [row["bytes_up_total"] for row in rows]
    figures = {figure["name"]: figure["value"] for figure in result["audit_metrics"]}
    assert list(figures) == ["ece_after", "ece_retrained", "agreement_ra", "agreement_fa"]
    assert all(0 <= value <= 1 for value in figures.values())
    first, second = result["audit_metrics_failed"]
    assert first == "metric fails: ValueError: assignment destination is read-only; it is left out"
    assert second == "metric infinite: ValueError: infinite_of_it is inf; it is left out"
    assert result["notes"][-2:] == [first, second]
    assert load_run(tmp_path / "run").read_json("audit.json")["audit_metrics"] == result["audit_metrics"]
    show_result(tmp_path / "run", config, result)
    said = capsys.readouterr().out
    assert f"ece_after {figures['ece_after']:.4g}: expected calibration error" in said
    assert first in said

    bare = BASE | {"audit": BASE["audit"] | {"metrics": []}, "output": {"plots": "none"}}
    without = run(RunConfig.from_dict(bare, [f"output.dir={tmp_path / 'without'}"]))
    for name in ("hash", "verdict", "verdict_sentence", "findings"):
        assert without[name] == result[name]


def test_in_a_comparison(tmp_path: Path) -> None:
    audit = {"relearn_steps": 1, "relearn_repeats": 1, "probes": False, "shadows": 0, "metrics": [ECE]}
    audit["metrics"] = [ECE, f"{__name__}:FAILS"]
    values = {"base": BASE, "methods": ["fused", "retrain"], "scenarios": ["class"], "seeds": [0], "audit": audit}
    config = CompareConfig.from_dict(values, [f"output.dir={tmp_path / 'c'}"])
    compare(config)
    found = load_comparison(tmp_path / "c")
    assert found.table.schema.field("metric_ece_after").metadata[b"doc"].endswith(b"(lower is better)")
    fused, retrained = found.rows
    assert 0 < fused["metric_ece_after"] < 1
    assert retrained["metric_ece_after"] == retrained["metric_ece_retrained"] == fused["metric_ece_retrained"]
    assert fused["metrics_failed"].startswith("metric fails: ValueError")
    assert f" {fused['metric_ece_after']:.3f} " in (tmp_path / "c" / "table.md").read_text()
    assert "ece: expected calibration error" in (tmp_path / "c" / "table.md").read_text()
    assert r"ece\_after" in (tmp_path / "c" / "table.tex").read_text()
    assert "ece_after" in tables.layouts(found.rows, config)[0].head
    cell = lines(tmp_path / "c" / "cells" / "class-0-fused")
    assert [line.get("phase") for line in cell] == ["unlearn", None]
    assert cell[-1] == {"verdict": fused["verdict"]}


def test_in_a_sweep(tmp_path: Path) -> None:
    values = {"base": BASE, "space": {"unlearn.lr": {"grid": [0.05]}}, "audits": 1}
    result = sweep(SweepConfig.from_dict(values, [f"output.dir={tmp_path / 's'}", "base.audit.probes=false"]))
    (audited,) = result["cases"][0]["audited"]
    figures = {f"metric_{figure['name']}": figure["value"] for figure in audited["audit_metrics"]}
    assert list(figures) == ["metric_ece_after", "metric_ece_retrained"]
    front = pq.read_table(tmp_path / "s" / "front.parquet").to_pylist()
    assert any({name: row[name] for name in figures} == figures for row in front)
    table = (tmp_path / "s" / "table.md").read_text()
    assert f"; ece_after {figures['metric_ece_after']:.3f}" in table
    assert "| ece_after | ece_retrained |" in table
    assert lines(tmp_path / "s" / "trials" / "0000")[0]["phase"] == "unlearn"


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("output.callbacks=[fused_ray_plugin.callbacks.lines:Line]", "fused_ray_plugin.callbacks.lines has no Line"),
        ("output.callbacks=[line]", "unknown callback 'line'; no package registers one; name your own as"),
        ("audit.metrics=[fused_ray_plugin.metrics.ece:BINS]", "fused_ray_plugin.metrics.ece:BINS is of type int, not"),
    ],
)
def test_wrong_names_are_one_line(field: str, said: str) -> None:
    with pytest.raises(FusedRayError) as caught:
        RunConfig.from_dict(BASE, [field])
    assert str(caught.value).startswith(f"{field.partition('=')[0]}: {said}")
