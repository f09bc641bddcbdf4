"""Directories of runs of earlier versions are still shown, applied and restored.

released_run is of the first release (9265ff4), written by it in a folder of no special name; its platform's name was
shortened, and its lock and checkpoints were removed. released_sweep is, too; of its runs nothing was kept. old_run is
from just before version 1 of the schemas.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fused_ray import load_run
from fused_ray.cli.app import main
from fused_ray.core.state import state_hash
from fused_ray.errors import RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.export import apply_adapter, restore_base
from fused_ray.runs.report import show_result
from fused_ray.runs.start import prepare_resume
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
    assert [row["phase"] for row in rows] == ["pretrain"] * 2 + ["rank"] + ["saliency"] * 2 + ["unlearn"] * 2 + [
        "retrain"
    ]
    assert "retries" not in rows[0]
    assert run.clients.column("evaluate_seconds").null_count == run.clients.num_rows
    assert trained(run)["pretrain", 1] == pytest.approx(1)


def test_its_adapter_goes_on_and_comes_off(old: Path, tmp_path: Path) -> None:
    hashes, out = load_run(old).result["hash"], tmp_path / "model.safetensors"
    assert apply_adapter(old, out) == hashes["unlearned"] == state_hash(load_file(out))
    assert restore_base(old, None) == hashes["base"]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / "released_run", tmp_path / "released"))


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command prints that ends well."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    output = capsys.readouterr()
    assert (ended.value.code, output.err) == (0, "")
    return output.out


def test_the_commands_read_a_run_of_the_first_release(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes, out = load_run(released).result["hash"], tmp_path / "after.safetensors"
    before = tmp_path / "before.safetensors"
    shown = said(capsys, "show", released)
    assert shown.startswith("Forgetting: FA went from 0.600 to 0.000, retrained 0.000.\nnot audited: ")
    assert "after: 85 adapter values on head       0.344      0.000        412 B" in shown
    assert hashes["unlearned"] in said(capsys, "apply", released, "--out", out)
    assert state_hash(load_file(out)) == hashes["unlearned"]
    assert f"M_r is back bit for bit, sha256 {hashes['base']}" in said(capsys, "restore", released, "--out", before)
    assert state_hash(load_file(before)) == hashes["base"]


def test_tables_and_models_of_the_first_release_are_read(released: Path) -> None:
    run = load_run(released)
    assert run.rounds.column("round").to_pylist() == [1, 2, 1, 1, 1, 2, 1]
    assert run.clients.num_rows == 3 * 7
    assert run.times == (None, None)  # it did not write them down
    assert (run.config.federation.actor_cpus, run.config.output.plots) == ("auto", "none")
    assert run.adapter is not None
    assert run.adapter.values.size == 85
    with pytest.raises(RunDirectoryError, match="no run directory of this version"):
        RunDirectory.open(released)  # whatever goes on with it


def test_only_the_version_that_began_a_run_goes_on_with_it(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_resume(released)[0].finished
    (released / "result.json").unlink()
    with pytest.raises(RunDirectoryError) as refused:
        prepare_resume(released)
    assert str(refused.value) == (
        f"{released} is not finished; an earlier version began it, and that one alone can go on with it; begin it anew "
        "with this one"
    )
    said(capsys, "show", released)


def test_a_sweep_of_the_first_release_is_shown_and_not_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Path(shutil.copytree(Path(__file__).parent / "released_sweep", tmp_path / "sweep"))
    assert "Recommended: lr 0.2, I = 1 (RA 0.133, FA 0.250)" in said(capsys, "show", sweep)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "--resume", str(sweep)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fused-ray: {sweep}: an earlier version began it")
