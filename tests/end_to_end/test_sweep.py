"""`fused-ray sweep`: what a sweep leaves behind, and that neither Tune nor a kill changes a figure."""

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
import pyarrow.parquet as pq
import pytest
import yaml

from fused_ray import FusedRayError, RunConfig, SweepConfig, load_run, load_sweep, resume_sweep, run, sweep
from fused_ray.audit.verdict import WORDS
from fused_ray.cli.app import main
from fused_ray.cli.options import RUNS_FAILED
from fused_ray.storage.schemas import METRICS
from fused_ray.studies.sweeps.rows import SCHEMA
from tests.end_to_end.sweeps import SMALL, settings
from tests.processes import family, kill, start, wait_until

TRIALS = 2 * 2 * 2 * 2


DIVERGES, TOGETHER = 900, "would set 4 whole layers to zero"


def figures(path: Path) -> list[dict[str, Any]]:
    """trials.parquet without what time it took, where it ran, and which client was the first to fail, and how."""
    rows = [
        row | {"status": re.sub(r"client \d+, (.* round \d+): .*", r"client, \1", row["status"])}
        for row in load_sweep(path).rows
    ]
    varies = ("seconds", "started", "ended", "config")
    return [{name: value for name, value in row.items() if not name.startswith(varies)} for row in rows]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fused_ray", "sweep", *map(str, arguments)]


def wait_for_trials(path: Path, process: subprocess.Popen[str], count: int) -> None:
    """Until that many trials have run."""
    wait_until(lambda: len(list(path.glob("trials/*/result.json"))) >= count, process)


def finished_at(path: Path) -> dict[str, int]:
    """When each run of a sweep was finished."""
    found = (*path.glob("trials/*/result.json"), *path.glob("store/*/*/result.json"))
    return {str(file.relative_to(path)): file.stat().st_mtime_ns for file in found}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweeps") / "small"
    sweep(settings(path))
    return path


def test_a_row_for_every_trial_and_round(finished: Path) -> None:
    table = pq.read_table(finished / "trials.parquet")
    assert table.schema.equals(SCHEMA, check_metadata=False)
    assert all(field.metadata[b"doc"] for field in table.schema)
    rows = table.to_pylist()
    assert sorted({row["trial"] for row in rows}) == list(range(TRIALS))
    for trial in range(TRIALS):
        own = [row for row in rows if row["trial"] == trial]
        values = json.loads(own[0]["values"])
        assert [row["last"] for row in own] == [False] * (len(own) - 1) + [True]
        unsupported = own[0]["status"].startswith("unsupported: ")
        assert [bool(row["config"]) for row in own] == [row["last"] and not unsupported for row in own]
        assert all((row["started_at"] is None) == unsupported for row in own)
        assert all((row["ended_at"] is None) == (row["status"] != "done") for row in own)
        if values["unlearn.sparsity"] == 0 and values["unlearn.layers"] == "all":
            assert own[0]["status"].startswith("unsupported: ")
            assert TOGETHER in own[0]["status"]
        elif values["unlearn.lr"] == DIVERGES:
            assert own[0]["status"].startswith("failed: client ")
        else:
            assert [row["round"] for row in own] == [0, 1, 2]
            assert {row["status"] for row in own} == {"done"}
            continue
        assert (len(own), own[0]["round"], own[0]["ra"]) == (1, None, None)


def test_no_column_is_null_in_every_row(finished: Path) -> None:
    rows = load_sweep(finished).table
    assert [name for name in rows.column_names if rows[name].null_count == len(rows)] == []


