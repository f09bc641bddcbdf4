"""Fields by the names that they had in earlier versions, which are still taken, with a note to the user."""

from __future__ import annotations

import warnings
from typing import Any

_NOW = {
    "federation": {"cpus_per_client": "actor_cpus", "gpus_per_client": "actor_gpus"},
}
"""By section of a run, each older name with the present one."""


class OldName(FutureWarning):
    """A field is called by an older name. The command line shows it as a note."""


def present_name(key: str) -> str:
    """A dotted key, in a run or below `base.`, as it is called now."""
    above, _, name = key.rpartition(".")
    now = _NOW.get(above.rpartition(".")[2], {}).get(name)
    return key if now is None else f"{above}.{now}"


def renamed(key: str) -> str:
    """The same, with a warning where that is another name."""
    now = present_name(key)
    if now != key:
        warnings.warn(f"{key} is called {now} now", OldName, stacklevel=2)
    return now


def all_renamed(values: Any, above: str = "") -> Any:
    """Nested values, and dotted keys among them, with a warning for each that has another name now.

    Where both names of a field are given, both stay: whoever validates the section says what is wrong.
    """
    if isinstance(values, list):
        return [all_renamed(value, above) for value in values]
    if not isinstance(values, dict):
        return values
    told: dict[str, Any] = {}
    for key, value in values.items():
        now = renamed(above + key).removeprefix(above)
        told[key if now in values else now] = all_renamed(value, f"{above}{key}.")
    return told


def section_renamed(section: str, values: Any, warn: bool) -> Any:
    """The values of one section by their names of now. Raises ValueError where two names of a field say different."""
    if not isinstance(values, dict):
        return values
    told = dict(values)
    for name, now in _NOW[section].items():
        if name in told:
            given = told.pop(name)
            if told.setdefault(now, given) != given:
                raise ValueError(f"{now}: it is {told[now]}, and {given} by its older name {name}; leave one out")
            if warn:
                renamed(f"{section}.{name}")
    return told
