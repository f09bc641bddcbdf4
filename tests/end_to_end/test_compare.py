"""`fused-ray compare`: what a comparison leaves behind, and that no kill, failure or backend changes a figure of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fused_ray import (
    CompareConfig,
    FusedRayError,
    RunConfig,
    compare,
    load_comparison,
    load_run,
    resume_comparison,
    run,
)
from fused_ray.cli.app import main
from fused_ray.cli.options import RUNS_FAILED
from fused_ray.studies.comparisons.rows import SCHEMA, trained
from tests.processes import family, kill, start, wait_until

SMALL: dict[str, Any] = {
    "base": {
        "data": {"limit": 400},
        "federation": {"clients": 4},
        "train": {"lr": 0.02, "batch_size": 16},
        "pretrain": {"rounds": 2},
        "unlearn": {"rounds": 1, "selection": "critical", "mask": "random", "saliency": "forget", "start": "zero"},
        "engine": {"backend": "local"},
    },
    "methods": [
        "retrain",
        "federaser",
        {"label": "sparse", "set": {"unlearn.method": "fused", "unlearn.layers": 1}},
        {
            "label": "saliency",
            "set": {
                "unlearn.method": "fused", "unlearn.layers": ["fc3"], "unlearn.mask": "saliency", "unlearn.budget": 9,
                "unlearn.start": "negate", "unlearn.rounds": 0,
            },
        },
        {"label": "diverging", "set": {"unlearn.method": "finetune", "train.lr": 900}},
    ],
    "scenarios": ["class", "exclusive"],
    "seeds": [0, 1],
    "audit": {"shadows": 1, "relearn_steps": 4, "relearn_repeats": 1},
}  # fmt: skip
CELLS = 5 * 2 * 2


def settings(path: Path, *changes: str) -> CompareConfig:
    return CompareConfig.from_dict(SMALL, [f"output.dir={path}", *changes])


def figures(path: Path) -> list[dict[str, Any]]:
    """results.parquet without what time it took, where it ran, and which client was the first to fail, and how."""
    rows = [
        row | {"status": re.sub(r"client \d+, (.* round \d+): .*", r"client, \1", row["status"])}
        for row in load_comparison(path).rows
    ]
    varies = ("seconds", "started", "ended", "config")
    return [{name: value for name, value in row.items() if not name.startswith(varies)} for row in rows]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fused_ray", "compare", *map(str, arguments)]


def wait_for_cells(path: Path, process: subprocess.Popen[str], count: int) -> None:
    """Until that many cells have run."""
    wait_until(lambda: len(list(path.glob("cells/*/result.json"))) >= count, process)


def finished_at(path: Path) -> dict[str, int]:
    """When each run of a comparison was finished."""
    return {str(found.relative_to(path)): found.stat().st_mtime_ns for found in path.glob("*/*/result.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("comparisons") / "small"
    compare(settings(path))
    return path


def test_a_row_for_every_method_scenario_and_seed(finished: Path) -> None:
    table = pq.read_table(finished / "results.parquet")
    assert table.schema.equals(SCHEMA, check_metadata=False)
    assert all(field.metadata[b"doc"] for field in table.schema)
    rows = table.to_pylist()
    assert [(r["scenario"], r["seed"], r["method"]) for r in rows] == [
        (scenario, seed, method)
        for scenario in ("class", "exclusive")
        for seed in (0, 1)
        for method in ("retrain", "federaser", "sparse", "saliency", "diverging")
    ]
    for row in rows:
        if row["method"] == "diverging":
            assert row["status"].startswith("failed: client ")
            assert row["ra"] is None
        elif (row["method"], row["scenario"]) == ("federaser", "class"):
            assert row["status"] == "unsupported"
        else:
            assert row["status"] == "done"
            assert row["vacuous"] == (row["fa_before"] - row["fa_retrained"] <= 0.05)
            needed = (
                "ra",
                "fa",
                "trivial",
                "rea",
                "mia_auc",
                "js_forget",
                "js_floor",
                "bytes_up",
                "equivalents",
                "verdict",
                "head_recovery",
            )
            assert all(row[name] is not None for name in needed), row
            assert (row["ca"] is not None) == (row["scenario"] == "exclusive")
            assert row["reversible"] == (row["values"] is not None)


def test_no_column_is_null_in_every_row(finished: Path) -> None:
    runs = [load_run(path.parent) for path in finished.glob("[bc]*/*/result.json")]
    tables = {name: pa.concat_tables([run.table(name) for run in runs]) for name in ("rounds", "clients")}
    tables["results"] = load_comparison(finished).table
    empty = [
        (table, name)
        for table, rows in tables.items()
        for name in rows.column_names
        if rows[name].null_count == len(rows)
    ]
    # clients' names are their numbers here, and so few steps and examples leave these figures open
    assert empty == [("clients", "client_name"), ("results", "relearn_ratio"), ("results", "mia_tpr")]


def test_a_row_tells_when_its_run_was_made_and_of_what(finished: Path) -> None:
    for row in load_comparison(finished).rows:
        told = [row[name] is not None for name in ("started_at", "ended_at", "config")]
        assert told == [row["status"] == "done"] * 3
        if row["status"] == "done":
            run = load_run(finished / row["directory"])
            assert RunConfig.from_dict(json.loads(row["config"])) == run.config
            times = [datetime.fromisoformat(run.result[name]) for name in ("started", "ended")]
            assert [row["started_at"], row["ended_at"]] == times


def test_figures_are_those_of_the_runs(finished: Path) -> None:
    for row in load_comparison(finished).rows:
        if row["status"] == "done":
            result = load_run(finished / row["directory"]).result
            assert (row["ra"], row["fa"]) == (result["metrics"]["after"]["ra"], result["metrics"]["after"]["fa"])
            assert row["sha256"] == result["hash"]["unlearned"]
    by_name = {(r["method"], r["scenario"], r["seed"]): r for r in load_comparison(finished).rows}
    full = by_name["retrain", "class", 0]
    assert full["bytes_up"] == 177_784  # of 44,426 values
    assert full["rounds"] == 2
    kept = load_run(finished / "bases" / "class-0").read_json("scenario.json")
    assert full["equivalents"] == pytest.approx(2 * sum(kept["retained"]) / sum(kept["examples"]))
    saliency = by_name["saliency", "class", 0]
    assert saliency["values"] == 9
    assert saliency["bytes_up"] > 0  # the gradient
    assert saliency["equivalents"] == pytest.approx(1 - full["equivalents"] / 2)  # a pass over what is forgotten


def test_full_round_equivalents_count_all_that_was_trained(finished: Path) -> None:
    result = load_comparison(finished).result
    assert {name: result[name] for name in ("cells", "done", "unsupported", "failed")} == {
        "cells": CELLS, "done": 14, "unsupported": 2, "failed": 4,
    }  # fmt: skip
    took = result["equivalents"]
    assert took["pretrain"] == pytest.approx(2 * 4)
    assert took["shadows"] == pytest.approx(2 * 4 / 2, rel=0.01)
    done = [row for row in load_comparison(finished).rows if row["status"] == "done"]
    runs = [load_run(path) for path in sorted((finished / "cells").glob("[!.]*"))]
    replayed = sum(part for run in runs for (phase, _), part in trained(run).items() if phase == "replay")
    assert replayed > 0  # which a deployment would have stored: no row counts it
    of_rows = sum(row["equivalents"] for row in done if row["method"] != "retrain")
    assert took["methods"] == pytest.approx(of_rows + replayed)
    assert took["total"] == pytest.approx(sum(took[name] for name in ("pretrain", "retrain", "methods", "shadows")))


def test_tables_and_plots(finished: Path) -> None:
    text = (finished / "table.md").read_text()
    assert "## class: forgetting class 0 (T-shirt); fashion-mnist-mini, lenet, 4 clients" in text
    assert "| retrain" in text
    assert "[0.99]" in text
    assert "loads MNIST digits" in text
    assert "federaser cannot do this scenario" in text
    assert "diverging, seed 1: failed: client" in text
    assert r"\begin{tabular}" in (finished / "table.tex").read_text()
    for name in ("forgetting", "bytes"):
        assert (finished / "plots" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    shown = subprocess.run(command("show", finished), capture_output=True, text=True, timeout=60, check=True).stdout
    assert "full-round equivalents" in shown
    assert "4 of 20 cells failed" in shown


def test_a_cell_has_the_bits_of_a_run_of_its_own(finished: Path, tmp_path: Path) -> None:
    cell = load_run(finished / "cells" / "exclusive-1-sparse")
    values = cell.config.model_dump(mode="json", by_alias=True)
    result = run(RunConfig.from_dict(values, [f"output.dir={tmp_path / 'alone'}"]))
    for name in ("hash", "metrics", "bytes", "layers", "adapter"):
        assert result[name] == cell.result[name]


def test_what_failed_is_tried_again_and_nothing_else(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, rows = finished_at(finished), figures(finished)
    with pytest.raises(SystemExit) as end:
        main(["compare", "--resume", str(finished), "--json"])
    assert end.value.code == RUNS_FAILED
    told = json.loads(capsys.readouterr().out)
    counts = (told["cells"], told["done"], told["unsupported"], told["failed"])
    assert counts == (CELLS, 14, 2, 4)
    assert finished_at(finished) == before
    assert figures(finished) == rows


@pytest.mark.slow
def test_a_comparison_here_killed_and_resumed(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMALL))
    path = tmp_path / "killed"
    process = start(command(tmp_path / "c.yaml", "--set", f"output.dir={path}"))
    wait_for_cells(path, process, 3)
    kill(process)
    assert len(figures(path)) < CELLS
    unfinished = subprocess.run(command("show", path), capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"continue it with: fused-ray compare --resume {path}" in unfinished
    before = finished_at(path)
    done = subprocess.run(command("--resume", path), capture_output=True, timeout=280, check=False)
    assert done.returncode == RUNS_FAILED
    assert figures(path) == figures(finished)
    assert {name: when for name, when in finished_at(path).items() if name in before} == before


ON_RAY = ("base.engine.backend=ray", "scenarios=[exclusive]")


def begin_on_ray(folder: Path) -> tuple[Path, subprocess.Popen[str]]:
    (folder / "c.yaml").write_text(yaml.safe_dump(SMALL))
    path = folder / "ray"
    changes = [part for change in (*ON_RAY, f"output.dir={path}") for part in ("--set", change)]
    return path, start(command(folder / "c.yaml", *changes))


def finish_and_compare(path: Path, finished: Path) -> None:
    before = finished_at(path)
    done = subprocess.run(command("--resume", path), capture_output=True, timeout=280, check=False)
    assert done.returncode == RUNS_FAILED
    assert figures(path) == [row for row in figures(finished) if row["scenario"] == "exclusive"]
    assert {name: when for name, when in finished_at(path).items() if name in before} == before


@pytest.mark.slow
def test_a_comparison_on_ray_stopped_and_resumed_has_the_plain_loops_figures(finished: Path, tmp_path: Path) -> None:
    path, process = begin_on_ray(tmp_path)
    wait_for_cells(path, process, 1)
    started = family(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"fused-ray compare --resume {path}" in errors
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    finish_and_compare(path, finished)


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 3, 5])
def test_a_comparison_on_ray_killed_and_resumed(finished: Path, tmp_path: Path, cells: int) -> None:
    path, process = begin_on_ray(tmp_path)
    wait_for_cells(path, process, cells)
    kill(process)
    finish_and_compare(path, finished)


@pytest.mark.slow
def test_the_quick_preset_on_ray(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "quick"
    changes = ["--set", f"output.dir={path}", "--set", f"base.engine.address={cluster.address}"]
    began = time.monotonic()
    done = subprocess.run(
        command("--preset", "paper-fashion-mnist", "--quick", *changes),
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(f"the quick comparison took {time.monotonic() - began:.0f} s")
    assert "full-round equivalents" in done.stdout
    rows = load_comparison(path).rows
    assert {row["scenario"] for row in rows} == {"class", "client", "sample", "exclusive"}
    assert {row["status"] for row in rows} == {"done", "unsupported"}
    # so few rounds teach a model of ten clients what all of them know, not what one of them knows alone
    assert not any(row["vacuous"] for row in rows if row["scenario"] in ("class", "client"))


@pytest.mark.slow
def test_the_preset_for_a_gpu_at_toy_size(tmp_path: Path) -> None:
    path = tmp_path / "quick"
    changes = ["--set", f"output.dir={path}", "--set", "base.engine.backend=local"]
    done = subprocess.run(
        command("--preset", "cifar10-resnet18", "--quick", *changes),
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = load_comparison(path).rows
    assert [(row["method"], row["status"]) for row in rows] == [
        ("retrain", "done"), ("finetune", "done"), ("fused-paper", "done"), ("fused", "done"),
    ]  # fmt: skip
    assert all(row["reversible"] == row["method"].startswith("fused") for row in rows)
    assert all(row["bytes_up_client"] < 1_200_000 for row in rows if row["method"].startswith("fused"))


# -- bad input


def test_a_comparison_of_which_nothing_can_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(FusedRayError, match="no cell could be run; failed: its base run: client 0, pretrain round 1"):
        compare(settings(tmp_path / "c", "base.train.lr=900", "scenarios=[class]", "seeds=[0]", "audit=false"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a YAML file, or a preset"),
        (["--preset", "nope"], "there is no preset 'nope'"),
        (["--preset", "paper"], "name a YAML file, or a preset: --preset cifar10-resnet18, paper-fashion-mnist"),
        (["c.yaml", "--preset", "paper", "--set", "base.unlearn.sparsity=1"], "base.unlearn.sparsity"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["c.yaml", "--set", "methods=[fusd]"], "unknown method 'fusd'"),
        (["c.yaml", "--set", "base.data.root=/nowhere"], "data.root"),
        (["c.yaml", "--quick"], "no section `quick`"),
        (["c.yaml", "--set", "output.dir=."], "exists already"),
        (["c.yaml", "--set", "output.dir=.", "--overwrite"], "no comparison directory"),
        (["--resume", "nowhere"], "no such folder"),
        (["--resume", "."], "no comparison directory"),
        (["c.yaml", "--resume", "."], "give nothing but --set"),
        (["show", "."], "no comparison directory"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMALL))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["compare", *arguments])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_run_is_no_comparison_and_its_settings_stay(finished: Path) -> None:
    with pytest.raises(FusedRayError, match="no comparison directory"):
        load_comparison(finished / "bases" / "class-0")
    with pytest.raises(FusedRayError, match=r"seeds=\[5\]"):
        resume_comparison(finished, ["seeds=[5]"])
