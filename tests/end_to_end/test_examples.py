"""The scripts and the notebook of examples/ are short, compile, and do what they say when they are run."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyarrow.parquet as pq
import pytest

from fused_ray import load_run

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_LINES = 60


def cells(notebook: Path, kind: str) -> list[str]:
    """The sources of a notebook's cells of a kind, from top to bottom."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def test_there_are_three_scripts_and_a_notebook() -> None:
    assert [path.stem for path in SCRIPTS] == ["first_unlearning", "own_model_and_data", "sweep_and_front"]
    assert [path.stem for path in NOTEBOOKS] == ["first_unlearning"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_says_how_it_is_run(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    tree = ast.parse(text, script.name)
    compile(tree, script.name, "exec")
    assert f"python examples/{script.name} " in (ast.get_docstring(tree) or "")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_plain_and_its_cells_compile(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert set(content) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    for cell in content["cells"]:
        fields = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            fields |= {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, []), f"strip the outputs of {cell['id']}"
        assert set(cell) == fields
    for number, source in enumerate(cells(notebook, "code")):
        compile(source, f"{notebook.name}[{number}]", "exec")


def ran(script: str, folder: Path) -> str:
    """What a script prints, started by its path in a folder as a person would."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def forgot(result: dict[str, Any]) -> bool:
    """Whether FA falls by unlearning to where the retrained model has it, while RA stays near that of the latter."""
    before, after, retrained = (result["metrics"][when] for when in ("before", "after", "retrained"))
    return before["fa"] > 0.3 and after["fa"] <= retrained["fa"] + 0.05 and after["ra"] >= retrained["ra"] - 0.05


@pytest.mark.slow
def test_the_first_unlearning_forgets_and_comes_back(tmp_path: Path) -> None:
    printed = ran("first_unlearning.py", tmp_path)
    result = load_run(tmp_path / "runs" / "first").result
    assert forgot(result)
    assert f"verdict: {result['verdict']}" in printed
    assert "the model from before is back, bit for bit: True" in printed
    assert (tmp_path / "runs" / "first" / "forgot.safetensors").stat().st_size > 4 * 44_426


@pytest.mark.slow
def test_an_own_model_forgets_own_shapes(tmp_path: Path) -> None:
    printed = ran("own_model_and_data.py", tmp_path)
    result = load_run(tmp_path / "runs" / "own").result
    assert result["data"]["shape"] == [1, 16, 16]
    assert forgot(result)
    assert result["verdict_sentence"] in printed


@pytest.mark.slow
def test_the_sweep_shows_its_front(tmp_path: Path) -> None:
    printed = ran("sweep_and_front.py", tmp_path)
    front = pq.read_table(tmp_path / "runs" / "small-sweep" / "front.parquet")
    assert front.num_rows > 0
    assert printed.split("audited:")[0].count("RA 0.") == front.num_rows
    assert "recommended: " in printed


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_in_order(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, one after the other: what they need of Jupyter is no more than that."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(cells(notebook, "code")):
        exec(compile(source, f"{notebook.name}[{number}]", "exec"), names)
    plt.close("all")
    assert forgot(load_run("runs/notebook").result)
    assert "back, bit for bit: True" in capsys.readouterr().out
