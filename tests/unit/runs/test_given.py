"""A model that was made before says by what its images were normalised, and is fed the same or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fused_ray import RunConfig, load_run, resume, run
from fused_ray.core.pools import LocalPool
from fused_ray.data import datasets
from fused_ray.errors import ConfigError, Interrupted, RunDirectoryError
from fused_ray.runs import execute
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.export import apply_adapter, restore_base
from fused_ray.runs.given import given_model
from fused_ray.storage.files import read_model
from fused_ray.types import ImageData, Scenario

SMALL = [
    *("engine.backend=local", "federation.clients=3", "data.limit=100", "output.plots=false", "data.std=0.25"),
    *("pretrain.rounds=1", "unlearn.rounds=1", "unlearn.layers=[fc3]", "retrain.rounds=1", "audit.enabled=false"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first"
    run(RunConfig.from_dict({}, [*SMALL, f"output.dir={path}"]))
    return path


def taken(source: Path, out: Path, *changes: str) -> list[str]:
    """The warnings with which a run takes a model over. Raises RunDirectoryError."""
    config = RunConfig.from_dict({}, [*SMALL, *changes, f"pretrain.from={source}", f"output.dir={out}"])
    directory = RunDirectory.create(out, config)
    directory.lock(0)
    try:
        _, _, warnings = given_model(directory, config, datasets.load(config.data, config.seed))
    finally:
        directory.unlock()
    assert read_model(out / "base.safetensors")[1] == ((0.286,), (0.25,))
    return warnings


def refusal(source: Path, out: Path, *changes: str) -> str:
    with pytest.raises((ConfigError, RunDirectoryError)) as caught:
        taken(source, out, *changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_model_of_a_run_says_it(finished: Path, tmp_path: Path) -> None:
    apply_adapter(finished, tmp_path / "forgot.safetensors")
    restore_base(finished, tmp_path / "base.safetensors")
    files = [finished / f"{name}.safetensors" for name in ("base", "retrained")]
    for file in (*files, tmp_path / "forgot.safetensors", tmp_path / "base.safetensors"):
        assert read_model(file)[1] == ((0.286,), (0.25,))
    assert RunDirectory.open(finished).constants == ((0.286,), (0.25,))


def test_a_run_whose_images_were_fed_otherwise_is_refused(finished: Path, tmp_path: Path) -> None:
    said = refusal(finished, tmp_path / "a", "data.mean=0.5")
    another = "is another one: data.mean ([0.286] there, [0.5] here)"
    assert said.startswith(f"pretrain.from: the model of {finished} {another}")
    assert taken(finished, tmp_path / "b", "data.mean=[0.286]") == []


def test_a_file_whose_images_were_fed_otherwise_is_refused(finished: Path, tmp_path: Path) -> None:
    source = finished / "retrained.safetensors"
    said = refusal(source, tmp_path / "a", "data.std=null", "data.mean=0.5")
    assert said.startswith(f"pretrain.from: the model of {source} was trained on images normalised otherwise")
    assert "(data.mean=[0.5] and data.std=[0.353])" in said
    assert said.endswith("set data.mean=[0.286] and data.std=[0.25]")
    assert taken(source, tmp_path / "b", "data.mean=[0.286]", "data.std=[0.25]") == []


def test_a_model_that_says_nothing_is_taken_with_a_warning(finished: Path, tmp_path: Path) -> None:
    save_file(load_file(finished / "base.safetensors"), tmp_path / "own.safetensors")
    (warning,) = taken(tmp_path / "own.safetensors", tmp_path / "a")
    assert "does not say by what" in warning
    assert "data.mean=[0.286] and data.std=[0.25] are taken to be right" in warning


def test_a_finished_run_of_an_earlier_version_says_it_in_its_result(finished: Path, tmp_path: Path) -> None:
    """Its models' headers do not; its constants were those of its images."""
    old = tmp_path / "old"
    shutil.copytree(finished, old)
    save_file(load_file(finished / "base.safetensors"), old / "base.safetensors")
    assert taken(old, tmp_path / "a") == []
    result = json.loads((old / "result.json").read_text())
    result["data"]["mean"] = [0.28537632503001203]
    (old / "result.json").write_text(json.dumps(result))
    assert refusal(old, tmp_path / "b").endswith("set data.mean=[0.28537632503001203] and data.std=[0.25]")


@pytest.mark.parametrize("wrong", ["[", "7", '["a"]', "{}", "null"])
def test_a_header_that_holds_no_numbers_is_damage(finished: Path, wrong: str, tmp_path: Path) -> None:
    with safe_open(finished / "base.safetensors", framework="numpy") as file:
        about = {**file.metadata(), "mean": wrong}
    save_file(load_file(finished / "base.safetensors"), tmp_path / "own.safetensors", about)
    assert "own.safetensors is damaged" in refusal(tmp_path / "own.safetensors", tmp_path / "a")


def test_a_run_does_not_go_on_with_other_constants(finished: Path, tmp_path: Path) -> None:
    """As after an update of this program that feeds a set otherwise."""
    path = tmp_path / "begun"
    shutil.copytree(finished, path)
    (path / "result.json").unlink()
    facts = json.loads((path / "scenario.json").read_text())
    (path / "scenario.json").write_text(json.dumps({**facts, "mean": [0.2853]}))
    with pytest.raises(RunDirectoryError, match="normalised them by another mean"):
        resume(path)


def test_a_finished_run_is_audited_on_what_its_models_were_fed(finished: Path, tmp_path: Path) -> None:
    """Whatever this version would feed them."""
    path = tmp_path / "old"
    shutil.copytree(finished, path)
    result = json.loads((path / "result.json").read_text())
    result["data"]["mean"] = [0.28537632503001203]
    (path / "result.json").write_text(json.dumps(result))
    fed: list[ImageData] = []

    def make_pool(config: RunConfig, data: ImageData, scenario: Scenario) -> LocalPool:
        fed.append(data)
        raise Interrupted("seen enough")

    directory = RunDirectory.open(path)
    config = directory.config
    more = config.model_copy(update={"audit": config.audit.model_copy(update={"shadows": 1})})  # which are trained
    with pytest.raises(Interrupted):
        execute.audit(directory, more, make_pool)
    assert (fed[0].mean, fed[0].std) == ((0.28537632503001203,), (0.25,))


def test_a_ranking_is_taken_over_where_the_same_clients_would_rank(finished: Path, tmp_path: Path) -> None:
    ranked = ["unlearn.layers=1", "unlearn.mask=random", f"pretrain.from={finished}", "retrain.rounds=0"]
    run(RunConfig.from_dict({}, [*SMALL, *ranked, f"output.dir={tmp_path / 'ranks'}"]))
    for name, change, clients in (("same", "unlearn.rounds=2", 3), ("fewer", "unlearn.participation=2", 2)):
        given = [*ranked, f"pretrain.from={tmp_path / 'ranks'}", change, f"output.dir={tmp_path / name}"]
        run(RunConfig.from_dict({}, [*SMALL, *given]))
        (row,) = [row for row in load_run(tmp_path / name).rounds.to_pylist() if row["phase"] == "rank"]
        assert row["clients_used"] == clients
