"""What docs/commands.md says of all commands: --json, exit codes, completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fused_ray.cli.app import app, main
from fused_ray.cli.options import RUNS_FAILED
from fused_ray.errors import FusedRayError, Interrupted
from fused_ray.stopping import TERMINATED
from tests.pages import results

ROOT = Path(__file__).parents[3]
OLD = ROOT / "tests" / "unit" / "runs"
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
NO_FIGURES = {"init", "report", "watch"}
"""Commands that print no figures."""


def commands() -> Iterator[tuple[str, Any]]:
    """All of them, by what is typed."""
    whole: Any = typer.main.get_command(app)
    for name, command in whole.commands.items():
        for inner, each in getattr(command, "commands", {"": command}).items():
            yield f"{name} {inner}".strip(), each


def ended(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


# -- JSON


def test_every_command_that_prints_figures_takes_json() -> None:
    without = {name for name, command in commands() if not any("--json" in option.opts for option in command.params)}
    assert without == NO_FIGURES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every kind, and a sweep's file; nobody changes them."""
    tmp_path = tmp_path_factory.mktemp("results")
    shutil.copytree(OLD / "old_run", tmp_path / "run")
    shutil.copytree(OLD / "old_run", tmp_path / "half")
    (tmp_path / "half" / "result.json").unlink()
    results.comparison(tmp_path / "compared")
    results.sweep(tmp_path / "swept")
    results.scaling(tmp_path / "scaled")
    (tmp_path / "sweep.yaml").write_text("space: {unlearn.layers: {grid: [1, 2]}}")
    return tmp_path


