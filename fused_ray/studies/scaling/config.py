"""What a scaling study consists of: points of clients, actors, nodes and payload, each an ordinary run, repeated.

All configurations are built and checked before anything starts. Neither torch nor Ray is imported here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fused_ray.config import RunConfig, Section
from fused_ray.config.fields import Count, Place, Rounds
from fused_ray.config.kinds import SCALING, base_of, check_kind
from fused_ray.config.older_names import all_renamed
from fused_ray.config.parts.methods import METHOD
from fused_ray.config.settings import exchanging
from fused_ray.config.validation import put, validated
from fused_ray.config.yaml_text import plain, read_yaml
from fused_ray.errors import ConfigError
from fused_ray.studies.scaling import measurable
from fused_ray.studies.scaling.grid import VALUES, AnyPayload, Grid, Payload, Point
from fused_ray.studies.scaling.paper import Paper
from fused_ray.studies.settings import StudySettings

_OURS = {
    "federation.clients": "points",
    "federation.clients_per_actor": "points",
    "data.limit": "examples",
    "data.min_examples": "examples",
    "pretrain.rounds": "rounds",
    "unlearn.rounds": "rounds",
}
"""Fields of a run that the study sets, and what it says of them itself."""
_MOST = 10_000
"""Runs."""


class ScaleOutput(Section):
    """Where the study goes."""

    dir: Place = "runs/scale"
    """Its directory; an existing one is refused unless told otherwise."""


def of_study(reason: str) -> str:
    """What is wrong with a run, `field: ...`, under the study's own word for a field that it sets."""
    field = reason.partition(": ")[0]
    return f"{_OURS[field]}: {reason}" if field in _OURS else reason


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
    payloads: tuple[AnyPayload, ...] = (Payload(label="base"),)
    """What clients exchange, small ones first: numbers of values of the study's model, or {label, set: settings}."""
    points: tuple[Grid, ...]
    """Grids of points; each of their points is measured."""
    hold_out: tuple[Grid, ...] = ()
    """Grids of those points that the cost model is not fitted on, but tried on."""
    phase: Literal["pretrain", "unlearn"] = "pretrain"
    """Rounds that are measured: of the whole model, or of some methods (docs/scaling.md) after one round of that."""
    examples: Count = 8
    """Training examples of each client, of the data cut to as many as all clients hold together."""
    warmup: Rounds = 1
    """First rounds of every run that do not count."""
    rounds: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 2
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
        self._check_names()
        if self.count > _MOST:
            raise ValueError(
                f"repeats: {self.repeats:,} of each of {len(self.all_points):,} points are more than {_MOST:,} runs; "
                "lower it, or name fewer points"
            )
        for point in self.all_points:
            self._check(point)
        if strangers := sorted(self.held_out - {*self.all_points}):
            raise ValueError(f"hold_out: {strangers[0].name} is none of the points")
        for payload in {point.payload for point in self.held_out}:
            if not any(point.payload == payload for point in self.fitted):
                raise ValueError(f"hold_out: of the payload {payload!r} no point is left to fit the cost model on")
        self.takes  # noqa: B018 - each is built, or refused
        return self

    def _check_names(self) -> None:
        """Raises ValueError where payloads or points are missing, or named wrongly."""
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
        for payload in self.payloads:
            factory = payload.settings.get("model.factory", self.base.model.factory)
            if VALUES in payload.settings and factory is None:
                raise ValueError(
                    f"payloads: {payload.label}: a number asks a model for so many values; set base.model.factory, "
                    "such as fused_ray.studies.scaling.network:two_layers, or write {label, set: {dotted.key: value}}"
                )

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
        """Every point once. Those with the same actors are side by side: these stay from run to run.

        Of these, payloads come as they are listed: a process keeps memory that a larger one took.
        """
        found = dict.fromkeys(point for grid in self.points for point in grid.points(self.payloads[0].label))
        place = {payload.label: number for number, payload in enumerate(self.payloads)}
        return tuple(sorted(found, key=lambda it: (it.nodes, it.actors, place[it.payload], it.clients)))

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
        configs = {point: self._config(point) for point in self.all_points}
        pairs = [(repeat, point) for repeat in range(self.repeats) for point in self.all_points]
        return tuple(
            Take(number, point, repeat, self._placed(configs[point], point, repeat))
            for number, (repeat, point) in enumerate(pairs)
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

    def _placed(self, config: RunConfig, point: Point, repeat: int) -> RunConfig:
        """A point's run in the folder of a repeat."""
        place = Path(self.output.dir).absolute() / "runs" / f"{point.name}-r{repeat}"
        return config.model_copy(update={"output": config.output.model_copy(update={"dir": str(place)})})

    def _config(self, point: Point) -> RunConfig:
        values = self.base.model_dump(mode="json", by_alias=True)
        payload = self._payload_of(point)
        own = self._of_phase(payload) | {
            "federation.clients": point.clients,
            "federation.clients_per_actor": point.fullest,
            "federation.participation": 1.0,
            "data.limit": point.clients * self.examples,
            "data.partition": "iid",
            "data.min_examples": 1,
            "retrain.rounds": 0,
            "audit.enabled": False,
            "output.plots": "none",
            "output.report": False,
            "output.clients": "all",
        }
        for key, value in exchanging(values, {**payload.settings, **own}).items():
            put(values, key, value, f"payloads: {point.payload}")
        try:
            config = validated(RunConfig, values)
        except ConfigError as error:
            raise ConfigError(f"{self.blamed(str(error), point)} ({point.name})") from None
        measurable.check_run(config, self.phase, self._rounds)
        return config

    @property
    def _rounds(self) -> int:
        """Of a run: those that warm up, those that count, and one that ends the last of them by its start."""
        return self.warmup + self.rounds + 1

    def _of_phase(self, payload: Payload) -> dict[str, Any]:
        """How many rounds there are, and of what."""
        if self.phase == "pretrain":
            return {"pretrain.rounds": self._rounds, "pretrain.participation": None, "unlearn.method": "finetune",
                    "unlearn.args": {}, "unlearn.rounds": 0}  # fmt: skip
        name = payload.settings.get("unlearn.method", self.base.unlearn.method)
        try:
            method = METHOD.find(name)
        except ValueError as error:
            raise ConfigError(f"payloads: {payload.label}: unlearn.method: {error}") from None
        measurable.check_method(name, method, self.warmup)
        return {"pretrain.rounds": 1, "unlearn.rounds": self._rounds - method.first, "unlearn.participation": None}

    def _payload_of(self, point: Point) -> Payload:
        return next(payload for payload in self.payloads if payload.label == point.payload)

    def blamed(self, reason: str, point: Point) -> str:
        """What is wrong with a run, `field: ...`, under the name of the payload or section where the field is set."""
        field = reason.partition(": ")[0]
        if field in _OURS:
            return of_study(reason)
        here = field in self._payload_of(point).settings
        return f"payloads: {point.payload}: {reason}" if here else f"base.{reason}"
