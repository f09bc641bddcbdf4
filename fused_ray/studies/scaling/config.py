"""What a scaling study consists of: points of clients, actors, nodes and payload, each an ordinary run, repeated.

All configurations are built and checked before anything starts. Neither torch nor Ray is imported here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fused_ray.config import RunConfig, Section
from fused_ray.config.fields import Count, Counts, Place, Real, Rounds
from fused_ray.config.kinds import SCALING, base_of, check_kind
from fused_ray.config.older_names import all_renamed
from fused_ray.config.settings import exchanging
from fused_ray.config.validation import put, validated
from fused_ray.config.yaml_text import plain, read_yaml
from fused_ray.errors import ConfigError, PlacementError
from fused_ray.studies.settings import StudySettings

VALUES = "model.args.values"
"""The field that a payload which is a number sets: of `fused_ray.studies.scaling.network:two_layers`."""
PHASES = ("pretrain", "unlearn")
_OURS = ("seed", "federation", "pretrain", "retrain", "audit", "engine", "output")
"""Sections that a payload may not set."""


def _payload(value: Any) -> Any:
    """A payload that is a number, as label and settings."""
    if isinstance(value, int) and not isinstance(value, bool):
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
        return self

    def points(self, payload: str) -> Iterator[Point]:
        """The combinations; `payload` where none is named."""
        for label in self.payload or (payload,):
            for nodes in self.nodes:
                for actors in self.actors:
                    for clients in self.clients or [each * actors for each in self.per_actor]:
                        yield Point(clients, actors, nodes, label)


class Paper(Section):
    """Clusters that need not be there, whose rounds are predicted."""

    clusters: tuple[str, ...] = ("4x16c", "16x64c")
    """In the words of `--cluster` of `fused-ray plan`; an actor on each core."""
    clients: Counts = (1_000, 10_000, 100_000)
    """Clients."""
    network_gbps: Annotated[Real, Field(gt=0)] = 10.0
    """Gigabits a second between the driver's node and all others together: assumed, not measured."""

    @field_validator("clusters")
    @classmethod
    def _in_words(cls, clusters: tuple[str, ...]) -> tuple[str, ...]:
        from fused_ray.engine.cluster_text import nodes_of  # only studies with paper need the engine

        for cluster in clusters:
            try:
                nodes = nodes_of(cluster)
            except PlacementError as error:
                raise ValueError(str(error).removeprefix("--cluster: ")) from None
            if min(node.cpus for node in nodes) < 1:
                raise ValueError(f"{cluster!r}: each node needs a core for an actor")
        return clusters


class ScaleOutput(Section):
    """Where the study goes."""

    dir: Place = "runs/scale"
    """Its directory; an existing one is refused unless told otherwise."""


@dataclass(frozen=True)
class Take:
    """One repeat of a point: a run."""

    number: int
    """Its place in the study's list, from 0."""
    point: Point
    repeat: int
    config: RunConfig
    reason: str = ""

    @property
    def name(self) -> str:
        """What messages and folders call it."""
        return f"{self.point.name}-r{self.repeat}"

    @property
    def values(self) -> dict[str, Any]:
        """What tells it from the others."""
        return {"clients": self.point.clients, "actors": self.point.actors, "nodes": self.point.nodes,
                "payload": self.point.payload, "repeat": self.repeat}  # fmt: skip


