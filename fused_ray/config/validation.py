"""From nested values and `dotted.key=value` overrides to a validated model, or to one line that says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError

from fused_ray.config.older_names import renamed
from fused_ray.config.suggest import did_you_mean
from fused_ray.config.yaml_text import parsed, plain
from fused_ray.errors import ConfigError, FusedRayError

Config = TypeVar("Config", bound=BaseModel)

TOLD = "older names"
"""The context of values that come by way of a file or a mapping: of older names in them, who reads it tells."""
_KEYED = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*: ")
"""How the message of a check between fields begins: with the field that it blames."""


def validated(
    model: type[Config], values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = ""
) -> Config:
    """A configuration of some kind from nested values plus `dotted.key=value` overrides.

    Raises ConfigError in one line that names every wrong key and, if given, the source of the values.
    """
    merged = nested(values, overrides, source)
    try:
        return model.model_validate(merged, context=TOLD)
    except ValidationError as error:
        place = f"{source}: " if source else ""
        raise ConfigError(place + mistakes(model, error)) from None


def nested(values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> dict[str, Any]:
    """A copy of nested values in plain types, with the overrides applied. Raises ConfigError."""
    merged = plain(values, source or "the config")
    if not isinstance(merged, dict):
        raise ConfigError(f"{source or 'the config'} must be a mapping of sections such as data and unlearn")
    for override in overrides:
        override_in(merged, override)
    return merged


def override_in(values: dict[str, Any], override: str) -> None:
    """Apply one `dotted.key=value`, the value as YAML. Raises ConfigError."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"--set {override!r}: write it as section.key=value, for example unlearn.layers=2")
    put(values, renamed(key.strip()), value_of(override, text), f"--set {override!r}")


def value_of(override: str, text: str) -> Any:
    """The value of an override. Raises ConfigError, quoting it."""
    return parsed(text, f"--set {override!r}: {text!r} is not a YAML value")


def put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key in nested sections, which are made as needed. Raises ConfigError, saying where."""
    *sections, name = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        if not isinstance(values[section], dict):
            raise ConfigError(f"{where}: {section} is a value, not a section")
        values = values[section]
    values[name] = value


@contextmanager
def blaming(place: Callable[[str], str]) -> Iterator[None]:
    """What is wrong with a run of many: `place` says where the field that its error begins with is to be changed."""
    try:
        yield
    except FusedRayError as error:
        message = str(error)
        raise type(error)(place(message) if _KEYED.match(message) else message) from None


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, if it holds one."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def without_empty_sections(model: type[BaseModel], values: Any) -> Any:
    """Without what is null where a mapping belongs: its keys were all commented out, and it stands at its default."""
    if not isinstance(values, dict):
        return values
    mappings = _mappings(model)
    return {key: value for key, value in values.items() if value is not None or key not in mappings}


@cache
def _mappings(model: type[BaseModel]) -> frozenset[str]:
    """The fields that hold a mapping and have a default."""
    return frozenset(
        field.alias or name
        for name, field in model.model_fields.items()
        if not field.is_required() and (section_of(field.annotation) or get_origin(field.annotation) is dict)
    )


def mistakes(model: type[BaseModel], error: ValidationError, below: str | None = None) -> str:
    """All that is wrong with the values of a model, which may stand below a key, in one line."""
    # a field of two types fails as both: say once what either would have been
    wrong: dict[tuple[str, str], dict[str, None]] = {}
    for item in error.errors():
        where, message, given = _explain(model, item, below)
        wrong.setdefault((where, given), {})[message] = None
    said = (f"{w + ': ' if w else ''}{', or '.join(messages)}{given}" for (w, given), messages in wrong.items())
    return "; ".join(said)


def _explain(root: type[BaseModel], item: Any, below: str | None) -> tuple[str, str, str]:
    """One pydantic error as key, what is wrong and how to mend it, and the value that was given."""
    names = [] if below is None else [below]
    model: type[BaseModel] | None = root
    rest = list(item["loc"])
    while rest and model is not None:
        fields = {f.alias or n: f for n, f in model.model_fields.items()}
        if rest[0] not in fields and item["type"] == "extra_forbidden":
            return _unknown(root, names, str(rest[0]), list(fields))
        names.append(str(rest[0]))
        model = section_of(fields[rest[0]].annotation) if rest[0] in fields else None
        del rest[0]
    # what is left leads below a field: to a union's branch, or into a list, of which the value given says more
    message = _message(item, rest)
    given = item.get("input")
    if not isinstance(given, BaseModel | dict):
        return ".".join(names), message + _hint(item, given), f" (given: {_shown(given)})"
    if _KEYED.match(message):  # a check between fields names the one that it blames
        field, _, message = message.partition(": ")
        names.append(field)
    return ".".join(names), message, ""


_WORDS = {
    "model_type": "write a mapping of its fields",
    "dict_type": "write a mapping",
    "tuple_type": "write a list",
}
"""What pydantic calls by Python's names."""


def _message(item: Any, below: Sequence[Any]) -> str:
    if below and item["type"] == "extra_forbidden":
        return f"unknown key {below[-1]!r}"
    if below and item["type"] == "missing":
        return f"{below[-1]} is missing" if isinstance(below[-1], str) else "it takes more values"
    message = _WORDS.get(item["type"], str(item["msg"]).removeprefix("Value error, "))
    return message[:1].lower() + message[1:]


def _unknown(root: type[BaseModel], names: list[str], key: str, known: list[str]) -> tuple[str, str, str]:
    section, everything = ".".join(names), dotted(root)
    near = did_you_mean(key, known) or did_you_mean(key, everything) or ";"
    if not names and "." in key and key in everything:
        above, _, last = key.rpartition(".")
        near = f"; in a file it is nested, {above}: {{{last}: ...}};"
    return ".".join([*names, key or "''"]), f"unknown key{near} {section or 'the config'} has {', '.join(known)}", ""


def dotted(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of a model's sections and fields."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        key, below = prefix + (field.alias or name), section_of(field.annotation)
        keys += [key, *(dotted(below, f"{key}.") if below else [])]
    return keys


def _hint(item: Any, given: Any) -> str:
    """What may have been meant, where that can be told."""
    if isinstance(given, bool) and item["type"] in ("string_type", "literal_error"):
        return "; in YAML no, off, yes and on are false and true: put a name in quotes"
    if item["type"] == "literal_error":
        return did_you_mean(given, re.findall(r"'([^']*)'", item["ctx"]["expected"]))
    return ""


def _shown(given: Any) -> str:
    try:
        text = repr(given)
    except ValueError:  # of more digits than Python writes
        text = "a very long number"
    return text if len(text) <= 100 else f"{text[:100]}..."
