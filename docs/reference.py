"""Writes docs/reference/, what fields, commands and the Python interface there are: python docs/reference.py"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

import fused_ray
import fused_ray.api
from fused_ray.cli.app import app, main
from fused_ray.config import RunConfig, describe
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.handles import AdapterHandle
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory

FOLDER = Path(__file__).parent / "reference"
MADE = "Made by `docs/reference.py` from the code."
STUDIES = {"A comparison": CompareConfig, "A sweep": SweepConfig, "A scaling study": ScaleConfig}
EXAMPLES = ("first_unlearning", "own_model_and_data", "sweep_and_front")
ALIASES = {"Arrays": "fused_ray.core.state", "On": "fused_ray.types"}
"""Names of `fused_ray.api` that stand for a type, and where they are made."""
READING = ("config", "result", "rounds", "clients", "held", "verdict", "constants", "model", "adapter", "table")
"""What a run's directory has for people; the rest of it is for the program."""


def cell(text: object) -> str:
    """Text in a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return ["", *("| " + " | ".join(map(str, line)) + " |" for line in lines), ""]


def fields(model: type[Any], section: str = "") -> list[str]:
    """The fields of one section, or those outside of any."""
    rows = [
        (f"`{key.rpartition('.')[2]}`", cell(kind), f"`{cell(default)}`" if default else "", cell(doc))
        for key, kind, default, doc in describe(model)
        if key.rpartition(".")[0] == section
    ]
    return table(("field", "type", "default", "meaning"), rows)


def configuration() -> Iterator[str]:
    """Every field of a run and of the three studies."""
    yield from ("# Every field", "", f"{MADE} `fused-ray init` writes the same as a file.", "")
    yield "In a file `unlearn: {rounds: 10}`; on the command line `--set unlearn.rounds=10`."
    yield "[What a file may say](../configurations.md) has the rules, [extend](../extend.md) parts of your own."
    yield from ("", "## A run", *fields(RunConfig))
    for name, field in RunConfig.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from (f"## {name}", "", str(field.annotation.__doc__), *fields(RunConfig, name))
    for title, model in STUDIES.items():
        yield from (f"## {title}", "", str(model.__doc__), *fields(model))
        for name in dict.fromkeys(key.partition(".")[0] for key, *_ in describe(model) if "." in key):
            yield from (f"`{name}` of it:", *fields(model, name))


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield from ("# Commands", "", f"{MADE} A first one: `fused-ray run examples/demo.yaml`.", "")
    yield from (inspect.getdoc(main) or "").splitlines()[2:]
    group: Any = typer.main.get_command(app)
    yield from ("", "Before any command:", *options(group))
    for name, command in group.commands.items():
        yield from (f"## fused-ray {name}", "")
        if not hasattr(command, "commands"):
            yield from (command.help, *options(command))
            continue
        yield from (command.help, "")
        for own, part in command.commands.items():
            yield from (part.help if own == "start" else f"**{name} {own}**: {part.help}", *options(part))


def options(command: Any) -> list[str]:
    """The arguments and options of a command."""
    rows = []
    for given in command.params:
        name = given.name.upper() if given.param_type_name == "argument" else ", ".join(given.opts)
        metavar = f" {given.metavar}" if given.metavar and given.param_type_name == "option" else ""
        needed = "needed" if given.required else "" if given.default in (None, False) else f"`{given.default}`"
        rows.append((f"`{name}{metavar}`", cell(given.help), needed))
    return table(("argument", "meaning", "default"), rows)


def python() -> Iterator[str]:
    """The package's functions, what they return, and the doors for parts of your own."""
    examples = ", ".join(f"[{name}](../../examples/{name}.py)" for name in EXAMPLES)
    yield from ("# Python", "", f"{MADE} Three scripts to begin with: {examples}.", "")
    public = {name: found for name, found in vars(fused_ray).items() if is_public(name, found)}
    yield from ("## fused_ray", "")
    yield "`from fused_ray import RunConfig, run`. Configurations are under [every field](configuration.md)."
    for name, found in public.items():
        if inspect.isfunction(found):
            yield from function(name, found)
    yield from ("", f"### FusedRayError\n\n{fused_ray.FusedRayError.__doc__}", "")
    yield from ("## What a run's folder gives", "", "`load_run` returns it.")
    yield from members(RunDirectory, READING)
    yield from ("", "`.adapter` is", "", *members(AdapterHandle, ("apply", "remove", "values", "base")))
    yield from ("", "## What a study's folder gives", "")
    for loads, kind in {
        "load_comparison": ComparisonDirectory,
        "load_sweep": SweepDirectory,
        "load_scale": ScalingDirectory,
    }.items():
        yield f"- `{loads}`: `.config`, `.result` (what result.json holds), `.table` (`{kind.TABLE}`)."
    yield from ("", "## fused_ray.api", "", inspect.getdoc(fused_ray.api) or "", "")
    for name, found in sorted(vars(fused_ray.api).items()):
        if is_public(name, found):
            yield from function(name, found) if inspect.isfunction(found) else a_class(name, found)


