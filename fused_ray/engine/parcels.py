"""What travels to actors with a round's work: what stays the same travels once, what is a client's with that client.

A record of work or evaluation marks such fields (core.work.ONCE, core.work.EACH). The rest of it travels each round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from fused_ray.core.work import TRAVELS

Record = TypeVar("Record")


@dataclass(frozen=True)
class Parcel:
    """A record without the fields that travel otherwise, and these by name."""

    rest: Any
    once: Mapping[str, Any]
    each: Mapping[str, Mapping[int, Any]]

    def of(self, clients: Sequence[int]) -> dict[str, dict[int, Any]]:
        """What is some clients' own."""
        return {name: {c: by_client[c] for c in clients if c in by_client} for name, by_client in self.each.items()}


def packed(record: Any) -> Parcel:
    """A record, parted; one that is no dataclass, or marks nothing, is all rest."""
    marked = dataclasses.fields(record) if dataclasses.is_dataclass(record) else ()
    found: dict[str, dict[str, Any]] = {"once": {}, "each": {}}
    for field in marked:
        if (how := field.metadata.get(TRAVELS)) is not None:
            found[how][field.name] = getattr(record, field.name)
    once, each = found["once"], found["each"]
    rest = dataclasses.replace(record, **dict.fromkeys(once), **{name: {} for name in each}) if once or each else record
    return Parcel(rest, once, each)


def unpacked(rest: Record, once: Mapping[str, Any] | None, each: Mapping[str, Any]) -> Record:
    """The record again, with what is these clients' own."""
    return dataclasses.replace(rest, **(once or {}), **each) if once or each else rest  # type: ignore[type-var]


class Sent:
    """What has been put for all actors and stays the same: put anew only when it is another object."""

    def __init__(self) -> None:
        self._last: Mapping[str, Any] = {}
        self._ref: ray.ObjectRef[Mapping[str, Any]] | None = None

    def ref(self, once: Mapping[str, Any]) -> ray.ObjectRef[Mapping[str, Any]] | None:
        """Where it is; None of nothing."""
        known = once.keys() == self._last.keys() and all(value is self._last[name] for name, value in once.items())
        if not known:
            self._last, self._ref = once, ray.put(once) if once else None
        return self._ref
