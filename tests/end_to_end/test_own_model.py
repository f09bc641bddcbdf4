"""A model of one's own, from a file beside the run: on Ray, with pretrained weights, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SMALL = [
    *("federation.clients=3", "data.limit=60", "data.min_examples=5", "pretrain.rounds=1", "unlearn.rounds=1"),
    *("retrain.rounds=0", "output.plots=false", "unlearn.layers=1"),
]
SOURCE = """
from torch import nn

def net(shape, classes, width=8):
    pixels = shape[0] * shape[1] * shape[2]
    layers = [nn.Linear(pixels, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, classes)]
    return nn.Sequential(nn.Flatten(), *layers)

class Alternating(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.net = net(shape, classes)

    def forward(self, x):
        return self.net(x) if x.mean() < 1e9 else self.net(-x)

def broken(shape, classes):
    raise OSError("the disk\\nis full")

def words(shape, classes):
    return "a net"
"""


def fused_ray(folder: Path, *settings: str, command: str = "run") -> subprocess.CompletedProcess[str]:
    """The installed command, whose own folder and not the current one is on the path."""
    program = "import sys; sys.path = [p for p in sys.path if p]; from fused_ray.cli.app import main; main()"
    given = [part for setting in settings for part in ("--set", setting)]
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", program, command, *given],
        capture_output=True, text=True, timeout=240, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("project")
    (path / "mynets.py").write_text(SOURCE)
    return path


def result(folder: Path, name: str, *settings: str) -> tuple[dict[str, Any], str]:
    done = fused_ray(folder, *SMALL, f"output.dir={name}", *settings)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / name / "result.json").read_text()), done.stdout + done.stderr


@pytest.mark.slow
def test_it_runs_on_ray_as_here_and_starts_from_weights(cluster: Any, folder: Path) -> None:
    here, said = result(folder, "here", "model.factory=mynets:net", "engine.backend=local")
    joined = ["federation.clients_per_actor=2", f"engine.address={cluster.address}"]
    there, _ = result(folder, "there", "model.factory=mynets:net", *joined)
    assert here["hash"] == there["hash"]
    assert here["reversible"]
    assert here["model"] == {
        "name": "mynets:net",
        "parameters": 784 * 8 + 8 + 16 + 90,
        "layers": ["1", "2", "5"],
        "norms": ["2"],
        "stages": 3,
        "stages_from": "traced",
    }
    assert "declares no stages" not in said
    weights = load_file(folder / "here" / "base.safetensors")
    save_file(weights, folder / "start.safetensors")
    again, _ = result(
        folder, "again", "model.factory=mynets:net", "engine.backend=local", "model.weights=start.safetensors"
    )
    assert again["pretrain_key"] != here["pretrain_key"]
    assert not np.array_equal(load_file(folder / "again" / "base.safetensors")["5.weight"], weights["5.weight"])


def test_a_run_says_that_nothing_can_be_cached(folder: Path) -> None:
    found, said = result(folder, "uncut", "model.factory=mynets:Alternating", "engine.backend=local")
    assert (found["model"]["stages"], found["model"]["stages_from"]) == (1, "none")
    assert "mynets:Alternating declares no stages" in said


WRONG = [
    (["model.factory=mynets"], "model.factory: write it as package.module:function"),
    (["model.factory=nonets:net"], "model.factory: nonets:net: cannot import nonets"),
    (["model.factory=mynets:nett"], "model.factory: mynets:nett: mynets has no function nett"),
    (["model.factory=mynets:broken"], "OSError: the disk is full"),
    (["model.factory=mynets:words"], "it returned str, no torch.nn.Module"),
    (["model.factory=mynets:net", "model.args={depth: 3}"], "unexpected keyword argument"),
    (["model.factory=mynets:net", "unlearn.layers=[fc3]"], "mynets:net has no layer 'fc3'; it has 1, 2, 5"),
    (["model.factory=mynets:net", "unlearn.layers=3"], "3 is more than the 2 layers of mynets:net (1, 5)"),
    (["model.weights=nowhere.safetensors"], "model.weights: there is no file {folder}/nowhere.safetensors"),
    (
        ["model.weights=other.safetensors"],
        "model.weights: {folder}/other.safetensors has no tensor conv1.bias, which lenet",
    ),
    (["model.name=simplevit", "model.args={patch: 5}"], "model.name: simplevit: it cannot make a model"),
    (["unlearn.layers=[bn1]", "model.name=resnet18", "unlearn.layers=[bn3]"], "resnet18 has no layer 'bn3'"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[" ".join(settings) for settings, _ in WRONG])
def test_what_is_wrong_is_one_line_before_ray_starts(
    folder: Path, settings: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which has PyTorch already."""
    from fused_ray.cli.app import main

    save_file({"conv1.weight": np.zeros((6, 1, 5, 5), np.float32)}, folder / "other.safetensors")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()) as printed:
        main(["run", *(part for s in [*SMALL, *settings, "output.dir=wrong"] for part in ("--set", s))])
    assert caught.value.code == 2
    lines = printed.getvalue().strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fused-ray: ")
    assert said.replace("{folder}", str(folder)) in lines[0]
    assert not (folder / "wrong").exists()
