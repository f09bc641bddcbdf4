"""What the audit of a finished run leaves in its folder."""

from __future__ import annotations

from pathlib import Path

from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import AuditConfig, RunConfig
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
