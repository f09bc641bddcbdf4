"""What Prometheus would scrape of a run on Ray: the metrics endpoint of a node shows its figures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fused_ray import load_run
from tests.cluster.test_ray_job import RAY, environment, free_port
from tests.processes import start

pytestmark = pytest.mark.slow
SMALL = ["federation.clients=4", "data.limit=400", "pretrain.rounds=30", "unlearn.rounds=2", "output.plots=none",
         "retrain.rounds=0", "audit.enabled=false", "output.report=false"]  # fmt: skip
SERIES = re.compile(r"^ray_fused_ray_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a Ray of this test's own, and of its metrics."""
    port, metrics = free_port(), free_port()
    command = [RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    command += ["--object-store-memory=200000000", "--disable-usage-stats", f"--metrics-export-port={metrics}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    with (tmp_path / "head.log").open("w") as out:
        head = subprocess.Popen(command, stdout=out, stderr=out, env=environment(RAY_metrics_report_interval_ms="500"))
    yield f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics"
    head.terminate()
    head.wait(timeout=30)


def scraped(address: str) -> dict[tuple[str, str], float]:
    """What is told of the run, by metric and phase; nothing before there is an answer."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found = {}
    for name, labels, value in SERIES.findall(text):
        about = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if about.get("run") == "run":
            found[name, about["phase"]] = float(value)
    return found


def test_the_endpoint_of_a_node_shows_a_runs_figures(node: tuple[str, str], tmp_path: Path) -> None:
    ray, metrics = node
    fields = [*SMALL, f"engine.address={ray}", f"output.dir={tmp_path / 'run'}"]
    process = start(
        [sys.executable, "-m", "fused_ray", "run", *(word for field in fields for word in ("--set", field))],
        env={**os.environ, **environment()},
    )
    seen: dict[tuple[str, str], float] = {}
    while process.poll() is None:
        seen |= scraped(metrics)
        time.sleep(0.2)
    assert process.returncode == 0, process.communicate()
    rows = [row for row in load_run(tmp_path / "run").rounds.to_pylist() if row["phase"] == "pretrain"]
    accuracies = {row["ra"] for row in rows}
    assert seen["ra", "pretrain"] in accuracies
    assert seen["rounds", "pretrain"] == 30
    finished = seen["finished_rounds_total", "pretrain"]
    assert 0 < finished <= 30
    assert seen["bytes_up_total", "pretrain"] % rows[0]["bytes_up"] == 0
    assert {"round", "seconds", "round_seconds", "seconds_left", "fa"} <= {name for name, _ in seen}