FEW = ("--set", "data.limit=200", "--set", "federation.clients=3")
PRINTED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "show": (("show", "run"), {"verdict": "damaged"}),
    "show of an unfinished run": (
        ("show", "half"),
        {"finished": False, "reached": {"phase": "retrain", "round": 1}},
    ),
    "show of a comparison": (("compare", "show", "compared"), {"cells": 6, "failed": 0}),
    "show of an unfinished sweep": (("show", "swept"), {"finished": False, "done": 4, "count": 4}),
    "show of an unfinished scaling study": (("scale", "show", "scaled"), {"finished": False, "done": 4, "count": 12}),
    "diff": (("diff", "run", "half"), {"kind": "run", "configuration": {}, "unfinished": ["half"]}),
    "clean": (("clean", "run"), {"deleted": False, "bytes": 0, "lost": {}}),
    "restore": (("restore", "run"), {"model": "M_r", "out": None}),
    "apply": (("apply", "run", "--out", "model.safetensors"), {"model": "M_f", "out": "model.safetensors"}),
    "plan": (("plan", "sweep.yaml", "--no-time"), {"count": 2, "search": "grid", "estimate": None}),
    "plan --cluster": (("plan", "--cluster", "1x2c,1x1c", *FEW), {"clients": 3}),
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed_is_one_document(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = PRINTED[name]
    monkeypatch.chdir(folder)
    assert ended(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    for key, value in expected.items():
        found = [os.path.relpath(path) for path in told[key]] if key == "unfinished" else told[key]
        assert found == value, key


def test_the_documents_have_the_figures_that_are_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)

    def told(*words: str) -> Any:
        assert ended(*words, "--json") == 0
        return json.loads(capsys.readouterr().out)

    assert [(row["state"], row["kind"]) for row in told("ls", ".")] == [
        ("done", "comparison"), ("interrupted", "run"), ("done", "run"), ("not started", "scaling-study"),
        ("not started", "sweep"),
    ]  # fmt: skip
    who = told("data", *FEW)
    assert sum(row["examples"] for row in who["clients"]) == 200
    assert len(who["classes"]) == len(who["clients"][0]["counts"]) == 10
    placed = told("plan", "--cluster", "1x2c,1x1c", *FEW)
    assert [node["cpus"] for node in placed["nodes"]] == [2, 1]
    assert sum(node["actors"] for node in placed["nodes"]) == placed["actors"] > 0
    planned = told("plan", "sweep.yaml", "--no-time")
    assert [trial["values"] for trial in planned["trials"]] == [{"unlearn.layers": 1}, {"unlearn.layers": 2}]
    assert planned["models"]["to_make"] == 2
    restored = told("restore", "run")["sha256"]
    assert restored == json.loads((folder / "run" / "result.json").read_text())["hash"]["base"]


# -- exit codes


def test_the_documented_exit_codes_are_the_real_ones() -> None:
    table = PAGE.partition("| exit code |")[2]
    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert documented == [0, 1, FusedRayError.exit_code, RUNS_FAILED, Interrupted.exit_code, TERMINATED]


def test_mistakes_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3, 130 and 143 take a study or a signal: tests/end_to_end has them."""
    assert ended("ls", OLD) == 0
    assert ended("ls", tmp_path / "none") == 2
    assert ended("ls", "--none") == 2
    assert ended("none") == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.slow
def test_a_fault_of_the_program_is_a_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "safetensors"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('a broken installation')")
    words = [sys.executable, "-m", "fused_ray", "diff", OLD / "old_run", OLD / "old_run"]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


# -- completion


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("fused-ray cl", ["clean"]),
        ("fused-ray run --preset ", ["deep", "paper"]),
        ("fused-ray run --preset = d", ["deep"]),
        ("fused-ray compare --preset paper-", ["paper-fashion-mnist"]),
        ("fused-ray sweep ", ["start", "show"]),
        ("fused-ray sweep --pre", ["--preset"]),
        ("fused-ray run --set unlearn.mask", ["unlearn.mask", "unlearn.mask_args"]),
        (
            "fused-ray run --set unlearn.wi",
            [f"unlearn.wire={name}" for name in ("float32", "float16", "bfloat16", "int8")],
        ),
        ("fused-ray run --set unlearn.method = fedq", ["fedquit"]),
        ("fused-ray run --set = unlearn.method = fedq", ["fedquit"]),
        ("fused-ray run my.yaml --set seed = 1 --set pretrain.history =", ["true", "false"]),
        ("fused-ray run --set nonsense", []),
        ("fused-ray sweep my.yaml --set base.unlearn.rou", ["base.unlearn.rounds=5"]),
        ("fused-ray audit runs/demo --set audit.sw", ["audit.swap=0"]),
    ],
)
def test_bash_is_offered_what_may_come(
    typed: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words are as bash takes them apart, at `=` too; what it is offered replaces the last of them alone."""
    words = typed.split(" ")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_FUSED_RAY_COMPLETE_BEHIND", "")
    monkeypatch.setenv("_FUSED_RAY_COMPLETE", "complete_bash")
    assert ended() == 0
    assert capsys.readouterr().out.split() == offered


def test_other_shells_are_offered_whole_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "fused-ray run --set unlearn.method=fedq")
    monkeypatch.setenv("_FUSED_RAY_COMPLETE", "complete_zsh")
    assert ended() == 0
    assert '"unlearn.method=fedquit"' in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_bash_completes_by_the_script_that_the_program_prints(tmp_path: Path) -> None:
    program = tmp_path / "fused-ray"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fused_ray "$@"\n')
    program.chmod(0o755)
    script = (
        "source <(fused-ray --show-completion bash); COMP_WORDS=(fused-ray run --set unlearn.method = fedq)\n"
        'COMP_CWORD=5; _fused_ray_completion fused-ray; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("fedquit\n", "")


@pytest.mark.slow
def test_a_shells_own_file_is_told_where_the_script_is(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = f"{sys.executable} -m fused_ray --install-completion; true"  # whose child it is tells which shell it is
    done = subprocess.run(["bash", "-c", words], env=environment, capture_output=True, text=True, check=True)
    assert "bash completion installed" in done.stdout, done.stderr
    assert "fused-ray.sh" in (tmp_path / ".bashrc").read_text()
