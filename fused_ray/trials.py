"""What a sweep consists of: a space over config fields on one base configuration, as a list of ordinary runs.

Every trial unlearns in a run of its own, from a model that is pre-trained once for all trials with the same
pre-training; the model retrained without the forgotten data is shared likewise. All configurations of a grid or a
random search are built and checked before anything starts. Like config.py, this module imports neither torch nor Ray.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from fused_ray import registry
from fused_ray.config import INPUTS, Auto, Count, Drawn, Integers, Place, RunConfig, Section, describe
from fused_ray.dimension import Dimension, twice
from fused_ray.errors import ConfigError
from fused_ray.kinds import SWEEP, base_of, check_kind
from fused_ray.paths import absolute
from fused_ray.preset import over, read_preset
from fused_ray.suggest import did_you_mean
from fused_ray.validation import mistakes, put, validated, value_of
from fused_ray.yaml_text import dump, plain, read_yaml

METRICS = ("ra", "fa", "ca", "bytes_up_total", "seconds", "score")
"""What may be an objective: columns of trials.parquet, accuracies on the half that is chosen by; score = ra - fa."""
_OURS = ("engine.", "output.", "audit.", "pretrain.from", "pretrain.history", "federation.clients_per_actor",
         "federation.cpus_per_client", "federation.gpus_per_client")  # fmt: skip
"""What the sweep sets itself, or what changes no result."""
METHOD_SECTIONS = ("unlearn", "federaser", "eraseclient", "exactfun", "puf")
"""Sections that shape no pre-trained or retrained model."""


class SweepOutput(Section):
    """Where the sweep goes."""

    dir: Place = "runs/sweep"
    """Its directory; an existing one is refused unless told otherwise."""
    store: Place | None = None
    """Folder of pre-trained and retrained models, which later sweeps may share; unset: one in the sweep's directory."""
    plots: Drawn = "png"
    """Format of the plots in the sweep's directory; none: draw none. true and false mean png and none."""


@dataclass(frozen=True)
class Trial:
    """One point of the space."""

    number: int
    """From 0, in the order of the list."""
    values: dict[str, Any]
    """Dotted config key -> value."""
    config: RunConfig | None
    """The run that unlearns, without its place and its model's; None: these values do not go together."""
    reason: str = ""
    """Why they do not."""

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.number:04d}"

    @property
    def text(self) -> str:
        """Its values as JSON."""
        return json.dumps(self.values, sort_keys=True)


