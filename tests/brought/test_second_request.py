"""A second request on the model of an earlier run: what is taken over, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fused_ray import (
    RunConfig,
    SweepConfig,
    load_run,
    run,
)
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError, NumericsError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.start import prepare
from fused_ray.studies.sweeps.directory import SweepDirectory
from tests.brought.commands import COMPARISON, DRAWN, SWEEP, command, one_line

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


# -- a second request ---------------------------------------------------------------------------------------

TINY = [
    *("data.limit=200", "data.alpha=5", "federation.clients=3", "train.lr=5e-2", "pretrain.rounds=1"),
    *(
        "retrain.rounds=0",
        "unlearn.layers=[fc3]",
        "unlearn.rounds=1",
        "engine.backend=local",
        "audit.enabled=false",
        "output.plots=false",
    ),
]


QUICK = [
    *("unlearn.layers=[fc3]", "unlearn.rounds=0", "retrain.rounds=0", "engine.backend=local"),
    *("audit.enabled=false", "output.plots=false"),
]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("first") / "run"
    run(RunConfig.from_dict({}, [*TINY, f"output.dir={path}"]))
    return path


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("poisoned") / "run"
    run(RunConfig.from_dict({}, [*TINY, "forget.scenario=client", "forget.clients=[1]", f"output.dir={path}"]))
    return path


def test_a_second_request_takes_over_what_the_model_was_made_with(first: Path) -> None:
    config = RunConfig.from_dict({"pretrain": {"from": str(first)}, "forget": {"classes": [3]}, "train": None}, QUICK)
    was = load_run(first).config
    assert (config.seed, config.data, config.model, config.train) == (was.seed, was.data, was.model, was.train)
    assert (config.federation.clients, config.pretrain.rounds) == (3, 1)
    assert (config.forget_classes, config.output.dir, config.engine.backend) == ((3,), "runs/run", "local")
    assert config.pretrain_key() == was.pretrain_key()
    result = run(config)
    assert result["hash"]["base"] == load_run(first).result["hash"]["base"]
    moved = first.parent / "moved"
    first.rename(moved)  # what was written stands alone
    try:
        assert load_run("runs/run").config == config
        assert read_yaml("runs/run/config.yaml")["federation"]["clients"] == 3
    finally:
        moved.rename(first)


def test_what_the_command_line_and_data_show_is_the_first_runs(first: Path) -> None:
    assert RunConfig.from_dict({}, [f"pretrain.from={first}"]).federation.clients == 3
    shown = command("data", "--set", f"pretrain.from={first}")[1]
    assert load_run(first).result["partition_sha256"] in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["federation.clients=4"], "federation.clients (3 there, 4 here)"),
        (["data.alpha=1", "seed=2"], "seed (0 there, 2 here), data.alpha (5.0 there, 1.0 here)"),
        (["data.limit=null"], "data.limit (200 there, unset here)"),
        (["model.name=resnet18", "unlearn.layers=[fc]"], "model.name (lenet there, resnet18 here)"),
        (["pretrain.rounds=2"], "pretrain.rounds (1 there, 2 here)"),
        (["train.lr=0.1", "data.augment=flip"], "data.augment (none there, flip here), train.lr (0.05 there, 0.1"),
        (["forget.scenario=exclusive"], "forget.scenario (class there, exclusive here)"),
        (["forget.scenario=client"], "(class there, client with poison here); leave these out to take them over, set"),
        (
            ["train.lr=0.1", "forget.scenario=client", "forget.poison=false", "unlearn.method=eraseclient"],
            "eraseclient goes back over pre-training, and cannot change train.lr (0.05 there, 0.1 here)",
        ),
    ],
)  # fmt: skip
def test_what_would_be_another_model_is_refused(first: Path, changes: list[str], said: str) -> None:
    fields = [part for change in (*QUICK, f"pretrain.from={first}", *changes) for part in ("--set", change)]
    line = one_line("run", *fields)
    assert line.startswith("fused-ray: pretrain.from: ")
    assert said in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "changes",
    [
        ["forget.scenario=client", "forget.poison=false", "forget.clients=[2]"],
        ["forget.scenario=sample", "forget.poison=false"],
        ["train.lr=0.1"],
    ],
)
def test_another_request_is_the_very_point(first: Path, changes: list[str]) -> None:
    prepare(RunConfig.from_dict({}, [f"pretrain.from={first}", *QUICK, *changes]))


def test_training_that_differs_is_said(first: Path) -> None:
    heard: list[str] = []
    config = RunConfig.from_dict({}, [f"pretrain.from={first}", *QUICK, "train.lr=0.1"])
    run(config, listener=lambda progress: heard.extend(progress.notes))
    assert f"the model of {first} was trained with other settings: train.lr (0.05 there, 0.1 here)" in heard


def test_poison_belongs_to_the_model(poisoned: Path) -> None:
    from_it = f"pretrain.from={poisoned}"
    again = RunConfig.from_dict({}, [from_it, *QUICK, "unlearn.method=finetune"])
    assert (again.forget.scenario, again.forget.clients) == ("client", (1,))
    prepare(again)
    for changes, said in {
        ("forget.scenario=class",): "forget.scenario (client with poison there, class here)",
        ("forget.clients=[0]",): "forget.clients ([1] there, [0] here)",
        ("forget.poison=false",): "forget.scenario (client with poison there, client here)",
        (
            "forget.scenario=sample",
            "forget.examples=[3]",
        ): "forget.scenario (client with poison there, sample with poison",
    }.items():
        with pytest.raises(ConfigError) as caught:
            prepare(RunConfig.from_dict({}, [from_it, *QUICK, *changes]))
        assert said in str(caught.value)


def test_data_that_changed_under_the_model_are_noticed(first: Path, tmp_path: Path) -> None:
    """The key says what the data held when the model was trained, wherever they lie now."""
    earlier = tmp_path / "earlier"
    shutil.copytree(first, earlier)
    own, moved = tmp_path / "own", tmp_path / "moved"
    own.mkdir()
    for part in ("train", "test"):
        (own / f"{part}.parquet").write_bytes(part.encode())
    config = RunConfig.from_dict({"data": {"name": "parquet", "root": str(own)}, "retrain": {"rounds": 0}})
    (earlier / "config.yaml").write_text(config.to_yaml())
    result = json.loads((earlier / "result.json").read_text()) | {"pretrain_key": config.pretrain_key()}
    (earlier / "result.json").write_text(json.dumps(result))
    from fused_ray.runs.earlier import check_earlier

    second = RunConfig.from_dict({"pretrain": {"from": str(earlier)}})
    assert check_earlier(second) == []
    own.rename(moved)
    assert check_earlier(RunConfig.from_dict({"pretrain": {"from": str(earlier)}, "data": {"root": str(moved)}})) == []
    moved.rename(own)
    (own / "train.parquet").write_bytes(b"other")
    with pytest.raises(ConfigError, match="was trained on is not what its data and model sections name now"):
        check_earlier(second)


def test_a_model_made_on_another_kind_of_machine_is_said(first: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(first, other)
    result = json.loads((other / "result.json").read_text())
    result["numerics"]["fingerprints"] = ["0" * 64]
    (other / "result.json").write_text(json.dumps(result))
    heard: list[str] = []
    fields = [f"pretrain.from={other}", *QUICK]
    run(RunConfig.from_dict({}, fields), listener=lambda progress: heard.extend(progress.notes))
    assert any("floating point gives other bits than this run's" in note for note in heard)
    with pytest.raises(NumericsError, match="use the same kind of machine"):
        run(RunConfig.from_dict({}, [*fields, "engine.numerics=strict", "output.dir=strict"]))


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    SweepDirectory.create("sweep", SweepConfig.from_dict(DRAWN))
    assert "sweep is no run directory of this version, but of a sweep" in one_line(
        "run", "--set", "pretrain.from=sweep"
    )
    RunDirectory.create("begun", RunConfig())
    assert "begun has not finished pre-training" in one_line("run", "--set", "pretrain.from=begun")
    Path("begun/config.yaml").write_text("seed: 1\nseed: 2\n")
    assert "config.yaml, line 2, column 1: the key seed" in one_line("run", "--set", "pretrain.from=begun")
    for text in (SWEEP, COMPARISON):
        Path("f.yaml").write_text(text)
        kind = "sweep" if text == SWEEP else "compare"
        assert "base.pretrain.from: " in one_line(kind, "f.yaml", "--set", "base.pretrain.from=begun")
