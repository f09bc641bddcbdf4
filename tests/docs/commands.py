"""Checks of a command without running it: its options, the fields it sets and the files it names are real."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from fused_ray import CompareConfig, RunConfig, ScaleConfig, SweepConfig
from fused_ray.cli.app import app
from fused_ray.config import describe
from tests.docs.blocks import ROOT

_CONFIGURATIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "run": lambda given: RunConfig.from_yaml(given["config"], given["set_"] or [], given["preset"]),
    "data": lambda given: RunConfig.from_yaml(given["config"], given["set_"] or []),
    "plan": lambda given: (RunConfig if given["cluster"] else SweepConfig).from_yaml(
        given["config"], given["set_"] or [], given["preset"]
    ),
    "sweep": lambda given: SweepConfig.from_yaml(given["config"], given["set_"] or [], given["preset"]),
    "compare": lambda given: CompareConfig.from_yaml(
        given["config"], given["set_"] or [], given["quick"], given["preset"]
    ),
    "scale": lambda given: ScaleConfig.from_yaml(given["config"], given["set_"] or []),
}


def check(words: list[str]) -> None:
    """Raises an error that says what is wrong with the command; relative paths count from the current folder."""
    program, *arguments = words
    for word in arguments:
        if (ROOT / word.split("/")[0]).exists() and not word.startswith(("runs", ".")):
            assert (ROOT / word).exists(), f"there is no {word}"
    checks = {"fused-ray": _fused_ray, "make": _make, "python": _python, "ray": _ray, "sbatch": _sbatch}
    program = program.removesuffix("3")
    if program in checks:
        checks[program](arguments)


def _fused_ray(arguments: list[str]) -> None:
    name, *rest = arguments
    command: Any = typer.main.get_command(app)
    if name.startswith("-"):
        assert not rest
        assert any(name in option.opts for option in command.params), f"fused-ray has no option {name}"
        return
    assert name in command.commands, f"fused-ray has no command {name}"
    command = command.commands[name]
    if hasattr(command, "commands"):
        command = command.commands[rest.pop(0) if rest and rest[0] in command.commands else "start"]
    if not rest:
        return  # the text only names the command
    given = command.make_context(name, rest).params
    if name in _CONFIGURATIONS and "config" in given and not given.get("resume"):
        _CONFIGURATIONS[name](given)


def _make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    variables = re.findall(r"^([A-Z_]+) *\?=", makefile, re.MULTILINE)
    for word in arguments:
        name, assigns, _ = word.partition("=")
        assert name in (variables if assigns else targets), f"make knows no {name}"


def _python(arguments: list[str]) -> None:
    script, *rest = arguments
    if not rest and script.startswith(("benchmarks/", "examples/")):
        return  # the text only names the script; that it is there has been looked at
    if script == "cluster/job.py":
        _fused_ray(rest)
    elif script.startswith("benchmarks/"):
        _benchmark(script, rest)
    elif script.startswith("examples/"):
        return  # in an environment of its own
    else:
        assert arguments == ["-m", "venv", ".venv"], arguments


class _Parsed(Exception):
    """Ends a program as soon as its arguments are parsed; holds them."""


def _benchmark(script: str, arguments: list[str]) -> None:
    """By the script's own parser, with its `--set` and `--unlearn`."""
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise _Parsed(parse(self, args, namespace))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        patch.setattr(sys, "argv", [script, *arguments])
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        with pytest.raises(_Parsed) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    (given,) = ended.value.args
    fields = {key for key, *_ in describe()}
    for setting in [*getattr(given, "set", []), *getattr(given, "unlearn", [])]:
        assert setting.partition("=")[0] in fields, f"{script}: no field {setting}"


def _ray(arguments: list[str]) -> None:
    """By Ray's own parser, which is not public; there is no other way to ask it."""
    from ray.scripts.scripts import cli

    command, rest = cli, list(arguments)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        command = command.commands[name]
    command.make_context(name, list(rest))
    if "--" in rest:
        job = [word.removeprefix("fused_ray_src/") for word in rest[rest.index("--") + 1 :]]  # as local.yaml names it
        check(job if job[0] == "python" else ["fused-ray", *job])


def _sbatch(arguments: list[str]) -> None:
    check(["fused-ray", *arguments[arguments.index("cluster/slurm.sh") + 1 :]])
