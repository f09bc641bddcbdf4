"""Parts of another package, one at every door: installed as usual, on Ray, in studies, killed, sent as a job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from fused_ray import FusedRayError, RunConfig, run
from fused_ray.studies.status import UNSUPPORTED
from tests.cluster.test_ray_job import RAY, environment, head
from tests.processes import kill, start, wait_until

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin"
TASK: dict[str, Any] = {
    "seed": 3,
    "data": {"name": "documents", "args": {"authors": 6, "train": 300}, "partition": "sources"},
    "model": {"name": "two-layers"},
    "forget": {"scenario": "author", "args": {"author": 2}},
    "federation": {"clients": 4, "aggregate": "geometric_median", "server": "fedyogi"},
    "train": {"optimiser": "rmsprop", "lr": 0.002, "schedule": "restarts", "schedule_args": {"every": 2}},
    "pretrain": {"rounds": 3},
    "unlearn": {"method": "ridge", "args": {"strength": 0.1}},
    "retrain": {"rounds": 2},
    "audit": {"metrics": ["ece"], "relearn_steps": 2, "relearn_repeats": 1},
    "output": {"callbacks": ["lines"], "plots": "none"},
}
"""Installed names at every door; documents, which are no images."""
SHRUNK = {
    "unlearn.method": "fused",
    "unlearn.layers": 1,
    "unlearn.selection": "every",
    "unlearn.mask": "magnitude",
    "unlearn.start": "shrink",
    "unlearn.start_args": {"share": 0.75},
}
"""An adapter whose layers, entries and start come from another package."""
FIGURES = ("metric_ece_after", "metric_ece_retrained")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `pip install` put the plugin into."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PLUGIN, folder / "source")  # to be built there
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "-t", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def fused_ray(installed: Path, at: Path, *arguments: str) -> str:
    """What the command line prints, in a process of its own in that folder, which ends well."""
    done = subprocess.run(
        [sys.executable, "-m", "fused_ray", *arguments],
        cwd=at,
        env=path_with(installed),
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def path_with(installed: Path) -> dict[str, str]:
    return environment(PYTHONPATH=f"{ROOT}{os.pathsep}{installed}")


def result(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "result.json").read_text())
    return found


def told(path: Path) -> list[dict[str, Any]]:
    """What the callback wrote, but for the seconds."""
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "run.yaml").write_text(yaml.safe_dump(TASK))
    said = fused_ray(
        installed, folder, *["run", "run.yaml", "--set", "engine.backend=local", "--set", "output.dir=run"]
    )
    assert "Forgetting all documents of one author (documents, two-layers, 4 clients, seed 3)" in said
    assert "ridge changed the whole model" in said
    assert "ece_after 0." in said
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("packing", [1, 4])
def test_all_of_them_have_the_same_bits_on_ray(
    installed: Path, undisturbed: Path, tmp_path: Path, packing: int
) -> None:
    placed = ["--set", f"federation.clients_per_actor={packing}", "--set", f"output.dir={tmp_path / 'run'}"]
    fused_ray(installed, undisturbed.parent, "run", "run.yaml", *placed)
    for name in ("hash", "metrics", "bytes", "verdict", "audit_metrics"):
        assert result(tmp_path / "run")[name] == result(undisturbed)[name]
    assert told(tmp_path / "run") == told(undisturbed)
    assert [line.get("phase") for line in told(undisturbed)] == [*["pretrain"] * 3, "gram", *["retrain"] * 2, None]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "ray"])
def test_killed_and_gone_on_with(installed: Path, undisturbed: Path, tmp_path: Path, backend: str) -> None:
    arguments = ["run", "run.yaml", "--set", f"engine.backend={backend}", "--set", f"output.dir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "fused_ray", *arguments]
    process = start(command, cwd=undisturbed.parent, env=path_with(installed))
    wait_until(lambda: bool(list((tmp_path / "run" / "rounds.parquet").glob("*-pretrain-000002*"))), process)
    kill(process)
    assert not (tmp_path / "run" / "result.json").exists()
    fused_ray(installed, tmp_path, "run", "--resume", str(tmp_path / "run"))
    for name in ("hash", "metrics", "bytes", "verdict", "audit_metrics"):
        assert result(tmp_path / "run")[name] == result(undisturbed)[name]


@pytest.mark.slow
def test_a_comparison_of_them_here_and_on_ray(installed: Path, undisturbed: Path, tmp_path: Path) -> None:
    values = {
        "base": str(undisturbed.parent / "run.yaml"),
        "methods": [
            *("ridge", "fedosd", "finetune", {"label": "weak", "set": {"unlearn.args.strength": 10}}),
            {"label": "scaled", "set": {"unlearn.method": "fused", "unlearn.adapter": "scales"}},
            {"label": "shrunk", "set": SHRUNK},
        ],
        "scenarios": ["author", {"label": "other", "set": {"forget.args.author": 4}}],
        "seeds": [3],
        "audit": {"probes": False, "shadows": 0, "relearn_steps": 2, "relearn_repeats": 1, "metrics": ["ece"]},
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(values))
    found = {}
    for backend in ("local", "ray"):
        where = ["--set", f"base.engine.backend={backend}", "--set", f"output.dir={tmp_path / backend}"]
        said = fused_ray(installed, tmp_path, "compare", "compare.yaml", *where)
        assert "ece: expected calibration error" in said
        found[backend] = pq.read_table(tmp_path / backend / "results.parquet").to_pylist()
        table = (tmp_path / backend / "table.md").read_text()
        assert all(f"| {word} " in table for word in ("ridge", "weak", "ece_after"))
        cells = sorted((tmp_path / backend / "cells").iterdir())
        assert [cell.name for cell in cells] == [
            f"{s}-3-{m}" for s in ("author", "other") for m in sorted(("finetune", "shrunk", *OWN))
        ]
        for cell in cells:
            assert told(cell)[0]["phase"] == OWN.get(cell.name.rpartition("-")[2], "unlearn")
            assert told(cell)[-1].keys() == {"verdict"}
    for here, there in zip(found["local"], found["ray"], strict=True):
        same = ("scenario", "method", "status", "verdict", "ra", "fa", *FIGURES)
        assert [here[name] for name in same] == [there[name] for name in same]
        assert (here["status"] == UNSUPPORTED) == (here["method"] == "fedosd") == (here[FIGURES[0]] is None)
    for name in ("author-3-ridge", "other-3-weak"):
        hashes = [result(tmp_path / backend / "cells" / name)["hash"] for backend in ("local", "ray")]
        assert hashes[0] == hashes[1]


OWN = {"ridge": "gram", "scaled": "rank", "weak": "gram"}
"""Methods of the comparison, and the phase that each of them begins with; the others do with unlearning."""


@pytest.mark.slow
def test_a_sweep_of_their_own_settings_here_and_by_tune(installed: Path, undisturbed: Path, tmp_path: Path) -> None:
    space = {"unlearn.method": {"grid": ["ridge", "finetune"]}, "forget.args.author": {"grid": [2, 4]}}
    strengths = {"unlearn.args.strength": {"grid": [0.1, 1]}}
    for name, dimensions, trials in (("methods", space, 4), ("strengths", strengths, 2)):
        values = {"base": str(undisturbed.parent / "run.yaml"), "space": dimensions, "audits": 1, "max_concurrent": 2}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
        found = []
        for backend in ("local", "ray"):
            path = tmp_path / f"{name}-{backend}"
            where = ["--set", f"base.engine.backend={backend}", "--set", f"output.dir={path}"]
            assert "ece_after" in fused_ray(installed, tmp_path, "sweep", f"{name}.yaml", *where)
            rows = pq.read_table(path / "trials.parquet").to_pylist()
            assert {row["status"] for row in rows} == {"done"}
            assert {row["trial"] for row in rows} == set(range(trials))
            audited = [row for row in pq.read_table(path / "front.parquet").to_pylist() if row[FIGURES[0]] is not None]
            assert audited
            folders = sorted((path / "trials").iterdir())
            assert all(told(folder)[0]["phase"] in ("gram", "unlearn") for folder in folders)
            judged = [*folders, *(path / "audited").glob("[!.]*")]  # an earlier round's model is made once more
            assert sum(told(folder)[-1].keys() == {"verdict"} for folder in judged) == len(audited)
            found.append(([result(folder)["hash"] for folder in folders], [row[FIGURES[0]] for row in audited]))
        assert found[0] == found[1]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard's address of a Ray whose workers know nothing of the plugin."""
    folder = tmp_path_factory.mktemp("ray")
    with head(folder / "head.log", environment(PYTHONPATH=str(ROOT))) as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("how", ["working directory", "modules"])
