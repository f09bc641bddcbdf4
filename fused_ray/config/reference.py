"""Every field with its type, default and meaning, for `fused-ray init` and the reference documentation."""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic import BaseModel

from fused_ray.config.run_config import RunConfig
from fused_ray.config.validation import section_of


def describe(settings: type[BaseModel] = RunConfig) -> list[tuple[str, str, str, str]]:
    """(dotted key, type, default as JSON, docstring line) of every field, for `init` and the reference docs.

    A section that has a docstring line of its own is one field: a study's `base`, say. Its default is empty, as that of
    a field which must be given.
    """
    rows: list[tuple[str, str, str, str]] = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            key, kind = prefix + (field.alias or name), field.annotation
            section = section_of(kind)
            if section and not field.description:
                walk(section, key + ".")
            else:
                known = not section and not field.is_required()
                default = json.dumps(field.default, default=_plain) if known else ""
                rows.append((key, "mapping" if section else _type_text(kind), default, field.description or ""))

    walk(settings, "")
    return rows


def _plain(value: BaseModel) -> Any:
    return value.model_dump(mode="json", by_alias=True)


def _type_text(kind: Any) -> str:
    choices = [repr(a) if isinstance(a, str) else _type_text(a) for a in get_args(kind) if a is not Ellipsis]
    if getattr(kind, "__metadata__", None):
        return _type_text(get_args(kind)[0])
    if getattr(kind, "__origin__", None) is dict:
        return "mapping"
    if getattr(kind, "__origin__", None) is tuple:
        return f"list of {_type_text(get_args(kind)[0])}"
    if choices:
        return " | ".join(dict.fromkeys(choices)).replace("'", "")
    return {type(None): "null"}.get(kind, getattr(kind, "__name__", str(kind)))
