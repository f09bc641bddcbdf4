"""Audits that train anew: asked for by number on a finished run, kept, and refused where they cannot be made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray import audit_run, load_run, run
from fused_ray.config import AuditConfig, RunConfig
from fused_ray.core.pools import LocalPool
from fused_ray.core.state import flatten
from fused_ray.core.work import ModelEvaluation
from fused_ray.errors import ConfigError, Interrupted
from fused_ray.runs import oracles
from fused_ray.runs.execute import as_trained, prepared
from fused_ray.runs.progress import Progress
from fused_ray.storage.files import read_state


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that forgot examples with a trigger."""
    place = tmp_path_factory.mktemp("anew") / "run"
    values = {
        "data": {"limit": 300}, "federation": {"clients": 3}, "forget": {"scenario": "sample"},
        "pretrain": {"rounds": 1}, "unlearn": {"rounds": 1}, "audit": {"relearn_steps": 1, "relearn_repeats": 1},
        "engine": {"backend": "local"}, "output": {"dir": str(place), "plots": "none"},
    }  # fmt: skip
    run(RunConfig.from_dict(values))
    return place


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.slow
def test_what_is_asked_for_by_number_is_told_trained_and_kept(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    before = load_run(copied).result
    result = audit_run(copied, overrides=["audit.swap=1", "audit.klom=3"], listener=heard.append)
    report = load_run(copied).read_json("audit.json")
    assert report["swap"]["splits"] == 1
    assert report["klom"]["forget"]["models"] == 4
    assert report["ruli"] is None
    assert {"swap_after", "klom_retain_mean_floor"} <= {figure["name"] for figure in result["audit_metrics"]}
    assert (result["metrics"], result["hash"]) == (before["metrics"], before["hash"])
    # pre-training, ranking, two gradients, unlearning; and retraining for KLoM
    assert heard[0].notes == (
        "audit.swap: trains anew, 1 x 5 rounds; what is done already is kept",
        "audit.klom: trains anew, 3 x 6 rounds; what is done already is kept",
    )
    assert {progress.phase for progress in heard} >= {"swap-1 pretrain", "klom-3 unlearn", "klom-2 retrain-2"}

    def again(*_: Any) -> Any:
        raise AssertionError("it is trained again")

    monkeypatch.setattr(oracles, "_trained", again)
    (copied / "audit.json").unlink()  # all is measured again, from what was kept
    assert audit_run(copied, overrides=["audit.swap=1", "audit.klom=3"])["audit_metrics"] == result["audit_metrics"]


def test_the_pool_has_the_runs_own_clients_and_data_again(copied: Path) -> None:
    """Further metrics train with it when all is trained anew: images were exchanged, and seeds were others."""
    run = load_run(copied)
    config = run.config.model_copy(update={"audit": AuditConfig(swap=1)})
    data, scenario = as_trained(run, config, prepared)
    pool = LocalPool(config, data, scenario)
    base = flatten(read_state(copied / "base.safetensors"))
    before = pool.evaluate(ModelEvaluation(), base)
    run.lock(0)
    oracles.trained_anew(config, data, scenario, pool, run, lambda progress: None, lambda: False)
    run.unlock()
    assert np.array_equal(pool.evaluate(ModelEvaluation(), base), before)


@pytest.mark.slow
def test_an_audit_that_was_stopped_goes_on_with_the_next_training(copied: Path) -> None:
    asked = ["audit.swap=2"]

    def stop(progress: Progress) -> None:
        if progress.phase == "swap-2 unlearn":
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        audit_run(copied, overrides=asked, listener=stop)
    folder = copied / oracles.FOLDER
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert list(kept) == ["swap-1.safetensors"]
    heard: list[Progress] = []
    audit_run(copied, overrides=asked, listener=heard.append)
    assert "swap-1 pretrain" not in {progress.phase for progress in heard}
    assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() > kept.items()


def test_an_audit_that_asks_for_nothing_of_this_is_as_it_was(finished: Path) -> None:
    report = load_run(finished).read_json("audit.json")
    assert (report["swap"], report["klom"], report["ruli"]) == (None, None, None)
    assert not {"swap", "klom", "ruli"} & report["settings"].keys()  # as in audits of earlier versions
    assert not (finished / oracles.FOLDER).exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["audit.klom=2"], "audit.klom: 2 more models have no halves to compare; take 3 or more"),
        (["audit.ruli=13"], "audit.ruli: 13 shadows are not three roles of four or more; take 12, 15, 18, ..."),
        (["audit.ruli=9"], "audit.ruli: 9 shadows are not three roles of four or more; take 12, 15, 18, ..."),
        (["audit.swap=-1"], "audit.swap"),
        (["unlearn.rounds=3"], "--set 'unlearn.rounds=3': a finished run is only judged; set a field of audit"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(finished: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        audit_run(finished, overrides=overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["swap", "ruli"])
@pytest.mark.parametrize("scenario", ["class", "client", "exclusive"])
def test_only_examples_can_be_exchanged_and_forgotten_one_by_one(key: str, scenario: str) -> None:
    RunConfig.from_dict({}, ["forget.scenario=sample", f"audit.{key}=12"])
    with pytest.raises(ConfigError, match=rf"^audit\.{key}: only forget\.scenario=sample .*, not {scenario}; leave it"):
        RunConfig.from_dict({}, [f"forget.scenario={scenario}", f"audit.{key}=12"])


def test_klom_is_for_every_scenario() -> None:
    assert RunConfig.from_dict({}, ["audit.klom=20"]).audit.anew
