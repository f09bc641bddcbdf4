"""Points of a scaling study, and what clients exchange there: neither torch nor Ray is imported here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fused_ray.config import Section
from fused_ray.config.fields import Counts

VALUES = "model.args.values"
"""The field that a payload which is a number sets: of `fused_ray.studies.scaling.network:two_layers`."""
_OURS = ("seed", "federation", "pretrain", "retrain", "audit", "engine", "output")
"""Sections that a payload may not set."""


def _payload(value: Any) -> Any:
    """A payload that is a number, as label and settings."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return {"label": str(value), "set": {VALUES: value}}
    if isinstance(value, dict | Payload):
        return value
    raise ValueError("write a number of values, or {label: ..., set: {dotted.key: value}}")


def _labels(value: Any) -> Any:
    """One label where several may stand; labels that are numbers as they are written."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in listed]


class Payload(Section):
    """What clients exchange: settings under a label."""

    label: str
    """Its name in tables and folders: letters, digits and . _ + -"""
    settings: dict[str, Any] = Field(default={}, alias="set")
    """Dotted config keys and their values, over those of `base`, such as unlearn.layers."""

    @field_validator("label")
    @classmethod
    def _for_a_folder(cls, label: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}", label):
            raise ValueError("it names folders: use at most 60 letters, digits and . _ + -")
        return label

    @field_validator("settings")
    @classmethod
    def _may_set(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for key in settings:
            if key.partition(".")[0] in _OURS or "." not in key:
                raise ValueError(f"a payload cannot set {key}; set fields of data, model, train, forget or unlearn")
        return settings


AnyPayload = Annotated[Payload, BeforeValidator(_payload)]
"""Such a section, or a number of values."""


@dataclass(frozen=True, order=True)
class Point:
    """So many clients on so many actors on so many nodes, with a payload by its label."""

    clients: int
    actors: int
    nodes: int
    payload: str

    @property
    def name(self) -> str:
        """What messages and folders call it."""
        return f"c{self.clients}-a{self.actors}-n{self.nodes}-{self.payload}"

    @property
    def fullest(self) -> int:
        """Clients of the actor that has most."""
        return -(-self.clients // self.actors)


class Grid(Section):
    """Points: every combination of what is listed. A list of one may be written without brackets."""

    clients: Counts = ()
    """Clients in all: strong scaling where the actors differ."""
    per_actor: Counts = ()
    """Clients of each actor, instead: weak scaling where the actors differ."""
    actors: Counts = (1,)
    """Client actors, each on a core of its own (base.federation.actor_cpus)."""
    nodes: Counts = (1,)
    """Nodes of the Ray cluster that they are spread over."""
    payload: Annotated[tuple[str, ...], BeforeValidator(_labels)] = ()
    """Labels of payloads; unset: the first."""

    @model_validator(mode="after")
    def _one_kind(self) -> Grid:
        if bool(self.clients) == bool(self.per_actor):
            raise ValueError("name either clients or per_actor")
        for name in ("actors", "nodes"):
            if not getattr(self, name):
                raise ValueError(f"{name}: name at least one, or leave it out")
        return self

    def points(self, payload: str) -> Iterator[Point]:
        """The combinations; `payload` where none is named."""
        for label in self.payload or (payload,):
            for nodes in self.nodes:
                for actors in self.actors:
                    for clients in self.clients or [each * actors for each in self.per_actor]:
                        yield Point(clients, actors, nodes, label)
