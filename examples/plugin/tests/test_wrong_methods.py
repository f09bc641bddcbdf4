"""What is wrong with a method of another package is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray import CompareConfig, RunConfig, SweepConfig, compare, load_comparison, resume_comparison, run
from fused_ray.api import Method
from fused_ray.errors import ConfigError, FusedRayError
from fused_ray.studies.sweeps.plan import show_plan

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


PARTS = """
import torch
from fused_ray.api import AdapterKind, Aggregate, Method, Schedule, Selection
def fail(*given):
    return {}["wanted"]
def late(done, rounds, settings):
    return 1.0 if done < 1 else fail()
class Odd(torch.nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(784, classes))
    def forward(self, x):
        return fail() if self.training and torch.is_grad_enabled() and len(x) == 5 else super().forward(x)
METHOD, AGGREGATE = Method(fail, rounds=None, phases=lambda config: {}), Aggregate(fail)
SCHEDULE, KIND = Schedule(late), AdapterKind(fail, load=fail)
"""
"""Parts that raise once they are at work; `fail` is in line 5."""


@pytest.mark.parametrize(
    "fields",
    [
        ["unlearn.method=PLACE:METHOD"],
        ["federation.aggregate=PLACE:AGGREGATE"],
        ["train.schedule=PLACE:SCHEDULE", "pretrain.rounds=2"],
        ["unlearn.adapter=PLACE:KIND"],
        ["model.factory=PLACE:Odd", "unlearn.layers=['1']", "train.batch_size=5"],
    ],
    ids=lambda fields: fields[0].partition("=")[0],
)
@pytest.mark.parametrize("package", [False, True])
def test_a_part_that_raises_in_a_run_is_named_with_its_line(
    fields: list[str], package: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{'in_package' if package else 'in_module'}_{fields[0].partition('=')[0].replace('.', '_')}"
    file = tmp_path / (f"{name}/parts.py" if package else f"{name}.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(PARTS)
    if package:
        (file.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    place = f"{name}.parts" if package else name
    given = [*SMALL, "train.batch_size=32", *(field.replace("PLACE", place) for field in fields)]
    with pytest.raises(FusedRayError) as caught:
        run(RunConfig.from_dict({}, [*given, f"output.dir={tmp_path / 'run'}"]))
    part = fields[0].replace("PLACE", place).replace("=", ": ")
    told = f"{part} raised KeyError: 'wanted' ({file}, line 5)"
    assert str(caught.value).partition("; continue with")[0] == told


def test_a_part_that_raises_in_a_plan_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "in_plan.py"
    file.write_text(PARTS + "SELECTION = Selection(fail)\n")
    monkeypatch.syspath_prepend(tmp_path)
    base = RunConfig.from_dict({}, [*SMALL, "unlearn.selection=in_plan:SELECTION"]).model_dump(mode="json")
    sweep = SweepConfig.from_dict({"base": base, "space": {"unlearn.rounds": {"grid": [1, 2]}}})
    with pytest.raises(FusedRayError) as caught:
        show_plan(sweep, timed=False)
    assert str(caught.value) == f"unlearn.selection: in_plan:SELECTION raised KeyError: 'wanted' ({file}, line 5)"


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
