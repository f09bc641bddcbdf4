"""What a shell completes: presets, and behind `--set` the fields of a configuration and what they may be.

The shell calls the program itself for it, with what was typed in variables, as typer's scripts do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, MutableMapping

import typer

from fused_ray.config import describe
from fused_ray.config.parts.models import MODEL
from fused_ray.config.preset import presets
from fused_ray.config.settings import PARTS

ASKED = "_FUSED_RAY_COMPLETE"
"""The variable that says that a shell asks, and which."""
_BEHIND = "_FUSED_RAY_COMPLETE_BEHIND"
"""The variable that holds what bash took off the word that is to be completed, `KEY=`."""
_STUDIES = {"sweep", "compare", "scale", "plan"}
"""Commands whose configurations have a run's below `base`."""
_TYPES = {"int", "float", "str", "bool", "mapping"}


def of_presets(*kinds: str) -> Callable[[str], list[str]]:
    """Completes the names of presets of some kinds."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in presets(*kinds) if name.startswith(incomplete)]

    return complete


def of_settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completes KEY=VALUE: first the field, then what it may be, as far as that is known."""
    behind, words = os.environ.get(_BEHIND, ""), set(ctx.command_path.split())
    prefix = "base." if words & _STUDIES else ""
    only = "audit." if "audit" in words else ""
    fields = {prefix + key: about for key, *about, _ in describe() if key.startswith(only)}
    field, equals, _ = (whole := behind + incomplete).partition("=")
    near = [name for name in fields if (name == field if equals else name.startswith(field))]
    if len(near) != 1:
        return near
    (name,) = near
    found = [f"{name}={value}" for value in _values(name.removeprefix(prefix), *fields[name])] or [f"{name}="]
    return [text.removeprefix(behind) for text in found if text.startswith(whole)]


def _values(key: str, kind: str, default: str) -> Iterator[str]:
    """What a field may be: the names that are known, else its default."""
    if (door := MODEL if key == "model.name" else PARTS.get(key)) is not None:
        yield from door.names
    elif kind == "bool":
        yield from ("true", "false")
    elif words := [word for word in kind.split(" | ") if word not in _TYPES and " " not in word]:
        yield from words
    elif isinstance(value := json.loads(default), int | float | str):
        yield str(value)


def glue(environment: MutableMapping[str, str]) -> None:
    """bash takes words apart at `=` and wants the last part alone: leave that, and keep what stands before it."""
    if not environment.get(ASKED, "").endswith("complete_bash"):
        return
    words, at = environment["COMP_WORDS"].split("\n"), int(environment["COMP_CWORD"])
    kept: list[str] = []
    behind, cut = "", False
    for word in words[: at + 1]:
        if word == "=" and kept:
            behind, cut = ("" if kept[-1].startswith("-") else f"{kept.pop()}="), True
        else:
            behind, cut = (behind if cut else ""), False
            kept.append(word)
    kept += [""] if cut else []
    environment.update({"COMP_WORDS": "\n".join(kept), "COMP_CWORD": str(len(kept) - 1), _BEHIND: behind})
