"""Which nodes a label selector means, in Ray's words: a value, `in(one, other)`, or either with `!` before it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[A-Za-z0-9.-]{{1,253}}/)?{_VALUE}")
_WANTED = re.compile(rf"(!?)(?:in\(({_VALUE}(?:, ?{_VALUE})*)\)|({_VALUE}))")


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels is meant. One without a label has no value that `!` could exclude."""
    return all(_allows(wanted, labels.get(key)) for key, wanted in selector.items())


def _allows(wanted: str, value: str | None) -> bool:
    match = _WANTED.fullmatch(wanted)
    assert match, "checked with the configuration"
    listed = (match[2] or match[3]).replace(" ", "").split(",")
    return (value in listed) != bool(match[1])


def _checked(selector: dict[str, str]) -> dict[str, str]:
    for key, wanted in selector.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no name of a label; write such as market-type or ray.io/accelerator-type")
        if not _WANTED.fullmatch(wanted):
            raise ValueError(f"{key}: {wanted!r} is no value of a label; write such as a, !a, in(a, b) or !in(a, b)")
    return selector


Selector = Annotated[dict[str, str], AfterValidator(_checked)]
