"""Comparisons and sweeps keep their verdicts in step with the rules and the data, and are the only ones to judge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray import (
    CompareConfig,
    FusedRayError,
    SweepConfig,
    audit_run,
    compare,
    load_comparison,
    load_run,
    load_sweep,
    resume_comparison,
    resume_sweep,
    sweep,
)
from fused_ray.audit import rules, verdict
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.report import OUTDATED, show_result
from fused_ray.studies.auditor import Against, Auditor
from fused_ray.studies.comparisons.display import show_comparison
from fused_ray.studies.sweeps.display import show_sweep


def images(path: Path, **changed: Any) -> Path:
    """Three classes, told by which third of a noisy image is bright."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 240), ("test", 90)):
        labels = np.arange(count) % 3
        pixels = rng.integers(0, 60, (count, 28, 28), np.uint8)
        for third in range(3):
            pixels[labels == third, 9 * third : 9 * third + 9] += 150
        arrays |= {f"{split}_images": pixels, f"{split}_labels": labels}
    np.savez(path, **(arrays | changed))
    return path


def base(folder: Path) -> dict[str, Any]:
    return {
        "data": {"name": "npz", "root": str(images(folder / "own.npz"))},
        "federation": {"clients": 2},
        "train": {"lr": 0.05},
        "pretrain": {"rounds": 2},
        "unlearn": {"rounds": 1},
        "engine": {"backend": "local"},
    }


