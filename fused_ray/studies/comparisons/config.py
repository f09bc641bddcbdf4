"""What a comparison consists of: methods x scenarios x seeds on one base configuration, as a list of ordinary runs.

For every scenario and seed there is a base run, which pre-trains and retrains; every method then unlearns in a run of
its own from the base run's model. All of these configurations are built and checked before anything starts. Neither
torch nor Ray is imported here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from fused_ray.config import AuditConfig, RunConfig, Section
from fused_ray.config.fields import Auto, Count, Integers, Place, Results
from fused_ray.config.kinds import COMPARISON, base_of, check_kind
from fused_ray.config.older_names import all_renamed
from fused_ray.config.parts.methods import METHOD, Method
from fused_ray.config.parts.scenarios import SCENARIO
from fused_ray.config.paths import absolute
from fused_ray.config.preset import over, presets, read_preset
from fused_ray.config.sections import INPUTS
from fused_ray.config.settings import exchanging
from fused_ray.config.suggest import did_you_mean
from fused_ray.config.validation import put, validated
from fused_ray.config.yaml_text import plain, read_yaml
from fused_ray.errors import ConfigError
from fused_ray.studies.settings import StudySettings
from fused_ray.studies.store import pretraining, retraining

_SHARED = ("data", "model", "federation", "pretrain", "forget")
"""Sections that shape the model which all methods of a scenario and seed begin with."""
_OURS = ("seed", "engine", "output", "audit", "pretrain.from", "pretrain.history")
"""What the comparison sets itself, or what holds for all of it."""
_INSTEAD = {
    "seed": "write seeds",
    "output": "the comparison has an output of its own",
    "pretrain.from": "the comparison pre-trains its own models",
    "pretrain.history": "the comparison sets it where a method needs it",
}
"""What to write instead of some of that."""


def _labelled(value: Any) -> Any:
    if not isinstance(value, str | dict | Entry):
        raise ValueError("write a name, in quotes if YAML takes it for something else, or {label: ..., set: {...}}")
    return {"label": value} if isinstance(value, str) else value


def _for_a_folder(label: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}", label):
        raise ValueError(f"the label {label!r} names folders: use at most 60 letters, digits and . _ + -")
    return label


class Entry(Section):
    """A method or a scenario: a name of the registry, or any label with settings of its own."""

    label: Annotated[str, AfterValidator(_for_a_folder)]
    """Its name in tables and folders: letters, digits and . _ + -"""
    settings: dict[str, Any] = Field(default={}, alias="set")
    """Dotted config keys and their values, over those of `base`."""

    def naming(self, key: str, known: Collection[str]) -> dict[str, Any]:
        """The settings; `key` gets the label where that is a known name and nothing else was said."""
        return {key: self.label, **self.settings} if self.label in known else dict(self.settings)


Entries = tuple[Annotated[Entry, BeforeValidator(_labelled)], ...]


class CompareOutput(Section):
    """Where the comparison goes."""

    dir: Results = "runs/compare"
    """Its directory; an existing one is refused unless told otherwise."""
    store: Place | None = None
    """Folder of pre-trained and retrained models that studies share; unset: base runs in the comparison's directory."""


@dataclass(frozen=True)
class Cell:
    """A method on a scenario with a seed."""

    method: str
    """Label of the method."""
    scenario: str
    """Label of the scenario."""
    seed: int
    base: RunConfig
    """The base run: pre-trains, and retrains without the forgotten data; with a store, it retrains only."""
    model: RunConfig
    """The run that pre-trains: the base run, or one of the store."""
    config: RunConfig | None
    """The run that unlearns; the base run itself where that is what the method asks for; None: not supported."""
    algorithm: str
    """`unlearn.method`."""
    number: int = 0
    """Its place among all cells, from 0."""
    reason: str = ""
    """Why there is no run, beside that the method cannot do the scenario."""

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells it from all others."""
        return self.scenario, self.seed, self.method

    @property
    def values(self) -> dict[str, Any]:
        """The same by name."""
        return {"scenario": self.scenario, "seed": self.seed, "method": self.method}

    @property
    def group(self) -> str:
        """Scenario and seed: what a base run, its shadow models and its data belong to."""
        return f"{self.scenario}-{self.seed}"

    @property
    def is_base(self) -> bool:
        """Whether the base run has this cell's figures."""
        return self.config is not None and self.config.output.dir == self.base.output.dir

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.group}-{self.method}"


