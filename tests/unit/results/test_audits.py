"""What the audit of a finished run leaves in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray import audit_run, load_run, run
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import AuditConfig, RunConfig
from fused_ray.errors import RunDirectoryError
from fused_ray.results import audits
from fused_ray.results.directory import RunDirectory


def test_an_audit_that_is_there_is_taken_with_the_seconds_that_it_took(tmp_path: Path) -> None:
    directory, settings = RunDirectory.create(tmp_path / "run", RunConfig()), AuditConfig()
    said = {"verdict": "forgotten", "sentence": "as retraining", "findings": []}
    directory.lock(0)
    about = {"settings": settings.model_dump(mode="json"), "sha256": "f00"}
    directory.write_json("audit.json", about | said | {"seconds": 12.5})

    def measure() -> Yardstick:
        raise AssertionError("it is there")

    result = {"method": "fused", "hash": {"unlearned": "f00"}, "seconds": {"unlearn": {"train": 1.0}}}
    found = audits.judged(directory, result, measure, settings)
    directory.unlock()
    assert found["verdict"] == "forgotten"
    assert found["seconds"] == {"unlearn": {"train": 1.0}, "audit": 12.5}


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