QUICK = {"relearn_steps": 2, "relearn_repeats": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of the user's own, and a comparison and a sweep on them."""
    folder = tmp_path_factory.mktemp("studies")
    values = {"base": base(folder), "methods": ["retrain", "fused"], "scenarios": ["class"], "seeds": [0]}
    compare(CompareConfig.from_dict(values | {"audit": QUICK}, [f"output.dir={folder / 'comparison'}"]))
    values = {"base": base(folder) | {"audit": QUICK}, "space": {"unlearn.lr": {"grid": [0.1]}}, "audits": 1}
    sweep(SweepConfig.from_dict(values, [f"output.dir={folder / 'sweep'}", "max_concurrent=1"]))
    return folder


@pytest.fixture
def studies(whole: Path) -> Any:
    """The same, put back as it was afterwards: what it holds names its place."""
    kept = whole.with_name("kept")
    shutil.copytree(whole, kept)
    yield whole
    shutil.rmtree(whole)
    kept.rename(whole)


def content(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def written(folder: Path) -> dict[str, int]:
    """When each model and each checkpoint was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def part(folder: Path) -> list[Path]:
    """A run of each kind that studies judge."""
    patterns = ("comparison/cells/*", "comparison/bases/*", "sweep/trials/*", "sweep/audited/*")
    return [run for pattern in patterns for run in sorted(folder.glob(pattern))[:1]]


def test_a_run_of_a_study_is_not_judged_by_itself(whole: Path) -> None:
    before = content(whole)
    for run in part(whole):
        command = "compare" if "comparison" in run.parts else "sweep"
        study = whole / ("comparison" if command == "compare" else "sweep")
        with pytest.raises(FusedRayError, match=f"fused-ray {command} --resume {study} ") as caught:
            audit_run(run)
        assert "\n" not in str(caught.value)
    assert content(whole) == before


def test_the_command_refuses_before_it_writes_anything(whole: Path) -> None:
    before = content(whole)
    done = subprocess.run(
        [sys.executable, "-m", "fused_ray", "audit", str(part(whole)[0]), "--full"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"fused-ray compare --resume {whole / 'comparison'}" in done.stderr
    assert content(whole) == before


def test_a_run_of_a_study_shows_who_judges_it(whole: Path, shown: Any) -> None:
    for run in part(whole):
        directory = load_run(run)
        lines = shown(lambda found=directory: show_result(found.path, found.config, found.result), 300)
        study = whole / ("comparison" if "comparison" in run.parts else "sweep")
        assert f"what was found out about it, its {study.name} tells: fused-ray show {study}" in lines
        assert not any("fused-ray audit" in line for line in lines)


def test_what_is_left_is_looked_up_once(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look hashes the models that verdicts rest on; a study that has none to make looks once."""
    looks: list[Path] = []
    is_current = Auditor.is_current

    def counted(self: Auditor, run: RunDirectory, against: Against) -> bool:
        looks.append(run.path)
        return is_current(self, run, against)

    monkeypatch.setattr(Auditor, "is_current", counted)
    path = studies / "comparison"
    (path / "result.json").unlink()
    resume_comparison(path)
    assert sorted(looks) == sorted([*path.glob("bases/*"), *path.glob("cells/*")])


def newer(patch: pytest.MonkeyPatch) -> int:
    """Rules by which everything is damaged that is not as good as perfect, and more."""
    patch.setattr(verdict, "RA_MARGIN", -2.0)
    patch.setattr(rules, "RULES", rules.RULES + 1)
    return rules.RULES


def test_a_comparison_is_judged_anew_by_newer_rules(studies: Path, monkeypatch: Any, shown: Any) -> None:
    path = studies / "comparison"
    models, earlier = written(path), load_comparison(path).rows
    assert {row["verdict"] for row in earlier} <= {"forgotten", "shallow", "not forgotten"}
    assert not any(OUTDATED in line for line in shown(lambda: show_comparison(load_comparison(path)), 300))
    now = newer(monkeypatch)
    lines = shown(lambda: show_comparison(load_comparison(path)), 300)
    assert f"2 of 2 rows: {OUTDATED}fused-ray compare --resume {path}" in lines
    resume_comparison(path)
    assert [(row["verdict"], row["verdict_rules"]) for row in load_comparison(path).rows] == [("damaged", now)] * 2
    assert not any(OUTDATED in line for line in shown(lambda: show_comparison(load_comparison(path)), 300))
    assert written(path) == models


def test_a_comparison_that_cannot_be_judged_anew_keeps_what_it_knew(studies: Path, monkeypatch: Any) -> None:
    path = studies / "comparison"
    earlier = load_comparison(path).rows
    newer(monkeypatch)
    images(studies / "own.npz", test_images=np.zeros((90, 28, 28), np.uint8))
    with pytest.raises(FusedRayError, match="its images or labels were others"):
        resume_comparison(path)
    for row, before in zip(load_comparison(path).rows, earlier, strict=True):
        assert row["status"].startswith("failed: its audit: ")
        assert row | {"status": "done"} == before


def test_a_sweep_is_judged_anew_by_newer_rules(studies: Path, monkeypatch: Any, shown: Any) -> None:
    path = studies / "sweep"
    models = written(path)
    (earlier,) = load_sweep(path).result["cases"][0]["audited"]
    assert earlier["verdict"] in ("forgotten", "shallow", "not forgotten")
    assert not any(OUTDATED in line for line in shown(lambda: show_sweep(load_sweep(path)), 300))
    now = newer(monkeypatch)
    assert f"{OUTDATED}fused-ray sweep --resume {path}" in shown(lambda: show_sweep(load_sweep(path)), 300)
    (case,) = resume_sweep(path)["cases"]
    assert [(found["verdict"], found["verdict_rules"]) for found in case["audited"]] == [("damaged", now)]
    assert not any(OUTDATED in line for line in shown(lambda: show_sweep(load_sweep(path)), 300))
    assert written(path) == models


def test_a_sweep_that_cannot_be_judged_anew_keeps_what_it_knew(studies: Path, monkeypatch: Any) -> None:
    path = studies / "sweep"
    earlier = content(path, "result.json")
    newer(monkeypatch)
    images(studies / "own.npz", test_images=np.zeros((90, 28, 28), np.uint8))
    with pytest.raises(FusedRayError, match="its earlier verdicts stay"):
        resume_sweep(path)
    assert content(path, "result.json") == earlier


def test_what_was_finished_before_verdicts_told_their_rules_is_judged_anew(studies: Path) -> None:
    path = studies / "sweep"
    result = json.loads((path / "result.json").read_text())
    (found,) = result["cases"][0]["audited"]
    del found["verdict_rules"]
    (path / "result.json").write_text(json.dumps(result))
    (case,) = resume_sweep(path)["cases"]
    assert case["audited"] == [found | {"verdict_rules": rules.RULES}]
