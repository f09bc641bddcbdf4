"""A part at every door in one run, and that no door is without one."""

from __future__ import annotations

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

import fused_ray.config.parts
from fused_ray import RunConfig, load_run, run
from fused_ray.config.parts import door

PLUGIN = Path(__file__).parents[1]
SMALL = ("pretrain.rounds=2", "retrain.rounds=2", "audit.relearn_steps=2", "audit.relearn_repeats=1")


def registered() -> dict[str, dict[str, str]]:
    """The entry points by group."""
    text = (PLUGIN / "pyproject.toml").read_text()
    tables = re.findall(r'^\[project\.entry-points\."(.+?)"\]\n((?:.+\n)+)', text, re.MULTILINE)
    return {group: dict(re.findall(r'^(\S+) = "(.+)"', lines, re.MULTILINE)) for group, lines in tables}


def doors() -> dict[str, door.Door[object]]:
    """Every door of the package by its group."""
    modules = [path.stem for path in Path(fused_ray.config.parts.__file__).parent.glob("[!_]*.py")]
    found = [vars(import_module(f"fused_ray.config.parts.{name}")).values() for name in modules]
    return {each.group: each for names in found for each in names if isinstance(each, door.Door)}


def test_no_door_is_without_a_part() -> None:
    assert set(registered()) == set(doors())
    for group, named in registered().items():
        for place in named.values():
            if group == "fused_ray.models":  # of which only the place is asked for
                assert callable(door.imported(place))
            else:
                doors()[group].find(place)


def code(file: Path) -> int:
    """Lines of a file that are code, without imports and docstrings."""
    text = file.read_text()
    without = {0}
    for node in ast.walk(ast.parse(text)):
        plain = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if plain or isinstance(node, ast.Import | ast.ImportFrom):
            without.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") for n, line in lines if n not in without)


@pytest.mark.parametrize("file", sorted((PLUGIN / "fused_ray_plugin").rglob("*.py")), ids=lambda file: file.stem)
def test_a_part_is_forty_lines_at_most(file: Path) -> None:
    assert code(file) <= 40


def test_all_of_them_in_one_run(tmp_path: Path) -> None:
    small = (*SMALL, "engine.backend=local", "output.plots=none", f"output.dir={tmp_path / 'run'}")
    config = RunConfig.from_yaml(PLUGIN / "every-door.yaml", small)
    assert len(config.outside) == 9
    result = run(config)
    assert result["method"] == "fused_ray_plugin.methods.ridge:METHOD"
    assert [figure["name"] for figure in result["audit_metrics"]] == ["ece_after", "ece_retrained"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    phases = [row["phase"] for row in load_run(tmp_path / "run").rounds.to_pylist()]
    assert phases == ["pretrain", "pretrain", "gram", "retrain", "retrain"]
    assert [line.get("phase") for line in lines] == [*phases, None]


@pytest.mark.parametrize("field", ["unlearn.method=fused", "model.factory=null", "data.partition_args={colum: x}"])
def test_what_does_not_fit_the_others_is_one_line(field: str) -> None:
    with pytest.raises(fused_ray.FusedRayError) as caught:
        RunConfig.from_yaml(PLUGIN / "every-door.yaml", [field])
    assert "\n" not in str(caught.value)