def test_figures_are_those_of_the_runs(finished: Path) -> None:
    directory = load_sweep(finished)
    assert directory.result["failed"] == 6
    assert directory.result["unsupported"] == 4
    for row in directory.rows:
        if row["status"] == "done" and row["last"]:
            result = load_run(finished / "trials" / f"{row['trial']:04d}").result
            metrics = result["metrics"]
            assert {name: row[name] for name in metrics["after"]} == metrics["after"]
            for view in ("ra", "fa"):
                halves = [metrics["after"][f"{view}_{half}"] for half in ("choose", "report")]
                assert min(halves) <= row[view] <= max(halves)
                for half in ("", "_choose", "_report"):
                    assert row[f"{view}_before{half}"] == metrics["before"][f"{view}{half}"]
            assert row["sha256"] == result["hash"]["unlearned"]
            assert row["started_at"] == datetime.fromisoformat(result["started"])
            assert row["ended_at"] == datetime.fromisoformat(result["ended"])
            sent = result["bytes"]
            assert row["bytes_up"] == sent["unlearn"]["up_per_client_per_round"]
            assert row["bytes_up_total"] == sent["unlearn"]["up_total"] + sent["rank"]["up_total"]
            assert sent["rank"]["up_total"] > 0  # taken over from the shared model's run


@pytest.mark.parametrize("trial", [2, 8])
def test_a_trial_has_the_bits_of_a_run_of_its_own(finished: Path, tmp_path: Path, trial: int) -> None:
    rows = [row for row in load_sweep(finished).rows if row["trial"] == trial]
    config = RunConfig.from_dict(json.loads(rows[-1]["config"]), [f"output.dir={tmp_path / 'alone'}"])
    assert config.pretrain.from_ is None
    result = run(config)
    assert result["hash"]["unlearned"] == rows[-1]["sha256"]
    for view in ("ra", "fa"):
        for half in ("", "_choose", "_report"):
            assert result["metrics"]["retrained"][f"{view}{half}"] == rows[-1][f"{view}_retrained{half}"]
    assert (result["metrics"]["before"]["ra"], result["metrics"]["start"]["ra"]) == (
        rows[0]["ra_before"],
        rows[0]["ra"],
    )
    alone = [r for r in load_run(tmp_path / "alone").table("rounds").to_pylist() if r["phase"] == "unlearn"]
    assert [[r[name] for name in METRICS] for r in alone] == [[r[name] for name in METRICS] for r in rows[1:]]
    shared = load_run(finished / "trials" / f"{trial:04d}").result
    for name in ("layers", "adapter"):
        assert result[name] == shared[name]


