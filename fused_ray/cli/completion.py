"""What a shell completes: presets, and behind `--set` the fields of a configuration and what they may be.

The shell calls the program itself for it, with what was typed in variables, as typer's scripts do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from fused_ray.config import describe
from fused_ray.config.parts.models import MODEL
from fused_ray.config.preset import presets
from fused_ray.config.settings import PARTS

ASKED = "_FUSED_RAY_COMPLETE"
"""The variable that says that a shell asks, and which."""
_STUDIES = {"sweep", "compare", "scale", "plan"}
"""Commands whose configurations have a run's below `base`."""
_TYPES = {"int", "float", "str", "bool", "mapping"}
Complete = Callable[[Any, Any, str], list[str]]


def of_presets(*kinds: str) -> Complete:
    """Completes the names of presets of some kinds."""

    def complete(ctx: Any, param: Any, incomplete: str) -> list[str]:
        return [name for name in presets(*kinds) if name.startswith(incomplete)]

    return complete


def settings(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Completes KEY=VALUE: first the field, then what it may be, as far as that is known."""
    words = set(ctx.command_path.split())
    prefix = "base." if words & _STUDIES else ""
    only = "audit." if "audit" in words else ""
    fields = {prefix + key: about for key, *about, _ in describe() if key.startswith(only)}
    field, equals, _ = incomplete.partition("=")
    near = [name for name in fields if (name == field if equals else name.startswith(field))]
    if len(near) != 1:
        return near
    (name,) = near
    found = [f"{name}={value}" for value in _values(name.removeprefix(prefix), *fields[name])] or [f"{name}="]
    shown = incomplete.rpartition("=")[0] + "=" if equals and _of_bash(os.environ) else ""
    return [text.removeprefix(shown) for text in found if text.startswith(incomplete)]


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
    """bash takes KEY=VALUE apart at the `=`: put the words together again, where it is bash that asks."""
    if not _of_bash(environment):
        return
    words, at = environment["COMP_WORDS"].split("\n"), int(environment["COMP_CWORD"])
    whole: list[str] = []
    place = 0
    for number, word in enumerate(words):
        if whole and (word == "=" or whole[-1].endswith("=")) and whole[-1] != "=":
            whole[-1] += word
        else:
            whole.append(word)
        if number == at:
            place = len(whole) - 1
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join(whole), str(place)


def _of_bash(environment: MutableMapping[str, str]) -> bool:
    return environment.get(ASKED, "").endswith("complete_bash")
