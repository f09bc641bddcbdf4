"""Methods of another package: each runs, and does what its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_ray_plugin.methods import fedosd

from fused_ray import CompareConfig, FusedRayError, RunConfig, compare, load_comparison, load_run, resume, run
from fused_ray.api import Interrupted
from fused_ray.core.state import state_hash
from fused_ray.storage.files import read_state

SMALL = (
    *("data.limit=600", "federation.clients=5", "pretrain.rounds=2", "unlearn.rounds=2", "retrain.rounds=1"),
    *("forget.scenario=client", "output.plots=none", "audit.enabled=false", "engine.backend=local"),
)
NAMES = ("nothing", "fedosd", "ridge", "insert", "groups")


def entry(name: str) -> str:
    return f"fused_ray_plugin.methods.{name}:METHOD"


def config(name: str, path: Path, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*SMALL, f"unlearn.method={entry(name)}", f"output.dir={path}", *fields])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        given = [] if name in ("nothing", "groups") else [f"pretrain.from={folder / 'nothing'}"]
        run(config(name, folder / name, *given))
    return {name: folder / name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_run_like_any_other(finished: dict[str, Path], name: str) -> None:
    found = load_run(finished[name])
    hashes = found.result["hash"]
    assert found.result["method"] == entry(name)
    assert (hashes["unlearned"] == hashes["base"]) == (name == "nothing")
    own = {"ridge": ["gram"], "insert": ["insert"], "groups": ["groups", "unlearn"], "fedosd": ["unlearn"]}
    phases = dict.fromkeys(row["phase"] for row in found.rounds.to_pylist())
    assert [phase for phase in phases if phase not in ("pretrain", "retrain")] == own.get(name, [])


def test_the_same_bits_after_an_interruption(finished: dict[str, Path], tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.phase == "groups" and progress.finished == 5:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        run(config("groups", tmp_path / "run"), listener=stop)
    assert resume(tmp_path / "run")["hash"] == load_run(finished["groups"]).result["hash"]


def test_ridge_is_the_head_that_one_machine_would_have_solved(finished: dict[str, Path]) -> None:
    before, after = (read_state(finished["ridge"] / f"{name}.safetensors") for name in ("base", "unlearned"))
    same = [name for name in before if state_hash({name: before[name]}) == state_hash({name: after[name]})]
    assert sorted(set(before) - set(same)) == ["fc3.bias", "fc3.weight"]
    from fused_ray.config import RunConfig as Config
    from fused_ray.core import state
    from fused_ray.core.workspace import Workspace
    from fused_ray.runs.execute import prepared

    settings: Config = load_run(finished["ridge"]).config
    data, scenario = prepared(settings)
    space = Workspace(settings, data, scenario)
    space.install(state.flatten(before))
    space.use_base()
    rows = np.concatenate([scenario.examples("retained", client) for client in scenario.clients("retained")])
    x = space.activations("train", rows, space.cut(["fc3"])).flatten(1).double().numpy()
    x, y = np.c_[x, np.ones(len(x))], np.eye(10)[scenario.train_labels[rows]]
    solved = np.linalg.solve(x.T @ x / len(x) + 0.01 * np.eye(x.shape[1]), x.T @ y / len(x)).T
    assert np.allclose(after["fc3.weight"], solved[:, :-1], atol=1e-3)
    assert np.allclose(after["fc3.bias"], solved[:, -1], atol=1e-3)


def test_the_unlearning_loss_by_hand() -> None:
    import torch

    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    found = fedosd.unlearning_loss(logits, torch.tensor([0, 1])).item()
    assert found == pytest.approx(-np.log(0.75) - np.log(0.625))


def test_a_comparison_takes_them_by_any_label(tmp_path: Path) -> None:
    base = RunConfig.from_dict({}, [field for field in SMALL if not field.startswith(("forget.", "audit."))])
    values: dict[str, Any] = {
        "base": base.model_dump(mode="json", by_alias=True),
        "methods": ["finetune", *({"label": n, "set": {"unlearn.method": entry(n)}} for n in ("ridge", "groups"))],
        "scenarios": ["client", "class"],
        "audit": False,
        "output": {"dir": str(tmp_path / "compared")},
    }
    compare(CompareConfig.from_dict(values))
    rows = {(row["method"], row["scenario"]): row["status"] for row in load_comparison(tmp_path / "compared").rows}
    assert rows[("ridge", "client")] == rows[("ridge", "class")] == rows[("groups", "client")] == "done"
    assert rows[("groups", "class")] == "unsupported"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["unlearn.args.lrr=1"], "unlearn.args.lrr: unknown key; did you mean lr?"),
        (["unlearn.args.lr=much"], "unlearn.args.lr: "),
        (["unlearn.method=fused_ray_plugin.methods.fedosd:METHODS"], "has no METHODS"),
        (["unlearn.method=fused_ray_plugin.methods.none:METHOD"], "cannot import fused_ray_plugin.methods.none"),
        (["unlearn.method=fused_ray_plugin:methods"], "not a fused_ray.api.Method"),
        (["unlearn.method=fedosdd"], "unlearn.method: unknown method 'fedosdd'"),
        (["unlearn.method=fused", "unlearn.args.lr=1"], "unlearn.args: fused has no settings of its own"),
        ([f"unlearn.method={entry('groups')}", "forget.scenario=class"], "cannot do the scenario 'class'"),
    ],
)
def test_what_is_wrong_with_a_part_is_one_line(tmp_path: Path, fields: list[str], said: str) -> None:
    with pytest.raises(FusedRayError) as caught:
        config("fedosd", tmp_path / "run", *fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