class CompareConfig(StudySettings):
    """Everything that a comparison depends on."""

    base: RunConfig = RunConfig()
    """A run's configuration, or the path of one; seed and output.dir are the comparison's."""
    methods: Entries
    """Names, or {label, set: {dotted.key: value}}; what is set may not change the model that they begin with."""
    scenarios: Entries
    """Names, or {label, set: {dotted.key: value}}."""
    seeds: Integers = (0,)
    """Seeds; tables show mean and standard deviation over them."""
    audit: AuditConfig = AuditConfig(probes=True, shadows=2)
    """How every model is judged: true, false, or what differs, such as {shadows: 4}; instead of base.audit."""
    max_concurrent: Count | Auto = "auto"
    """Cells at a time, each on an even share of the cores; auto: at most 4. Changes no cell's result."""
    output: CompareOutput = CompareOutput()

    @field_validator("base", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return base_of(value)

    @field_validator("audit", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        if isinstance(value, AuditConfig):
            return value
        if not isinstance(value, bool | dict):
            raise ValueError("write true, false or {shadows: n}")
        return {"probes": True, "shadows": 2, **({"enabled": value} if isinstance(value, bool) else value)}

    @field_validator("methods", "scenarios")
    @classmethod
    def _once(cls, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        twice = [label for label, count in Counter(entry.label for entry in entries).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is there twice; give each a label of its own")
        return entries

    @model_validator(mode="after")
    def _complete(self) -> CompareConfig:
        for name in ("methods", "scenarios", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: name at least one")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} names a seed twice")
        if self.base.pretrain.from_ is not None:
            raise ValueError("base.pretrain.from: a comparison pre-trains its own models; leave it unset")
        for entry in self.methods:
            _check("method", entry, METHOD.names, (*_OURS, *_SHARED))
        for entry in self.scenarios:
            _check("scenario", entry, SCENARIO.names, (*_OURS, "unlearn.method"))
        for cell in self.cells:
            goes_back = cell.config is not None and cell.config.method.needs_history
            if cell.config and goes_back and cell.config.pretrain_key() != cell.base.pretrain_key():
                raise ValueError(f"methods: {cell.method} goes back over pre-training and cannot set train.*")
        self.audit.check_shared("audit")
        places: dict[str, Cell] = {}
        for cell in self.cells:
            if cell.config and not cell.is_base and (other := places.setdefault(cell.name, cell)) is not cell:
                raise ValueError(
                    f"methods: {cell.method} on {cell.scenario} with seed {cell.seed} and {other.method} on "
                    f"{other.scenario} with seed {other.seed} would both be kept in {cell.name}; choose other labels"
                )
        if not any(cell.config for cell in self.cells):
            raise ValueError("methods: none of them can do any of these scenarios")
        return self

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, by scenario, then seed, then method. Raises ConfigError where one's configuration is wrong."""
        cells = (
            self._cell(method, scenario, seed, base, model)
            for scenario in self.scenarios
            for seed in self.seeds
            for model, base in [self._bases(scenario, seed)]
            for method in self.methods
        )
        return tuple(replace(cell, number=number) for number, cell in enumerate(cells))

    @property
    def runs(self) -> list[RunConfig]:
        """The cells' runs; where a method cannot do a scenario, the base run."""
        return [cell.config or cell.base for cell in self.cells]

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self.cells)

    def check_parts_of_driver(self) -> None:
        """Raises ConfigError where a part from elsewhere cannot be used in this process."""
        self.base.check_parts_of_driver()
        self.audit.further  # noqa: B018 - found, or not

    def located(self) -> CompareConfig:
        """The same with absolute paths of what is read, so that it means the same in any process."""
        values = self.model_dump(mode="json", by_alias=True)
        values["base"] = self.base.located().model_dump(mode="json", by_alias=True)
        values["output"]["store"] = absolute(self.output.store)
        for entry in (*values["methods"], *values["scenarios"]):
            entry["set"] = {key: absolute(v) if key in INPUTS else v for key, v in entry["set"].items()}
        return validated(CompareConfig, values)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        overrides: Sequence[str] = (),
        source: str = "",
        quick: bool = False,
        preset: str | None = None,
    ) -> CompareConfig:
        """Validate nested values plus `dotted.key=value` overrides; `quick` applies the section `quick` first.

        A preset, a comparison's or a run's for `base`, is put under the values. Raises ConfigError in one line that
        names what is wrong. A path in `base` counts from the source's folder.
        """
        merged = plain(values, source or "the comparison")
        if not isinstance(merged, dict):
            raise ConfigError(f"{source or 'the comparison'} must be a mapping with methods and scenarios")
        merged["base"] = base_of(merged.get("base"), source)
        merged = all_renamed(merged)
        if isinstance(merged.get("audit"), bool):
            merged["audit"] = {"enabled": merged["audit"]}
        lower = read_preset(preset, "compare")
        merged = over(lower if preset in presets("compare") else {"base": lower}, merged)
        shorter = merged.pop("quick", None)
        if quick:
            if not isinstance(shorter, dict):
                raise ConfigError(f"--quick: {source or 'the comparison'} has no section `quick` of dotted keys")
            for key, value in shorter.items():
                put(merged, key, value, "quick")
        return validated(cls, merged, overrides, source)

    @classmethod
    def from_yaml(
        cls, path: str | Path | None, overrides: Sequence[str] = (), quick: bool = False, preset: str | None = None
    ) -> CompareConfig:
        """Read a YAML file (None: the preset alone), put a preset under it, apply overrides. Raises ConfigError."""
        values = read_yaml(path) if path is not None else {}
        if path is not None:
            check_kind(values, COMPARISON, path)
        return cls.from_dict(values, overrides, str(path or f"the preset {preset}"), quick, preset)

    # -- inside

    def _cell(self, method: Entry, scenario: Entry, seed: int, base: RunConfig, model: RunConfig) -> Cell:
        algorithm = self._algorithm(method)
        asked = method.naming("unlearn.method", METHOD.names)
        config: RunConfig | None = None
        if asked == {"unlearn.method": "retrain"} and self.base.unlearn.retain == 1:
            config = base
        elif _able(algorithm, base.kind):
            fixed = {"pretrain.from": model.output.dir, "pretrain.history": False}
            if algorithm != "retrain":
                fixed["retrain.rounds"] = 0
            folder = f"cells/{scenario.label}-{seed}-{method.label}"
            config = self._config(scenario, seed, {**asked, **fixed}, folder, method)
        return Cell(method.label, scenario.label, seed, base, model, config, algorithm)

    def _bases(self, scenario: Entry, seed: int) -> tuple[RunConfig, RunConfig]:
        """The run that pre-trains and the one that retrains, which are one where there is no store."""
        names = {self._algorithm(method) for method in self.methods}
        history = any(_found(name, lambda method: method.needs_history) for name in names)
        fixed = {"unlearn.method": "retrain", "unlearn.retain": 1.0, "pretrain.history": history}
        base = self._config(scenario, seed, fixed, f"bases/{scenario.label}-{seed}")
        if self.output.store is None:
            return base, base
        store = Path(self.output.store).absolute()
        retrained = retraining(store, base)
        assert retrained is not None, "a base run retrains"
        return pretraining(store, base), retrained

    def _algorithm(self, method: Entry) -> str:
        name: str = method.naming("unlearn.method", METHOD.names).get("unlearn.method", self.base.unlearn.method)
        return name

    def _config(
        self, scenario: Entry, seed: int, settings: Mapping[str, Any], folder: str, method: Entry | None = None
    ) -> RunConfig:
        """A run's configuration; the comparison draws its own plots."""
        values = self.base.model_dump(mode="json", by_alias=True)
        asked = scenario.naming("forget.scenario", SCENARIO.names)
        own = {
            "seed": seed,
            "audit.enabled": False,
            "output.plots": "none",
            "output.report": False,
            "output.dir": str(Path(self.output.dir).absolute() / folder),
        }
        for key, value in exchanging(values, {**asked, **settings, **own}).items():
            put(values, key, value, f"methods: {method.label}" if method else f"scenarios: {scenario.label}")
        try:
            return validated(RunConfig, values)
        except ConfigError as error:
            reason = self.blamed(str(error), scenario.label, method.label if method else "")
            raise ConfigError(reason) from None

    def blamed(self, reason: str, scenario: str, method: str = "") -> str:
        """What is wrong with a run, `field: ...`, under the name of the entry or the section where the field is set."""
        field, _, what = reason.partition(": ")
        if field == "seed":
            return f"seeds: {what}"
        for kind, entries, label in (("methods", self.methods, method), ("scenarios", self.scenarios, scenario)):
            if any(entry.label == label and field in entry.settings for entry in entries):
                return f"{kind}: {label}: {reason}"
        return f"base.{reason} (scenario {scenario}" + (f", method {method})" if method else ")")


def _found(name: str, ask: Callable[[Method], bool]) -> bool:
    """What is known of a method; False of one that is not there, of which the run's configuration says so."""
    try:
        return ask(METHOD.find(name))
    except ValueError:
        return False


def _able(name: str, kind: str) -> bool:
    """Whether a method can do a kind of scenario, or is not there."""
    return not _found(name, lambda method: kind not in method.scenarios)


def _check(kind: str, entry: Entry, known: Sequence[str], kept: Sequence[str]) -> None:
    """Raises ValueError where an entry is neither known nor described, or sets what it may not, or a whole section."""
    if not entry.settings and entry.label not in known:
        near = did_you_mean(entry.label, known) or ";"
        raise ValueError(
            f"{kind}s: unknown {kind} {entry.label!r}{near} choose one of {', '.join(known)}, or say what to `set` "
            "for it"
        )
    for key in entry.settings:
        section, _, field = key.partition(".")
        if section in kept or key in kept:
            shared = (
                "all methods share it; set it in base or for a scenario" if section in _SHARED else "set it in base"
            )
            why = _INSTEAD.get(key, _INSTEAD.get(section, shared))
            raise ValueError(f"{kind}s: {entry.label} cannot set {key}: {why}")
        if not field and section in RunConfig.model_fields:
            raise ValueError(f"{kind}s: {entry.label} sets the whole section {key}; name its fields, as in {key}.name")
