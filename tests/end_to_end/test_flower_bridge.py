"""FUSED's rounds on Flower's simulation give the adapter the bits that our engine gives it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fused_ray import RunConfig, load_run, run
from tests.docs.blocks import ROOT
from tests.layered import done, layered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

BRIDGE = ROOT / "examples" / "flower_bridge"
SMALL = [
    *("engine.backend=local", "federation.clients=5", "data.limit=500", "output.plots=none", "audit.enabled=false"),
    *("pretrain.rounds=2", "unlearn.rounds=3", "retrain.rounds=0"),
]
TASKS = {
    "class": [],
    "one client goes, masks at random": ["forget.scenario=client", "forget.clients=[2]", "unlearn.mask=random"],
    "some take part, LoRA": ["unlearn.adapter=lora", "unlearn.layers=[fc2, fc3]", "federation.participation=0.6"],
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with Flower and its Ray."""
    return layered(tmp_path_factory.mktemp("flower"), "-r", BRIDGE / "requirements.txt") / "python"


@pytest.mark.parametrize("name", TASKS)
def test_flower_gives_the_same_bits(name: str, python: Path, tmp_path: Path) -> None:
    run(RunConfig.from_dict({}, [*SMALL, *TASKS[name], f"output.dir={tmp_path / 'ours'}"]))
    ours = load_run(tmp_path / "ours").result["metrics"]["after"]
    variables = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, BRIDGE))), "FLWR_TELEMETRY_ENABLED": "0"}
    variables["FLWR_HOME"] = str(tmp_path / "flower")
    lines = done([python, BRIDGE / "run.py", tmp_path / "ours"], tmp_path, **variables).splitlines()
    assert lines[-1].startswith("the adapter has the same bits as the run's: ")
    assert lines[-2] == f"round 3: RA {ours['ra']:.4f}, FA {ours['fa']:.4f}"
    assert lines[-5].startswith("round 0: RA ")