class ScaleConfig(StudySettings):
    """Everything that a scaling study depends on."""

    base: RunConfig = RunConfig()
    """A run's configuration, or the path of one. What the axes say, partition, participation, rounds and audit are the
    study's."""
    payloads: tuple[Annotated[Payload, BeforeValidator(_payload)], ...] = (Payload(label="base"),)
    """What clients exchange: numbers of values of the study's own model, or {label, set: {dotted.key: value}}."""
    points: tuple[Grid, ...]
    """Grids of points; each of their points is measured."""
    hold_out: tuple[Grid, ...] = ()
    """Grids of those points that the cost model is not fitted on, but tried on."""
    phase: Literal["pretrain", "unlearn"] = "pretrain"
    """Rounds that are measured: of the whole model, or of unlearn.method after one round of pre-training."""
    examples: Count = 8
    """Training examples of each client, of the data cut to as many as all clients hold together."""
    warmup: Rounds = 1
    """First rounds of every run that do not count."""
    rounds: Count = 2
    """Rounds of every run that do; one more ends the last of them."""
    repeats: Count = 3
    """Runs of every point: all points once, and then again."""
    paper: Paper = Paper()
    output: ScaleOutput = ScaleOutput()

    max_concurrent: ClassVar[int] = 1
    """Runs at a time: timings bear no company."""

    @field_validator("base", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return base_of(value)

    @model_validator(mode="after")
    def _complete(self) -> ScaleConfig:
        labels = [payload.label for payload in self.payloads]
        if not labels or not self.points:
            raise ValueError(f"{'points' if labels else 'payloads'}: name at least one")
        if twice := [label for label, count in Counter(labels).items() if count > 1]:
            raise ValueError(f"payloads: {twice[0]!r} is there twice")
        if self.base.pretrain.from_ is not None:
            raise ValueError("base.pretrain.from: a scaling study pre-trains its own models; leave it unset")
        for name in ("points", "hold_out"):
            for grid in getattr(self, name):
                if unknown := sorted({*grid.payload} - {*labels}):
                    raise ValueError(f"{name}: there is no payload {unknown[0]!r}; payloads has {', '.join(labels)}")
        for point in self.all_points:
            self._check(point)
        if strangers := sorted(self.held_out - {*self.all_points}):
            raise ValueError(f"hold_out: {strangers[0].name} is none of the points")
        for payload in {point.payload for point in self.held_out}:
            if not any(point.payload == payload for point in self.fitted):
                raise ValueError(f"hold_out: of the payload {payload!r} no point is left to fit the cost model on")
        self.takes  # noqa: B018 - each is built, or refused
        return self

    def _check(self, point: Point) -> None:
        """Raises ValueError where there can be no such point."""
        if self.base.engine.backend == "local" and (point.actors, point.nodes) != (1, 1):
            raise ValueError(f"points: {point.name}: several actors or nodes take base.engine.backend=ray")
        if point.nodes > point.actors:
            raise ValueError(f"points: {point.name}: {point.actors} actor(s) cannot be on {point.nodes} nodes")
        if -(-point.clients // point.fullest) != point.actors:
            raise ValueError(
                f"points: {point.name}: with {point.fullest} clients an actor there are fewer than {point.actors} "
                "actors; choose other numbers"
            )
        known, wanted = self.base.data.known, point.clients * self.examples
        if known is not None and known.train_examples < wanted:
            raise ValueError(
                f"points: {point.name}: {wanted:,} training examples are more than the {known.train_examples:,} of "
                f"{self.base.data.name}; lower examples, or choose other data"
            )

    @cached_property
    def all_points(self) -> tuple[Point, ...]:
        """Every point once. Those with the same actors are side by side: these stay from run to run."""
        found = dict.fromkeys(point for grid in self.points for point in grid.points(self.payloads[0].label))
        return tuple(sorted(found, key=lambda point: (point.nodes, point.actors, point.clients)))

    @cached_property
    def held_out(self) -> frozenset[Point]:
        """Points that the cost model is tried on."""
        return frozenset(point for grid in self.hold_out for point in grid.points(self.payloads[0].label))

    @property
    def fitted(self) -> list[Point]:
        """Points that it is fitted on."""
        return [point for point in self.all_points if point not in self.held_out]

    @cached_property
    def takes(self) -> tuple[Take, ...]:
        """All runs: every point, and every point again. Raises ConfigError where a configuration is wrong."""
        pairs = [(repeat, point) for repeat in range(self.repeats) for point in self.all_points]
        return tuple(
            Take(number, point, repeat, self._config(point, repeat)) for number, (repeat, point) in enumerate(pairs)
        )

    @property
    def runs(self) -> list[RunConfig]:
        """The configurations of all runs."""
        return [take.config for take in self.takes]

    @property
    def count(self) -> int:
        """How many runs there are."""
        return self.repeats * len(self.all_points)

    def located(self) -> ScaleConfig:
        """The same with absolute paths of what is read, so that it means the same in any process."""
        values = self.model_dump(mode="json", by_alias=True)
        values["base"] = self.base.located().model_dump(mode="json", by_alias=True)
        return validated(ScaleConfig, values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> ScaleConfig:
        """Validate nested values plus `dotted.key=value` overrides. Raises ConfigError in one line.

        A path in `base` counts from the source's folder.
        """
        merged = plain(values, source or "the scaling study")
        if not isinstance(merged, dict):
            raise ConfigError(f"{source or 'the scaling study'} must be a mapping with base and points")
        merged["base"] = base_of(merged.get("base"), source)
        return validated(cls, all_renamed(merged), overrides, source)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> ScaleConfig:
        """Read a YAML file and apply overrides. Raises ConfigError."""
        values = read_yaml(path)
        check_kind(values, SCALING, path)
        return cls.from_dict(values, overrides, str(path))

    def _config(self, point: Point, repeat: int) -> RunConfig:
        values = self.base.model_dump(mode="json", by_alias=True)
        payload = next(payload for payload in self.payloads if payload.label == point.payload)
        own = self._of_phase() | {
            "federation.clients": point.clients,
            "federation.clients_per_actor": point.fullest,
            "federation.participation": 1.0,
            "data.limit": point.clients * self.examples,
            "data.partition": "iid",
            "data.min_examples": 1,
            "retrain.rounds": 0,
            "audit.enabled": False,
            "output.plots": "none",
            "output.clients": "all",
            "output.dir": str(Path(self.output.dir).absolute() / "runs" / f"{point.name}-r{repeat}"),
        }
        for key, value in exchanging(values, {**payload.settings, **own}).items():
            put(values, key, value, f"payloads: {point.payload}")
        try:
            return validated(RunConfig, values)
        except ConfigError as error:
            raise ConfigError(f"{self.blamed(str(error), point)} ({point.name})") from None

    def _of_phase(self) -> dict[str, Any]:
        """Rounds: those that warm up, those that count, and one that ends the last of them by its start."""
        rounds = self.warmup + self.rounds + 1
        if self.phase == "unlearn":
            return {"pretrain.rounds": 1, "unlearn.rounds": rounds, "unlearn.participation": None}
        return {"pretrain.rounds": rounds, "pretrain.participation": None, "unlearn.method": "finetune",
                "unlearn.args": {}, "unlearn.rounds": 0}  # fmt: skip

    def blamed(self, reason: str, point: Point) -> str:
        """What is wrong with a run, `field: ...`, under the name of the payload or section where the field is set."""
        field = reason.partition(": ")[0]
        payload = next(payload for payload in self.payloads if payload.label == point.payload)
        return f"payloads: {payload.label}: {reason}" if field in payload.settings else f"base.{reason}"
