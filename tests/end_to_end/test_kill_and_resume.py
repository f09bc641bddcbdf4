"""SIGKILL of the whole process tree at any moment, then --resume at once: the undisturbed run's bits."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.processes import kill, start

PHASES = ("pretrain", "rank", "saliency", "unlearn", "retrain")
CONFIG = [
    "federation.clients=8",
    "data.limit=2000",
    "pretrain.rounds=5",
    "unlearn.rounds=5",
    "retrain.rounds=5",
    "unlearn.layers=1",
    "unlearn.selection=critical",
    "output.plots=false",
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fused_ray", "run", *arguments]


def settings(backend: str, path: Path) -> list[str]:
    fields = [*CONFIG, f"engine.backend={backend}", f"output.dir={path}"]
    return [part for field in fields for part in ("--set", field)]


def facts(path: Path) -> dict[str, Any]:
    """What must not depend on being killed."""
    result = json.loads((path / "result.json").read_text())
    return {name: result[name] for name in ("hash", "metrics", "layers", "adapter", "bytes")}


def last_round(path: Path, phase: str) -> int:
    parts = sorted((path / "rounds.parquet").glob(f"*-{phase}-*.parquet"))
    return int(parts[-1].stem.rpartition("-")[2]) if parts else 0


def wait_for_round(path: Path, process: subprocess.Popen[str], phase: str, after: int) -> None:
    """Until that round of the phase is recorded, or for round 0 until the phase before it is done."""
    before = {
        "pretrain": None,
        "rank": ("pretrain", 5),
        "saliency": ("rank", 1),
        "unlearn": ("saliency", 2),
        "retrain": ("unlearn", 5),
    }[phase]
    wanted = (phase, after) if after else before
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if wanted is None:
            if (path / "scenario.json").exists():
                return
        elif last_round(path, wanted[0]) >= wanted[1]:
            return
        time.sleep(0.005)


def killed_then_resumed(backend: str, path: Path, kills: list[tuple[str, int, float]]) -> dict[str, Any]:
    """Start a run, kill it at each point (phase, finished rounds, seconds later), go on at once each time."""
    arguments = settings(backend, path)
    for phase, after, delay in kills:
        process = start(command(*arguments))
        wait_for_round(path, process, phase, after)
        time.sleep(delay)
        kill(process)
        arguments = ["--resume", str(path)]
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return facts(path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("runs") / "undisturbed"
    subprocess.run(command(*settings("local", path)), check=True, capture_output=True, timeout=300)
    return facts(path)


def test_a_run_in_this_process_killed_twice(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    kills = [("pretrain", 2, 0.05), ("unlearn", 1, 0.0)]
    assert killed_then_resumed("local", tmp_path / "run", kills) == undisturbed
    rounds = [p.stem for p in sorted((tmp_path / "run" / "rounds.parquet").glob("*.parquet"))]
    assert len(rounds) == 5 + 1 + 2 + 5 + 5


@pytest.mark.slow
def test_a_run_on_ray_killed_once(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    assert killed_then_resumed("ray", tmp_path / "run", [("unlearn", 2, 0.02)]) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(10))
def test_a_random_moment_in_each_phase(tmp_path: Path, undisturbed: dict[str, Any], number: int) -> None:
    # the moments are drawn anew each time; a failure shows the seed that repeats them
    seed = int(os.environ.get("FUSED_RAY_KILL_SEED", time.time_ns() + number))
    chance = random.Random(seed)
    rounds = {"rank": 1, "saliency": 2}
    kills = [(phase, chance.randrange(rounds.get(phase, 5)), chance.uniform(0.0, 0.3)) for phase in PHASES]
    assert killed_then_resumed("ray", tmp_path / "run", kills) == undisturbed, f"FUSED_RAY_KILL_SEED={seed}: {kills}"