class SweepConfig(Section):
    """Everything that a sweep depends on."""

    base: RunConfig = RunConfig()
    """A run's configuration, or the path of one."""
    space: dict[str, Dimension]
    """Dotted config field -> {grid: [...]}, {choice: [...]}, {uniform: [low, high]}, or another kind of `Dimension`."""
    seeds: Integers | None = None
    """Seeds as one more grid; tables show mean and spread over them."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """grid: every combination of the grids, the rest drawn; random: all drawn; optuna: proposed from what was found."""
    samples: Count | None = None
    """Trials to draw (random, optuna); in a grid, draws for each of its points. Unset: 1 in a grid."""
    scheduler: Literal["none", "asha"] = "none"
    """asha: end trials early that fall behind (one objective)."""
    objectives: dict[str, Literal["max", "min"]] = Field(default={"ra": "max", "fa": "min", "bytes_up_total": "min"})
    """What optuna and asha look at: ra, fa, ca, bytes_up_total, seconds or score (ra - fa), each max or min.

    Accuracies are those on the half of the test set that chooses, not on the half that is reported.
    """
    max_concurrent: Count | Auto = "auto"
    """Trials at a time, each on an even share of the cores; auto: at most 4 (optuna: 1). Changes no trial's result."""
    max_trials: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1000
    """Refuse a space of more trials than this."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """What is drawn, and in which order, depends on it; a trial's own seed is base.seed or the space's."""
    ra_margin: Annotated[float, Field(ge=0, le=1)] = 0.01
    """A recommended setting's RA may be this much below the retrained model's."""
    fa_margin: Annotated[float, Field(ge=0, le=1)] = 0.02
    """A recommended setting's FA may be this much above the retrained model's."""
    audits: Count = 5
    """How many candidates for the recommendation are audited at most in a case, best first, as base.audit says."""
    output: SweepOutput = SweepOutput()

    @field_validator("base", mode="before")
    @classmethod
    def _read_base(cls, base: Any) -> Any:
        return base_of(base)

    @field_validator("space", mode="before")
    @classmethod
    def _read(cls, space: Any) -> Any:
        """Each dimension by itself, so that a mistake is told with its field. `tune.grid_search` says grid_search."""
        if not isinstance(space, dict):
            raise ValueError("write a mapping of dotted fields to their values")
        found = {}
        for key, given in space.items():
            if not isinstance(given, dict | Dimension):
                values = json.dumps(given if isinstance(given, list) else [given])
                raise ValueError(f"{key}: say how it varies, as in {{grid: {values}}}")
            named = given if isinstance(given, Dimension) else {"grid" if k == "grid_search" else k: v
                                                                for k, v in given.items()}  # fmt: skip
            try:
                found[key] = Dimension.model_validate(named)
            except ValidationError as error:
                raise ValueError(mistakes(Dimension, error, key)) from None
        return found

    @model_validator(mode="after")
    def _complete(self) -> SweepConfig:
        if not self.space and not self.seeds:
            raise ValueError("space: it is empty; name at least one field and its values")
        if self.base.pretrain.from_ is not None:
            raise ValueError("base.pretrain.from: a sweep pre-trains its own models; to share them, set output.store")
        if self.seeds is not None and "seed" in self.space:
            raise ValueError("seeds: the space has the dimension seed already; leave one of the two out")
        if self.seeds is not None and (not self.seeds or twice(self.seeds)):
            raise ValueError(f"seeds: {list(self.seeds)} names none, or one twice; leave it unset, or name each once")
        kinds = {key: kind for key, kind, *_ in describe()}
        for key, found in self.space.items():
            self._field(key, found, kinds)
        self._search()
        self._list()
        return self

    def _field(self, key: str, found: Dimension, kinds: Mapping[str, str]) -> None:
        """Whether a dimension is that of a field which may vary, and draws what the field takes."""
        if key not in kinds:
            near = did_you_mean(key, kinds) or "; `fused-ray init` writes all fields with what they mean"
            raise ValueError(f"space.{key}: there is no such field{near}")
        if key.startswith(_OURS):
            raise ValueError(
                f"space.{key}: this is no dimension: it changes no result, or the sweep sets it; set base.{key}"
            )
        takes = set(re.findall(r"\w+", kinds[key]))
        if found.values is None and not takes & {"int", "float"}:
            raise ValueError(f"space.{key}: it takes no numbers; write grid or choice instead of {found.kind}")
        if found.values is None and "float" not in takes and not found.whole:
            whole = found.kind.replace("uniform", "randint")
            raise ValueError(f"space.{key}: it takes whole numbers, and {found.kind} draws others; write {whole}")

    def _search(self) -> None:
        """Whether search, samples, scheduler and objectives go together."""
        drawn = [key for key, found in self.space.items() if found.grid is None]
        if self.search != "grid" and self.samples is None:
            raise ValueError(f"samples: say how many trials {self.search} may draw")
        if self.search == "grid" and not drawn and (self.samples or 1) > 1:
            raise ValueError("samples: a grid without drawn dimensions would only repeat its trials; leave it unset")
        if not self.objectives:
            raise ValueError("objectives: name at least one")
        for name in self.objectives:
            if name not in METRICS:
                near = did_you_mean(name, METRICS) or ";"
                raise ValueError(f"objectives: unknown {name!r}{near} choose among {', '.join(METRICS)}")
        if self.scheduler == "asha" and len(self.objectives) > 1:
            raise ValueError(
                f"scheduler: asha takes one objective, not {', '.join(self.objectives)}; for example objectives: "
                "{score: max}"
            )
        for key, found in self.space.items() if self.search == "optuna" else ():
            if found.values is None and found.step is not None and found.logarithmic:
                kind = found.kind.removeprefix("q")
                raise ValueError(f"space.{key}: optuna has no {found.kind}; write {kind}, or a choice of the values")
        if self.base.engine.backend == "local" and (self.scheduler == "asha" or self.search == "optuna"):
            raise ValueError(
                "base.engine.backend: local runs grid and random in a plain loop; optuna and asha need ray"
            )

    def _list(self) -> None:
        """Whether the trials can be listed and any can be run, and no value is wrong by itself."""
        if self.count > self.max_trials:
            raise ValueError(f"max_trials: the space has {self.count} trials, more than the {self.max_trials} allowed; "
                             "make it smaller, or raise max_trials")  # fmt: skip
        trials = self.trials if self.search != "optuna" else self.corners
        good = {(key, json.dumps(v)) for t in trials if t.config is not None for key, v in t.values.items()}
        wrong: list[tuple[str, Any, str]] = []
        everything = self.search == "grid" and all(found.grid is not None for found in self.dimensions.values())
        for key, found in self.dimensions.items():
            alone = {json.dumps(value): self.trial(0, {key: value}) for value in found.samples}
            self._distinct(key, alone)
            for text, trial in alone.items():
                if (key, text) in good:
                    continue
                if everything:  # it was tried with all the others
                    wrong.append((key, trial.values[key], trial.reason or _first_reason(trials, key, text)))
                elif trial.config is None and not self._possible(key, trial.values[key]):
                    wrong.append((key, trial.values[key], trial.reason))
        for key, value, reason in sorted(wrong, key=lambda case: case[0] != case[2].partition(": ")[0]):
            raise ValueError(self._blamed_value(key, value, reason))
        if not any(trial.config for trial in trials):
            raise ValueError(f"space: none of its {len(trials)} trials can be run; the first: {trials[0].reason}")

    def _distinct(self, key: str, alone: Mapping[str, Trial]) -> None:
        """Raises ValueError where two values of a dimension are two ways to write the same."""
        seen: dict[RunConfig, str] = {}
        for text, trial in alone.items():
            if trial.config is None or text == '"all"':  # how many that is depends on the model, which may vary too
                continue
            if (other := seen.setdefault(trial.config, text)) != text:
                raise ValueError(f"space.{key}: {other} and {text} are the same")

    def _possible(self, key: str, value: Any) -> bool:
        """Whether a value that is wrong with the base alone goes with a value of another dimension."""
        others = ((name, v) for name, found in self.dimensions.items() if name != key for v in found.samples)
        return any(self.trial(0, {name: v, key: value}).config is not None for name, v in others)

    def blamed(self, reason: str) -> str:
        """What is wrong with a run, `field: ...`, under the name that the field has here."""
        field, _, what = reason.partition(": ")
        if field == "seed" and self.seeds is not None:
            return f"seeds: {what}"
        return f"{'space' if field in self.space else 'base'}.{reason}"

    def _blamed_value(self, key: str, value: Any, reason: str) -> str:
        """What is wrong with a value of a dimension, and with which field, if that is another."""
        said = self.blamed(reason)
        return said if reason.startswith(f"{key}: ") else f"space.{key} = {json.dumps(value)}: {said}"

    @property
    def corners(self) -> list[Trial]:
        """Points that show every value, and both ends of every range, once."""
        columns = {key: list(found.samples) for key, found in self.dimensions.items()}
        longest = max(map(len, columns.values()))
        return [self.trial(n, {key: found[n % len(found)] for key, found in columns.items()}) for n in range(longest)]

    # -- the trials

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """The space with the seeds, which vary slowest."""
        seeds = {} if self.seeds is None else {"seed": Dimension(grid=self.seeds)}
        return {**seeds, **self.space}

    @property
    def count(self) -> int:
        """How many trials there are, at the most where optuna proposes them."""
        if self.search != "grid":
            return self.samples or 0
        grids = (len(found.grid) for found in self.dimensions.values() if found.grid is not None)
        return math.prod(grids) * (self.samples or 1)

    @property
    def draws(self) -> int:
        """On how many seeds a setting is tried; 1 where anything is drawn, for then no setting comes twice."""
        seeds, drawn = self.dimensions.get("seed"), any(found.grid is None for found in self.dimensions.values())
        return len(seeds.grid) if seeds and seeds.grid and not drawn and self.search == "grid" else 1

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trials of a grid or a random search. Those that share a model follow each other, for warm caches.

        The trials of a random search are numbered as they were drawn, so that more of them leave the numbers alone.
        """
        assert self.search != "optuna", "optuna proposes its trials one by one"
        points = list(self._points())
        shared = {key: None for key in self.dimensions if key == "seed" or key.partition(".")[0] not in METHOD_SECTIONS}
        groups: dict[str, int] = {}
        group = [groups.setdefault(json.dumps([point[key] for key in shared]), len(groups)) for point in points]
        order = sorted(range(len(points)), key=group.__getitem__)
        drawn = self.search == "random"
        return tuple(self.trial(n if drawn else place, points[n]) for place, n in enumerate(order))

    def _points(self) -> Iterator[dict[str, Any]]:
        whole = {k: found.grid for k, found in self.dimensions.items() if found.grid and self.search == "grid"}
        drawn = {key: found for key, found in self.dimensions.items() if key not in whole}
        number = 0
        for fixed in itertools.product(*whole.values()):
            for _ in range(self.samples or 1):
                values = dict(zip(whole, fixed, strict=True))
                values |= {key: found.draw(self.seed, key, number) for key, found in drawn.items()}
                yield {key: values[key] for key in self.dimensions}
                number += 1

    def trial(self, number: int, values: Mapping[str, Any]) -> Trial:
        """The trial at one point."""
        nested = self.base.model_dump(mode="json", by_alias=True)
        for key, value in values.items():
            put(nested, key, value, "space")
        if nested["unlearn"]["layers"] == "all":
            own = nested["model"]["factory"] or nested["model"]["args"]
            model = None if own else registry.MODELS.get(nested["model"]["name"])
            if model is None:
                reason = "all: how many layers there are is not known before the model is built; write their number"
                return Trial(number, dict(values), None, f"unlearn.layers: {reason}")
            nested["unlearn"]["layers"] = len(model.ranked)
        try:
            return Trial(number, dict(values), validated(RunConfig, nested))
        except ConfigError as error:
            return Trial(number, dict(values), None, str(error))

    @property
    def likely(self) -> list[Trial]:
        """A subset of the trials that trains every shared model, but for drawn settings of training."""
        columns = {}
        for key, found in self.dimensions.items():
            values = found.samples
            shapes = key == "unlearn.method" or key == "seed" or key.partition(".")[0] not in METHOD_SECTIONS
            columns[key] = values if shapes and found.values else values[:1]
        points = (dict(zip(columns, point, strict=True)) for point in itertools.product(*columns.values()))
        return [self.trial(number, point) for number, point in enumerate(points)]

    # -- what trials share

    @property
    def store(self) -> Path:
        """Where models are kept."""
        return Path(self.output.store or Path(self.output.dir) / "store").absolute()

    def model(self, config: RunConfig) -> RunConfig:
        """The run that pre-trains for a trial, and ranks the layers, which is the same for all trials on its model."""
        history = config.keeps_history
        folder = config.pretrain_key()[:24] + ("-history" if history else "")
        rank = {"layers": 1, "selection": "critical", "mask": "random", "start": "zero", "rounds": 0}
        settings: dict[str, Any] = {"unlearn": rank, "retrain": {"rounds": 0}}
        return self._shared(config, f"models/{folder}", settings, {"pretrain.history": history})

    def reference(self, config: RunConfig) -> RunConfig | None:
        """The run that retrains without what a trial forgets; None where the trial leaves the comparison out."""
        if config.retrain_rounds == 0:
            return None
        settings = {"unlearn": {"method": "retrain"}, "retrain": {"rounds": config.retrain_rounds}}
        return self._shared(
            config, f"retrained/{config.retrain_key()[:24]}", settings, {"pretrain.from": self.model(config).output.dir}
        )

    def run(self, trial: Trial) -> RunConfig:
        """The run of a trial in the sweep's directory, on its shared model; the sweep draws its own plots."""
        return self._run(trial, f"trials/{trial.name}", {})

    def shorter(self, trial: Trial, rounds: int) -> RunConfig:
        """The run of a trial once more, that ends after so many of its rounds; its model is the one after that round.

        Raises ConfigError if the trial's method does not end there.
        """
        assert trial.config is not None
        method = trial.config.unlearn.method
        about = registry.METHODS[method]
        if about.rounds is None or rounds < about.first:
            raise ConfigError(f"there is no model of {method} after round {rounds}: it does not end there")
        return self._run(trial, f"audited/{trial.name}-r{rounds}", {about.rounds: rounds - about.first})

    def _run(self, trial: Trial, folder: str, fields: Mapping[str, Any]) -> RunConfig:
        assert trial.config is not None
        values = trial.config.model_dump(mode="json", by_alias=True)
        place = Path(self.output.dir).absolute() / folder
        own = {"retrain.rounds": 0, "pretrain.history": False, "pretrain.from": self.model(trial.config).output.dir}
        if trial.config.unlearn.method == "retrain":
            del own["retrain.rounds"]  # what the trial is about
        own |= {"audit.enabled": False, "output.plots": "none", "output.dir": str(place), **fields}
        for key, value in own.items():
            put(values, key, value, trial.name)
        return validated(RunConfig, values, source=f"trial {trial.name}")

    def _shared(
        self, config: RunConfig, folder: str, sections: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> RunConfig:
        values = config.model_dump(mode="json", by_alias=True) | dict(sections)
        own = {"audit.enabled": False, "output.plots": "none", "output.dir": str(self.store / folder)}
        for key, value in {**fields, **own}.items():
            put(values, key, value, folder)
        return validated(RunConfig, values, source=folder)

    # -- files

    def located(self) -> SweepConfig:
        """The same with absolute paths of what is read and of the store, so that it means the same in any process."""
        values = self.model_dump(mode="json", by_alias=True)
        values["base"] = self.base.located().model_dump(mode="json", by_alias=True)
        values["output"]["store"] = absolute(self.output.store)
        for key, found in self.space.items():
            if key in INPUTS and found.values is not None:
                values["space"][key] = {found.kind: [absolute(value) for value in found.values]}
        return validated(SweepConfig, values)

    def at(self, path: str | Path) -> SweepConfig:
        """The same sweep in another directory."""
        values = self.model_dump(mode="json", by_alias=True)
        put(values, "output.dir", str(path), "output")
        return validated(SweepConfig, values)

    def to_yaml(self) -> str:
        """The whole configuration as YAML, which `from_yaml` reads back to an equal object."""
        return dump(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        overrides: Sequence[str] = (),
        source: str = "",
        preset: str | None = None,
    ) -> SweepConfig:
        """Validate nested values plus `dotted.key=value` overrides; `base.*` reaches into the base configuration.

        A dotted key of the space is set as `space.unlearn.lr={loguniform: [0.01, 1]}`. A run's preset is put under
        `base`, whose path, if it is one, counts from the source's folder. Raises ConfigError in one line that names
        what is wrong.
        """
        merged = plain(values, source or "the sweep")
        ordinary = []
        if isinstance(merged, dict):
            merged["base"] = base_of(merged.get("base"), source)
            merged = over({"base": read_preset(preset)}, merged)
        for override in overrides:
            if isinstance(merged, dict) and override.strip().startswith("space."):
                _override_space(merged, override)
            else:
                ordinary.append(override)
        return validated(cls, merged, ordinary, source)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = (), preset: str | None = None) -> SweepConfig:
        """Read a YAML file, put a preset under its base, and apply overrides. Raises ConfigError."""
        values = read_yaml(path)
        check_kind(values, SWEEP, path)
        return cls.from_dict(values, overrides, str(path), preset)


def _first_reason(trials: Sequence[Trial], key: str, text: str) -> str:
    """Why the first trial with that value, as JSON, cannot be run."""
    return next(trial.reason for trial in trials if json.dumps(trial.values[key]) == text)


def _override_space(values: dict[str, Any], override: str) -> None:
    """`space.unlearn.lr={...}`: what stands behind `space.` is one key, dots and all; null takes it out."""
    key, equals, text = override.strip().partition("=")
    found = value_of(override, text) if equals else ""
    if not isinstance(found, dict | None):
        raise ConfigError(f"--set {override!r}: write it as space.unlearn.lr={{grid: [0.1, 0.2]}}, or =null to drop it")
    if values.get("space") is None:
        values["space"] = {}
    space = values["space"]
    if not isinstance(space, dict):
        raise ConfigError("space: it must map dotted fields to their values")
    name = key.removeprefix("space.").strip()
    if found is None:
        space.pop(name, None)
    else:
        space[name] = found
