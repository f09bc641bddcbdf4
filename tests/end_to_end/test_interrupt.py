"""Ctrl-C ends a run cleanly: no process left, a readable run directory, and --resume goes on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from fused_ray import load_run, resume
from tests.processes import family, start, wait_until

FIELDS = ["federation.clients=6", "data.limit=4000", "pretrain.rounds=50", "retrain.rounds=0", "output.plots=false"]


@pytest.mark.parametrize("backend", [pytest.param("ray", marks=pytest.mark.slow), "local"])
def test_ctrl_c_in_the_middle_of_a_round(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "run"
    settings = [f for field in [*FIELDS, f"engine.backend={backend}", f"output.dir={path}"] for f in ("--set", field)]
    process = start([sys.executable, "-m", "fused_ray", "run", *settings])
    wait_until(lambda: len(list((path / "rounds.parquet").glob("*.parquet"))) >= 2, process)
    started = family(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"--resume {path}" in errors
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    rounds = load_run(path).table("rounds").to_pylist()
    assert [row["round"] for row in rounds] == list(range(1, len(rounds) + 1))
    if backend == "local":  # the rest is long; that it goes on at all is what matters here
        (path / "config.yaml").write_text(
            (path / "config.yaml").read_text().replace("rounds: 50", f"rounds: {len(rounds) + 1}")
        )
        assert resume(path)["reversible"]