def test_ray_job_submit_takes_them_along(
    installed: Path, undisturbed: Path, tmp_path: Path, bare: str, how: str
) -> None:
    places = {
        "unlearn.method": "fused_ray_plugin.methods.ridge:METHOD",
        "output.callbacks": "[fused_ray_plugin.callbacks.lines:Lines]",
    }
    if how == "working directory":  # with what says which names it has
        folder, along = shutil.copytree(installed, tmp_path / "job"), []
        (folder / "run.yaml").write_text(yaml.safe_dump(TASK))
        fields: list[str] = []
    else:
        folder = tmp_path / "job"
        folder.mkdir()
        base = {section: TASK[section] for section in ("seed", "pretrain", "retrain", "audit", "output")}
        base["audit"] = {"enabled": False}
        (folder / "run.yaml").write_text(yaml.safe_dump(base | {"data": {"limit": 300}, "federation": {"clients": 4}}))
        along = ["--runtime-env-json", json.dumps({"py_modules": [str(PLUGIN / "fused_ray_plugin")]})]
        fields = [f"{key}={value}" for key, value in places.items()]
    arguments = [part for field in [*fields, f"output.dir={tmp_path / 'run'}"] for part in ("--set", field)]
    command = [RAY, "job", "submit", f"--address={bare}", "--working-dir", str(folder), *along, "--", sys.executable]
    command += ["-m", "fused_ray", "run", "run.yaml", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=580, check=False, env=environment(), cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ridge changed the whole model" in done.stdout
    assert "gram" in [line.get("phase") for line in told(tmp_path / "run")]
    if how == "working directory":
        assert result(tmp_path / "run")["hash"] == result(undisturbed)["hash"]


# --- what a worker cannot import -------------------------------------------------------------------------

PART = "from fused_ray_plugin.methods.nothing import METHOD, unlearn\n"
SMALL = ("data.limit=300", "federation.clients=4", "pretrain.rounds=1", "retrain.rounds=1", "audit.enabled=false")


def test_what_no_worker_can_import_is_one_line_and_leaves_nothing(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that this process alone finds."""
    (tmp_path / "only_here.py").write_text(PART)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FusedRayError) as caught:
        run(RunConfig.from_dict({}, [*SMALL, "unlearn.method=only_here:METHOD", f"output.dir={tmp_path / 'run'}"]))
    said = "unlearn.method: cannot import only_here: ModuleNotFoundError: No module named 'only_here'; it must be"
    assert str(caught.value).startswith(said)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def poorer(cluster: Any) -> Iterator[str]:
    """The address of a Ray with a second node, which has not what the parts of `there` need."""
    node = cluster.add_node(num_cpus=1, object_store_memory=200_000_000, env_vars={"POORER": "1"})
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.remove_node(node)


THERE = f"""import os
if "POORER" in os.environ:
    raise ModuleNotFoundError("No module named 'its_library'")
{PART}from fused_ray.models.lenet import LeNet
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("run", {"unlearn": {"method": "there:METHOD"}}),
        ("run", {"model": {"factory": "there:LeNet"}}),
        ("compare", {"methods": ["finetune", {"label": "x", "set": {"unlearn.method": "there:METHOD"}}]}),
        ("sweep", {"space": {"unlearn.method": {"grid": ["finetune", "there:METHOD"]}}}),
    ],
)
def test_so_is_what_one_node_of_two_cannot_import(
    poorer: str, tmp_path: Path, command: str, values: dict[str, Any]
) -> None:
    """Of a comparison or a sweep no run is begun, whichever of them needs it."""
    (tmp_path / "there.py").write_text(THERE)
    small = RunConfig.from_dict({}, [*SMALL, f"engine.address={poorer}"]).model_dump(mode="json", by_alias=True)
    values = {"base": small, "scenarios": ["client"], **values} if command == "compare" else values
    values = {"base": small, **values} if command == "sweep" else values
    values = {**small, **values} if command == "run" else values
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [sys.executable, "-m", "fused_ray", command, "config.yaml", "--set", "output.dir=out"],
        cwd=tmp_path,
        env=path_with(PLUGIN),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    key = "model.factory: there:LeNet" if values.get("model") == {"factory": "there:LeNet"} else "unlearn.method"
    assert last.startswith(f"fused-ray: {key}: cannot import there: ModuleNotFoundError: No module named 'its_library'")
    assert "; it must be importable here and on every node (asked on node " in last
    assert "round" not in done.stderr
    assert not (tmp_path / "out").exists()
