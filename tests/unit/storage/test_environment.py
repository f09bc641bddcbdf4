"""environment.json tells of the machine that made a folder, and of all that its run was driven and computed on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fused_ray import load_run, resume, run
from fused_ray.config import RunConfig
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.environment import environment, machine
from fused_ray.types import Identity

HERE = Identity(node="local", pid=1, fingerprint="f", torch="2", device="cpu")
THERE = replace(HERE, node="a1", machine={**machine(), "name": "other", "gpus": ["NVIDIA H100 80GB HBM3"]})


@pytest.fixture
def directory(tmp_path: Path) -> Any:
    made = RunDirectory.create(tmp_path / "run", RunConfig())
    made.lock(0)
    yield made
    made.unlock()


def content(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((path / "environment.json").read_text())
    return about


def test_a_local_run_tells_of_the_one_machine(tmp_path: Path) -> None:
    fields = ["engine.backend=local", "federation.clients=2", "data.limit=100", "pretrain.rounds=1", "unlearn.rounds=1"]
    fields += ["unlearn.layers=[fc3]", "retrain.rounds=0", "audit.enabled=false", "output.plots=none"]
    result = run(RunConfig.from_dict({}, [*fields, f"output.dir={tmp_path / 'run'}"]))
    about = content(tmp_path / "run")
    assert {name: about[name] for name in environment()} == environment()
    assert about["drivers"] == [{"since": result["started"], **environment()}]
    assert about["nodes"] == [{"since": result["started"], "node": "local", **machine()}]
    assert about["cores"] == os.cpu_count()
    assert about["packages"]["torch"]
    before = (tmp_path / "run" / "environment.json").read_bytes()
    (tmp_path / "run" / "result.json").unlink()  # as if it had been killed just before the end
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "environment.json").read_bytes() == before  # nothing was new


def test_what_is_new_at_a_later_start_is_added(directory: RunDirectory) -> None:
    first = content(directory.path)
    directory.ran_on([HERE, HERE], "one")
    directory.ran_on([HERE, THERE], "two")
    newer = {**machine(), "packages": {**machine()["packages"], "torch": "99"}}
    directory.ran_on([replace(HERE, machine=newer), THERE], "three")
    about = content(directory.path)
    assert [(node["since"], node["node"], node["name"]) for node in about["nodes"]] == [
        ("one", "local", machine()["name"]),
        ("two", "a1", "other"),
        ("three", "local", machine()["name"]),
    ]
    assert about["nodes"][1]["gpus"] == ["NVIDIA H100 80GB HBM3"]
    assert [driver["since"] for driver in about["drivers"]] == ["one"]
    assert {name: about[name] for name in first} == first


def test_the_folder_stays_the_same_one(directory: RunDirectory) -> None:
    """Its mark rests on environment.json: a command that waits for the driver must not take it for another's."""
    before = directory.mark
    directory.ran_on([THERE], "one")
    assert load_run(directory.path).mark == before
    directory.unlock()
    directory.lock(0)
