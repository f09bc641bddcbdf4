"""The directory of a run from before version 1 of the schemas is still shown, applied and restored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fused_ray import load_run
from fused_ray.core.state import state_hash
from fused_ray.runs.export import apply_adapter, restore_base
from fused_ray.runs.report import show_result
from fused_ray.studies.comparisons.rows import trained


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / "old_run", tmp_path / "old"))


def test_it_is_shown(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run(old)
    assert "schema" not in run.result
    show_result(run.path, run.config, run.result)
    said = capsys.readouterr().out
    assert said.startswith("Verdict: damaged\n")
    assert "after: 17 adapter values on head" in said


def test_its_tables_are_read(old: Path) -> None:
    run = load_run(old)
    rows = run.rounds.to_pylist()
    assert [row["phase"] for row in rows] == ["pretrain"] * 2 + ["rank"] + ["saliency"] * 2 + ["unlearn"] * 2 + ["retrain"]
    assert "retries" not in rows[0]
    assert run.clients.column("evaluate_seconds").null_count == run.clients.num_rows
    assert trained(run)["pretrain", 1] == pytest.approx(1)


def test_its_adapter_goes_on_and_comes_off(old: Path, tmp_path: Path) -> None:
    hashes, out = load_run(old).result["hash"], tmp_path / "model.safetensors"
    assert apply_adapter(old, out) == hashes["unlearned"] == state_hash(load_file(out))
    assert restore_base(old, None) == hashes["base"]
