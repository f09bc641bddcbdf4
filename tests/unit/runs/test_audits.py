"""What the audit of a finished run leaves in its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray import audit_run, load_run, run
from fused_ray.audit import rules
from fused_ray.audit.metrics.resurfacing import whole
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import RunConfig
from fused_ray.config.parts.metrics import FULL
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.state import flatten
from fused_ray.errors import Interrupted, RunDirectoryError
from fused_ray.runs import audits, display
from fused_ray.runs.execute import as_trained, prepared
from fused_ray.runs.progress import Progress
from fused_ray.runs.screen import Screen
from fused_ray.storage.files import read_state


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that was judged by little."""
    place = tmp_path_factory.mktemp("audited") / "run"
    values = {
        "data": {"limit": 400}, "federation": {"clients": 4}, "pretrain": {"rounds": 1}, "unlearn": {"rounds": 1},
        "audit": {"relearn_steps": 2, "relearn_repeats": 1}, "engine": {"backend": "local"},
        "output": {"dir": str(place), "plots": "none"},
    }  # fmt: skip
    run(RunConfig.from_dict(values))
    return place


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_an_audit_is_taken_again_only_while_all_that_it_rests_on_is_the_same(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(copied)
    settings = run.config.audit
    made = run.read_json("audit.json")

    class Measured(Exception):
        pass

    def measure() -> Yardstick:
        raise Measured

    def judged(**changed: Any) -> dict[str, Any]:
        files = [run.path / "base.safetensors", run.path / "retrained.safetensors"]
        parts = {"settings": settings, "files": files, **changed}
        return audits.examine(run, run.result, audits.Standard(parts["files"], measure), parts["settings"], "fused")

    run.lock(0)
    assert judged() == made
    with pytest.raises(Measured):
        judged(settings=settings.model_copy(update={"relearn_steps": 3}))
    with pytest.raises(Measured):
        judged(files=[run.path / "base.safetensors", run.path / "base.safetensors"])
    with pytest.raises(Measured):
        judged(files=[run.path / "base.safetensors", run.path / "gone.safetensors"])
    monkeypatch.setattr(rules, "RULES", rules.RULES + 1)
    with pytest.raises(Measured):
        judged()
    run.unlock()


def test_a_run_is_judged_and_may_be_judged_again_inside(finished: Path) -> None:
    before = load_run(finished)
    assert before.result["verdict"]
    assert before.read_json("audit.json")["index"] is None
    again = audit_run(finished)
    report = load_run(finished).read_json("audit.json")
    assert report["settings"]["probes"]
    assert report["index"]["why"] or report["index"]["told"]
    assert load_run(finished).result == again
    assert again["metrics"] == before.result["metrics"]
    assert audit_run(finished)["seconds"]["audit"] == again["seconds"]["audit"], "that of when it was made"


def test_where_nothing_was_retrained_a_full_audit_trains_the_standard_line_by_line(
    tmp_path: Path, finished: Path, terminal: Any
) -> None:
    path = tmp_path / "run"
    fields = ["retrain.rounds=0", "audit.relearn_steps=2", "audit.relearn_repeats=1", f"output.dir={path}"]
    here = ["engine.backend=local", "output.plots=none", "data.limit=400", "federation.clients=4"]
    result = run(RunConfig.from_dict({}, [*fields, *here, f"pretrain.from={finished}", "unlearn.rounds=1"]))
    assert result["verdict"] == "unjudged"
    stream = terminal()
    assert audit_run(path, full=True, listener=display._Lines(Screen(stream)))["verdict"] != "unjudged"
    titles = [line.split(" s  ", 1)[1].split("  ")[0] for line in stream.text.splitlines()]
    for title in ("shadow-1", "shadow-2", "retrain-2", "retrain-3"):
        assert f"{title} round 1/1" in titles
    with pytest.raises(RunDirectoryError, match="was judged against a retrained model that this audit would not have"):
        audit_run(path)

    # what else it asks
    report = load_run(path).read_json("audit.json")
    asked = [name for name in FULL if name != "giveaway"]  # which has figures alone
    assert [answer["name"] for answer in report["audit_answers"]] == asked
    assert (report["audit_metrics_failed"], set(report["audit_details"])) == ([], set(asked))
    assert set(report["audit_details"]["resurfacing"]) == {"merged", "adapter", "retrained", "second"}
    assert load_run(path).result["audit_answers"] == report["audit_answers"]
    assert sum("resurface-" in title for title in titles) == 4
    assert len([*(path / "audit").glob("resurface-*.safetensors")]) == 4


def test_rounds_of_a_metric_go_on_where_they_stopped(copied: Path) -> None:
    run = load_run(copied)
    config, heard = run.config, list[Progress]()
    settings = config.audit.model_copy(update={"metrics": ("resurfacing",)})
    assert settings.needs_workers(config)
    assert not config.audit.needs_workers(config)
    data, scenario = as_trained(run, config, prepared)
    start = flatten(read_state(copied / "base.safetensors"))

    def gone_on(rounds: int, stopped: Callable[[], bool] = lambda: False) -> Any:
        recorder = audits.AuditRecorder(config, settings, run, "audit", heard.append, stopped)
        return whole(Federation(config, data, scenario, LocalPool(config, data, scenario), recorder), start, rounds)

    run.lock(0)
    with pytest.raises(Interrupted):
        gone_on(2, lambda: bool(heard and heard[-1].finished))
    assert heard[-1].finished == 1
    assert heard[-1].seconds_left is not None
    del heard[:]
    curve = gone_on(2)
    assert {progress.round for progress in heard} == {2}
    del heard[:]
    assert (gone_on(2), heard) == (curve, [])
    run.unlock()
    undisturbed = Federation(config, data, scenario, LocalPool(config, data, scenario), MemoryRecorder())
    assert whole(undisturbed, start, 2) == curve


def test_other_data_than_the_runs_are_not_judged_by(copied: Path) -> None:
    held = json.loads((copied / "scenario.json").read_text())
    (copied / "scenario.json").write_text(json.dumps(held | {"examples": [1, 2, 3, 4]}))
    with pytest.raises(RunDirectoryError, match="its clients held other data"):
        audit_run(copied)


def test_other_images_than_the_runs_are_not_judged_by(tmp_path: Path) -> None:
    """Though who holds what depends on the training labels alone."""
    rng = np.random.default_rng(0)
    arrays = {f"{split}_labels": np.arange(count) % 3 for split, count in (("train", 96), ("test", 48))}
    arrays |= {f"{split}_images": rng.integers(0, 256, (count, 28, 28), np.uint8)
               for split, count in (("train", 96), ("test", 48))}  # fmt: skip
    np.savez(tmp_path / "own.npz", **arrays)
    values = {
        "data": {"name": "npz", "root": str(tmp_path / "own.npz")}, "federation": {"clients": 2},
        "pretrain": {"rounds": 1}, "unlearn": {"rounds": 1}, "engine": {"backend": "local"},
        "audit": {"relearn_steps": 1, "relearn_repeats": 1},
        "output": {"dir": str(tmp_path / "run"), "plots": "none"},
    }  # fmt: skip
    run(RunConfig.from_dict(values))
    names = ("audit.json", "result.json")
    before = [(tmp_path / "run" / name).read_bytes() for name in names]
    for name in ("train_images", "test_images", "test_labels"):
        changed = arrays[name].copy()
        changed[[0, 1]] = changed[[1, 0]]  # one of each class
        np.savez(tmp_path / "own.npz", **{**arrays, name: changed})
        with pytest.raises(RunDirectoryError, match="its images or labels were others"):
            audit_run(tmp_path / "run")
        assert [(tmp_path / "run" / kept).read_bytes() for kept in names] == before
    np.savez_compressed(tmp_path / "own.npz", **arrays)  # another file, the same data
    assert audit_run(tmp_path / "run")["verdict"]


def test_a_run_of_before_data_were_hashed_is_judged(copied: Path) -> None:
    facts = json.loads((copied / "scenario.json").read_text())
    assert len(facts.pop("data_sha256")) == 64
    (copied / "scenario.json").write_text(json.dumps(facts))
    assert audit_run(copied)["verdict"]


def test_a_verdict_is_not_lost_with_the_model_that_it_rests_on(copied: Path) -> None:
    (copied / "retrained.safetensors").rename(copied.parent / "kept")
    before = (copied / "audit.json").read_bytes(), (copied / "result.json").read_bytes()
    with pytest.raises(RunDirectoryError, match=r"put retrained.safetensors back, or take others: .* --full"):
        audit_run(copied)
    assert ((copied / "audit.json").read_bytes(), (copied / "result.json").read_bytes()) == before


def test_an_audit_that_fails_leaves_the_earlier_verdict(finished: Path) -> None:
    audit_run(finished)
    known = load_run(finished).result
    (finished / "audit.json").unlink()
    kept = (finished / "retrained.safetensors").read_bytes()
    (finished / "retrained.safetensors").write_bytes(b"x")
    with pytest.raises(RunDirectoryError, match=r"the audit failed: .*retrained\.safetensors") as caught:
        audit_run(finished)
    (finished / "retrained.safetensors").write_bytes(kept)
    assert "\n" not in str(caught.value)
    assert load_run(finished).result == known