def test_front_tables_and_plots(finished: Path) -> None:
    result = load_sweep(finished).result
    assert [case["case"] for case in result["cases"]] == ["scenario class", "scenario exclusive"]
    assert all(case["front"] and ", not audited: " in case["reason"] for case in result["cases"])
    assert [(case["recommended"]["verdict"], case["audited"]) for case in result["cases"]] == [("not audited", [])] * 2
    assert not (finished / "audited").exists()
    assert pq.read_table(finished / "front.parquet").num_rows == sum(len(case["front"]) for case in result["cases"])
    rows = {(row["trial"], row["round"]): row for row in load_sweep(finished).rows}
    for setting in (setting for case in result["cases"] for setting in case["front"]):
        row = rows[setting["trials"][0], setting["rounds"]]
        assert (setting["ra"], setting["fa"]) == (row["ra_report"], row["fa_report"])
        assert (setting["ra_choose"], setting["fa_choose"]) == (row["ra_choose"], row["fa_choose"])
    text = (finished / "table.md").read_text()
    assert "## scenario class: fashion-mnist-mini, lenet, 4 clients" in text
    assert "Recommended: " in text
    assert "failed: client" in text
    for name in ("front", "rounds", "layers-sparsity-0"):
        assert (finished / "plots" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    shown = subprocess.run(command("show", finished), capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Pareto front" in shown
    assert "6 of 16 trials failed" in shown


def test_what_failed_is_tried_again_and_nothing_else(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, rows = finished_at(finished), figures(finished)
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--resume", str(finished), "--json"])
    assert end.value.code == RUNS_FAILED
    told = json.loads(capsys.readouterr().out)
    assert (told["trials"], told["done"], told["unsupported"], told["failed"]) == (TRIALS, TRIALS - 10, 4, 6)
    assert finished_at(finished) == before
    assert figures(finished) == rows


def test_a_later_sweep_takes_its_models_from_the_store(finished: Path, tmp_path: Path) -> None:
    before = finished_at(finished)
    space = {"forget.scenario": {"grid": ["exclusive"]}, "unlearn.sparsity": {"grid": [0.95]}}
    values = {**SMALL, "space": space, "output": {"dir": str(tmp_path / "later"), "store": str(finished / "store")}}
    heard: list[str] = []
    sweep(SweepConfig.from_dict(values), listener=lambda progress: heard.append(progress.model))
    assert not any(heard)
    assert finished_at(finished) == before
    assert not (tmp_path / "later" / "store").exists()


@pytest.mark.slow
def test_a_sweep_here_killed_and_resumed(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    path = tmp_path / "killed"
    process = start(command(tmp_path / "s.yaml", "--set", f"output.dir={path}"))
    wait_for_trials(path, process, 2)
    kill(process)
    assert 0 < len({row["trial"] for row in figures(path)}) < TRIALS
    unfinished = subprocess.run(command("show", path), capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"continue it with: fused-ray sweep --resume {path}" in unfinished
    before = finished_at(path)
    done = subprocess.run(command("--resume", path), capture_output=True, timeout=280, check=False)
    assert done.returncode == RUNS_FAILED
    assert figures(path) == figures(finished)
    assert {name: when for name, when in finished_at(path).items() if name in before} == before


ON_RAY = ("base.engine.backend=ray", "max_concurrent=2", "space.forget.scenario={grid: [class]}")


def of_class(path: Path) -> list[dict[str, Any]]:
    """The rows that a sweep of the class scenario alone has: the first half."""
    return [row for row in figures(path) if row["trial"] < TRIALS // 2]


def begin_on_ray(folder: Path, *more: str) -> tuple[Path, subprocess.Popen[str]]:
    (folder / "s.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    path = folder / "ray"
    changes = [part for change in (*ON_RAY, *more, f"output.dir={path}") for part in ("--set", change)]
    return path, start(command(folder / "s.yaml", *changes))


def test_two_trials_at_a_time_by_tune_give_the_plain_loops_figures(
    cluster: Any, finished: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    sparse = "space.unlearn.sparsity={grid: [0.9]}"
    audited = ("base.audit.enabled=true", "audits=1")
    path, process = begin_on_ray(tmp_path, f"base.engine.address={cluster.address}", sparse, *audited)
    out, errors = process.communicate(timeout=280)
    print(f"the small sweep on Ray took {time.monotonic() - began:.0f} s")
    assert process.returncode == RUNS_FAILED, errors
    kept = [row for row in of_class(finished) if json.loads(row["values"])["unlearn.sparsity"] == 0.9]
    order = sorted({row["trial"] for row in kept})
    assert figures(path) == [row | {"trial": order.index(row["trial"])} for row in kept]
    assert "Pareto front" in out
    assert "2 running" in errors
    (case,) = load_sweep(path).result["cases"]
    (audited,) = case["audited"]
    assert (audited["verdict"] in WORDS, audited["verdict"] != "unjudged") == (True, True)
    assert "audit of layers" in errors
    assert list(path.glob("tune/*/*/events.out.tfevents.*"))
    assert f"TensorBoard: tensorboard --logdir {path / 'tune'}" in out


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("trials", [0, 1, 3])
def test_a_sweep_on_ray_killed_and_resumed(finished: Path, tmp_path: Path, trials: int) -> None:
    path, process = begin_on_ray(tmp_path)
    wait_until(lambda: bool(list(path.glob("store/*/*"))), process)
    wait_for_trials(path, process, trials)
    kill(process)
    before = finished_at(path)
    again = command("--resume", path, "--set", "max_concurrent=1")
    done = subprocess.run(again, capture_output=True, timeout=280, check=False)
    assert done.returncode == RUNS_FAILED
    assert figures(path) == of_class(finished)
    assert {name: when for name, when in finished_at(path).items() if name in before} == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_on_ray_stopped_and_resumed(finished: Path, tmp_path: Path) -> None:
    path, process = begin_on_ray(tmp_path)
    wait_for_trials(path, process, 1)
    started = family(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"fused-ray sweep --resume {path}" in errors
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    done = subprocess.run(command("--resume", path), capture_output=True, timeout=280, check=False)
    assert done.returncode == RUNS_FAILED
    assert figures(path) == of_class(finished)


SEARCHED = {
    "unlearn.sparsity": {"quniform": [0.5, 0.99, 0.01]},
    "unlearn.draw": {"randint": [0, 9]},
    "unlearn.start": {"choice": ["zero", "reset"]},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_optuna_proposes_trials_and_is_told_again_after_a_kill(tmp_path: Path) -> None:
    values = {**SMALL, "base": SMALL["base"] | {"engine": {}}, "space": SEARCHED, "search": "optuna", "samples": 6}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    whole, path = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(tmp_path / "s.yaml", "--set", f"output.dir={whole}"), timeout=280, check=True)
    process = start(command(tmp_path / "s.yaml", "--set", f"output.dir={path}"))
    wait_for_trials(path, process, 2)
    kill(process)
    kept = figures(path)
    subprocess.run(command("--resume", path), timeout=280, check=True)
    for rows in (figures(whole), figures(path)):
        assert [row["trial"] for row in rows if row["round"] == 0] == list(range(6))
        assert {row["status"] for row in rows} == {"done"}
        assert len({row["values"] for row in rows}) == 6
    assert figures(path)[: len(kept)] == kept
    assert figures(whole)[: len(kept)] == kept  # proposals depend on the seed and on what was found
    before = figures(whole)
    subprocess.run(command("--resume", whole, "--set", "samples=8"), timeout=280, check=True)
    assert figures(whole)[: len(before)] == before
    assert [row["trial"] for row in figures(whole) if row["last"]] == list(range(8))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_asha_ends_trials_early(tmp_path: Path) -> None:
    space = {"unlearn.lr": {"grid": [0.2, 0.1, 0.001, 0.0005, 0.0002, 0.0001]}}
    base = SMALL["base"] | {"engine": {}, "unlearn": {"rounds": 8, "layers": 1}}
    values = {"base": base, "space": space, "scheduler": "asha", "objectives": {"score": "max"}}
    path = tmp_path / "asha"
    result = sweep(SweepConfig.from_dict({**values, "output": {"dir": str(path)}}))
    assert result["stopped"] > 0
    assert result["done"] > 0
    assert result["failed"] == 0
    for row in load_sweep(path).rows:
        if row["last"]:
            assert (row["status"] == "done") == (row["round"] == 8)
    rows = figures(path)
    resume_sweep(path)
    assert figures(path) == rows


@pytest.mark.slow
def test_what_does_not_fit_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(FusedRayError, match="max_concurrent: 4000 trials at a time need 4000 whole CPUs"):
        sweep(
            settings(
                tmp_path / "s",
                *ON_RAY[:1],
                "max_concurrent=4000",
                "space.seed={grid: " + f"{list(range(400))}" + "}",
                "max_trials=9999",
            )
        )


def test_a_comparison_is_no_sweep_and_settings_stay(finished: Path) -> None:
    with pytest.raises(FusedRayError, match="no sweep directory"):
        load_sweep(finished / "trials" / "0000")
    with pytest.raises(FusedRayError, match="seeds="):
        resume_sweep(finished, ["seeds=[5]"])


def test_without_optuna_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = SweepConfig.from_dict(
        {"space": SEARCHED, "search": "optuna", "samples": 2, "output": {"dir": str(tmp_path / "s")}}
    )
    with pytest.raises(FusedRayError, match=r"optuna is not installed: pip install optuna$"):
        sweep(config)
