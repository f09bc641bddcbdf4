"""Ctrl-C ends a run cleanly: no process left, a readable run directory, and --resume goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fused_ray import load_run, resume

FIELDS = ["federation.clients=6", "data.limit=4000", "pretrain.rounds=50", "retrain.rounds=0", "output.plots=false"]


@pytest.mark.parametrize("backend", ["ray", "local"])
def test_ctrl_c_in_the_middle_of_a_round(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "run"
    settings = [f for field in [*FIELDS, f"engine.backend={backend}", f"output.dir={path}"] for f in ("--set", field)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fused_ray", "run", *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job, as tests may be one, ignores Ctrl-C and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    while len(list((path / "rounds.parquet").glob("*.parquet"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"--resume {path}" in errors
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    rounds = load_run(path).table("rounds").to_pylist()
    assert [row["round"] for row in rounds] == list(range(1, len(rounds) + 1))
    if backend == "local":  # the rest is long; that it goes on at all is what matters here
        (path / "config.yaml").write_text(
            (path / "config.yaml").read_text().replace("rounds: 50", f"rounds: {len(rounds) + 1}")
        )
        assert resume(path)["reversible"]
