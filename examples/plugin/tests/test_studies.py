"""Parts of another package in comparisons and sweeps: whose settings are whose, and what one that fails leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fused_ray import CompareConfig, SweepConfig, compare, load_comparison, load_sweep, resume_comparison, sweep
from fused_ray.api import Aggregate, Arrays, Federation, Method, Unlearned

TEXT = "fused_ray_plugin.text"
RIDGE = "fused_ray_plugin.methods.ridge:METHOD"
BASE: dict[str, Any] = {
    **yaml.safe_load((Path(__file__).parents[1] / "every-door.yaml").read_text()),
    "pretrain": {"rounds": 1},
    "retrain": {"rounds": 1},
    "audit": {"enabled": False},
    "engine": {"backend": "local"},
    "output": {"plots": "none"},
}


def fail(federation: Federation, base: Arrays) -> Unlearned:
    """A method with a mistake in it."""
    raise KeyError("no such\nthing")


def lose(updates: Any, examples: Any, settings: None) -> Any:
    """An aggregate with one."""
    raise KeyError("no such thing")


FAILS, LOSES = Method(fail), Aggregate(lose)
FAILED = "KeyError: 'no such\\nthing'"


AUTHOR = {"label": "author", "set": {"forget.scenario": f"{TEXT}.author:SCENARIO"}}


def comparison(*methods: Any, scenarios: tuple[Any, ...] = (AUTHOR,), path: Path = Path("c")) -> CompareConfig:
    values = {"base": BASE, "methods": methods, "scenarios": scenarios, "audit": False, "output": {"dir": str(path)}}
    return CompareConfig.from_dict(values)


def test_settings_of_the_base_are_those_of_its_own_method_and_scenario() -> None:
    weak = {"label": "weak", "set": {"unlearn.args.strength": 10}}
    again = {"label": "again", "set": {"unlearn.method": RIDGE}}
    config = comparison("finetune", weak, again, scenarios=(AUTHOR, "class"))
    args = {cell.name: (cell.config.unlearn.args, cell.config.forget.args) for cell in config.cells if cell.config}
    assert args == {
        "author-0-finetune": ({}, {"author": 2}),
        "author-0-weak": ({"strength": 10}, {"author": 2}),
        "author-0-again": ({"strength": 0.1}, {"author": 2}),
        "class-0-finetune": ({}, {}),
        "class-0-weak": ({"strength": 10}, {}),
        "class-0-again": ({"strength": 0.1}, {}),
    }
    assert {str(cell.base.unlearn.args) for cell in config.cells} == {"{}"}


def test_so_they_are_in_a_sweep() -> None:
    space = {"unlearn.method": {"grid": [RIDGE, "finetune"]}, "data.partition": {"grid": [f"{TEXT}.sources:PARTITION"]}}
    trials = SweepConfig.from_dict({"base": BASE, "space": space}).trials
    assert [trial.config.unlearn.args for trial in trials if trial.config] == [{"strength": 0.1}, {}]
    assert len(trials) == 2


def test_a_method_that_raises_is_one_row_of_a_comparison(tmp_path: Path) -> None:
    methods = ({"label": "bad", "set": {"unlearn.method": f"{__name__}:FAILS"}}, "finetune")
    config = comparison(*methods, path=tmp_path / "c")
    for result in (compare(config), resume_comparison(tmp_path / "c")):
        assert (result["done"], result["failed"]) == (1, 1)
        status = {row["method"]: row["status"] for row in load_comparison(tmp_path / "c").rows}
        assert status["finetune"] == "done"
        assert status["bad"].startswith(f"failed: unlearn.method: {__name__}:FAILS raised {FAILED} (")


@pytest.mark.parametrize("where", ["unlearn.method", "federation.aggregate"])
def test_and_of_a_sweep(tmp_path: Path, where: str) -> None:
    """In the trial itself, or in the model that it begins with."""
    good = {"unlearn.method": "finetune", "federation.aggregate": "mean"}[where]
    bad = {"unlearn.method": f"{__name__}:FAILS", "federation.aggregate": f"{__name__}:LOSES"}[where]
    base = {**BASE, "federation": {"clients": 4}, "unlearn": {"method": "finetune", "rounds": 1}}
    output = {"dir": str(tmp_path / "s"), "plots": "none"}
    values = {"base": base, "space": {where: {"grid": [bad, good]}}, "output": output}
    sweep(SweepConfig.from_dict(values))
    status = [row["status"] for row in load_sweep(tmp_path / "s").rows]
    assert status[0].startswith("failed: ")
    assert "KeyError" in status[0]
    assert "\n" not in status[0]
    assert status[-1] == "done"