def is_public(name: str, found: Any) -> bool:
    """Whether a name of a module is one that people use."""
    return name in ALIASES or (not name.startswith("_") and (inspect.isfunction(found) or inspect.isclass(found)))


def function(name: str, found: Any) -> list[str]:
    """A function with its signature and docstring."""
    return ["", f"### {name}", "", f"`{name}{signature(found)}`", "", inspect.getdoc(found) or ""]


def signature(found: Any) -> str:
    """As it is written in the code; annotations are text there."""
    words, star = [], False
    for given in inspect.signature(found).parameters.values():
        if given.kind is given.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        mark = {given.VAR_KEYWORD: "**", given.VAR_POSITIONAL: "*"}.get(given.kind, "")
        default = (
            "" if given.default is given.empty else " = ..." if callable(given.default) else f" = {given.default!r}"
        )
        words.append(f"{mark}{given.name}: {given.annotation}{default}")
    return f"({', '.join(words)}) -> {found.__annotations__.get('return', 'Any')}"


def a_class(name: str, found: Any) -> list[str]:
    """A class with its docstring, its fields and its own methods."""
    if name in ALIASES:
        return ["", f"### {name}", "", f"`{meaning(name)}`"]
    own = vars(found).get("__doc__") or ""
    lines = ["", f"### {name}", "", inspect.cleandoc(own)]
    names = [key for key in vars(found) if not key.startswith("_") and key != "model_config"]
    told = attributes(found)
    names += [key for key in told if key not in names]
    return [*lines, "", *members(found, sorted(names, key=[*told, *names].index))]


def meaning(name: str) -> str:
    """The type that a name stands for, as it is written in the code."""
    source = inspect.getsource(importlib.import_module(ALIASES[name]))
    (made,) = [
        node for node in ast.parse(source).body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.unparse(made.value)


def members(found: Any, names: Iterable[str]) -> list[str]:
    """A line for each of a class's methods, properties and fields."""
    lines, told = [""], attributes(found)
    for name in names:
        part = inspect.getattr_static(found, name, None)
        if isinstance(part, (staticmethod, classmethod)):
            part = part.__func__
        if name in told:
            kind, doc = told[name]
            shown = f"{name}: {kind}"
        elif inspect.isfunction(part):
            own = re.sub(r"[(](self|cls): <[^>]*>(, )?", "(", signature(part))
            shown, doc = f"{name}{own}", inspect.getdoc(part)
        elif isinstance(part, property):
            returned = part.fget.__annotations__.get("return") if part.fget else None
            shown, doc = f"{name}: {returned or 'Any'}", part.__doc__
        else:
            continue
        text = " ".join((doc or "").split())
        lines.append(f"- `{shown}`" + (f": {text}" if text else ""))
    return lines if len(lines) > 1 else []


def attributes(found: Any) -> dict[str, tuple[str, str]]:
    """Type and docstring of each field that stands in a class, as they are written there."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    assert isinstance(node, ast.ClassDef)
    told = {}
    for statement, behind in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            doc = ""
            if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
                doc = str(behind.value.value)
            told[statement.target.id] = (ast.unparse(statement.annotation), doc)
    return {name: about for name, about in told.items() if not name.startswith("_")}


PAGES = {"configuration.md": configuration, "commands.md": commands, "python.md": python}


def page(name: str) -> str:
    """The text of one page."""
    text = "\n".join(PAGES[name]())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in PAGES:
        (FOLDER / name).write_text(page(name), encoding="utf-8")
