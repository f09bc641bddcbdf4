"""`fused-ray ls`: what is told of each folder of results, from its small files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pytest

from fused_ray.runs.directory import RunDirectory
from fused_ray.studies import listing
from fused_ray.studies.listing import Row
from tests.pages import results

OLD = Path(__file__).parents[1] / "runs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / "old_run", tmp_path / "runs" / "one"))


def row(place: Path) -> Row:
    (found,) = listing.rows(place)
    return found


def test_a_finished_run_has_its_verdict_its_figures_and_its_size(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    found = row(run)
    assert (found.kind, found.state, found.what) == ("run", "done", "class, fused")
    assert (found.verdict, found.ra, found.fa) == ("damaged", result["metrics"]["after"]["ra"], 0.0)
    assert found.bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    (run / "result.json").write_text(json.dumps(result | {"ended": "2026-03-01T12:00:00.000+00:00"}))
    assert row(run).when == "2026-03-01T12:00:00+00:00"


def test_an_unfinished_run_says_how_it_ended(run: Path) -> None:
    (run / "result.json").unlink()
    os.utime(run / "scenario.json", (2e9, 2e9))
    found = row(run)
    assert (found.state, found.verdict, found.ra, found.what) == ("interrupted", None, None, "class, fused")
    assert datetime.fromisoformat(found.when).timestamp() == 2e9
    directory = RunDirectory.open(run)
    directory.lock(0)
    assert (row(run).state, row(run).reason) == ("running", f"process {os.getpid()}")
    directory.started("2026-01-01T00:00:00+00:00")
    directory.failed("client 0, pretrain round 1: the loss is not finite")
    directory.unlock()
    assert (row(run).state, row(run).reason) == ("failed", "client 0, pretrain round 1: the loss is not finite")
    directory.lock(0)
    directory.started("2026-01-02T00:00:00+00:00")  # gone on with: what it failed of is past
    directory.unlock()
    assert row(run).state == "interrupted"
    shutil.rmtree(run / "rounds.parquet")
    assert row(run).state == "not started"


def test_studies_say_what_they_are_over_and_what_failed(tmp_path: Path) -> None:
    results.comparison(tmp_path / "compared")
    results.sweep(tmp_path / "swept")
    results.scaling(tmp_path / "scaled")
    shutil.copytree(OLD / "released_sweep", tmp_path / "released")
    result = json.loads((tmp_path / "compared" / "result.json").read_text())
    (tmp_path / "compared" / "result.json").write_text(json.dumps(result | {"failed": 2}))
    compared, released, scaled, swept = listing.rows(tmp_path)
    assert (compared.kind, compared.state, compared.runs_failed) == ("comparison", "done", 2)
    assert compared.what == "fused, finetune, not in class, 2 seeds"
    assert (swept.kind, swept.state, swept.what) == (
        *("sweep", "not started"),
        "grid over unlearn.layers, unlearn.sparsity",
    )
    assert (scaled.kind, scaled.state) == ("scaling-study", "not started")
    assert (released.state, released.ra, released.fa) == ("done", pytest.approx(0.4 / 3), 0.25)


def test_the_runs_of_a_study_are_told_on_request_and_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    study = results.comparison(tmp_path / "compared")
    shutil.copytree(OLD / "old_run", study / "cells" / "class-0-fused")
    assert [found.inside for found in listing.rows(tmp_path)] == [False]
    found = listing.rows(tmp_path, inside=True)
    assert [(each.kind, each.inside) for each in found] == [("comparison", False), ("run", True)]
    listing.show(tmp_path, found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("compared/cells/class-0-fused  run")
    whole = sum(path.stat().st_size for path in study.rglob("*") if path.is_file())
    assert lines[-1] == f"2 folders, {whole / 1000:.1f} KB"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("result.json", "{", "result.json cannot be read"),
        ("result.json", "{}", "are not what this program writes"),
        ("result.json", "[]", "result.json is not what this program writes"),
        ("result.json", '{"metrics": {"after": {"ra": "high", "fa": 0}}}', "are not what this program writes"),
        ("result.json", '{"metrics": {"after": {"ra": 1, "fa": 0}}, "ended": "late"}', "what this program writes"),
        ("environment.json", '{"format": "other 1"}', "does not say what it is"),
        ("environment.json", None, "it has no environment.json"),
    ],
)
def test_a_damaged_folder_is_a_row_that_says_so(run: Path, name: str, content: str | None, told: str) -> None:
    (run / "lock").write_text("")
    (run / name).unlink() if content is None else (run / name).write_text(content)
    shutil.copytree(OLD / "old_run", run.parent / "two")
    damaged, whole = listing.rows(run.parent)
    assert (damaged.state, damaged.kind, whole.state) == ("damaged", None, "done")
    assert told in damaged.what
    assert "\n" not in damaged.what
    assert damaged.bytes > 0


def test_of_hundreds_of_runs_small_files_alone_are_read_and_no_pytorch_is_loaded(run: Path) -> None:
    for number in range(300):
        folder = run.parent / f"{number:03d}"
        folder.mkdir()
        for name in ("config.yaml", "environment.json", "result.json", "base.safetensors"):
            os.link(run / name, folder / name)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom fused_ray.studies import listing\n"
        "began = time.process_time()\n"
        f"print(len(listing.rows({str(run.parent)!r})), 'torch' in sys.modules, time.process_time() - began < 2)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["301", "False", "True"]


def test_in_a_narrow_window_there_are_fewer_columns_and_no_less_is_said_of_what_is_wrong(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "environment.json").write_text("{}")
    for width in (60, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        listing.show(run.parent, listing.rows(run.parent))
        said = capsys.readouterr().out
        assert all(len(line) <= width for line in said.splitlines()[:3])
        assert said.count("one") == (2 if width == 60 else 1)
        assert said.count("its files are not what this program writes: 'format'") == 1


def test_rows_are_plain_values(run: Path) -> None:
    found = listing.rows(run)
    assert json.loads(json.dumps(listing.plain(found))) == [asdict(found[0])]
