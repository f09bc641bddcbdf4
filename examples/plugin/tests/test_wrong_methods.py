"""What is wrong with a method of another package is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray import CompareConfig, RunConfig, compare, load_comparison, resume_comparison, run
from fused_ray.api import Method
from fused_ray.errors import ConfigError

SMALL = [
    *("data.limit=300", "federation.clients=3", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1"),
    *("unlearn.layers=1", "audit.enabled=false", "output.plots=none", "engine.backend=local"),
]


def nothing(federation, base):
    """Forgets its outcome."""


def leave(federation, base):
    """Ends the process, as code from a script may."""
    raise SystemExit(3)


def _no_phases(config):
    raise KeyError("rounds")


NONE = Method(nothing, rounds=None, phases=lambda config: {})
LEAVES = Method(leave, rounds=None, phases=lambda config: {})
RAISES = Method(nothing, rounds=None, phases=_no_phases)
HALF = Method(nothing, rounds=None, phases=lambda config: {"unlearn": 0.5})


@pytest.mark.parametrize(
    ("name", "told"), [("RAISES", "cannot tell its phases: KeyError: 'rounds'"), ("HALF", "'unlearn' has 0.5 rounds")]
)
def test_phases_are_asked_for_before_anything_starts(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RunConfig.from_dict({}, [*SMALL, f"unlearn.method={__name__}:{name}"])


def test_a_method_returns_what_became_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gave NoneType; a method returns Unlearned"):
        run(RunConfig.from_dict({}, [*SMALL, f"unlearn.method={__name__}:NONE", f"output.dir={tmp_path / 'run'}"]))


def test_one_that_ends_the_process_is_one_row_and_a_damaged_folder_stops_nobody(tmp_path: Path) -> None:
    methods = [{"label": "leaves", "set": {"unlearn.method": f"{__name__}:LEAVES"}}, "finetune", "not"]
    base = RunConfig.from_dict({}, SMALL).model_dump(mode="json", by_alias=True)
    path = tmp_path / "compare"
    asked = {"base": base, "methods": methods, "scenarios": ["class"], "audit": False, "output": {"dir": str(path)}}
    compare(CompareConfig.from_dict(asked))
    assert [row["status"] for row in load_comparison(path).rows] == ["failed: SystemExit: 3", "done", "done"]
    (path / "cells" / "class-0-not" / "environment.json").unlink()
    resume_comparison(path)
    assert [row["status"][:6] for row in load_comparison(path).rows] == ["failed", "done", "done"]
