"""What a sweep consists of: a space over config fields on one base configuration, as a list of ordinary runs.

Every trial unlearns in a run of its own, from a model that is pre-trained once for all trials with the same
pre-training; the model retrained without the forgotten data is shared likewise. All configurations of a grid or a
random search are built and checked before anything starts. Neither torch nor Ray is imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import model_validator

from fused_ray.config import RunConfig, describe
from fused_ray.config.kinds import SWEEP, base_of, check_kind
from fused_ray.config.older_names import all_renamed
from fused_ray.config.paths import absolute
from fused_ray.config.preset import over, read_preset
from fused_ray.config.sections import INPUTS
from fused_ray.config.suggest import did_you_mean
from fused_ray.config.validation import put, validated, value_of
from fused_ray.config.yaml_text import plain, read_yaml
from fused_ray.errors import ConfigError
from fused_ray.studies.store import pretraining, retraining
from fused_ray.studies.sweeps.dimension import Dimension, twice
from fused_ray.studies.sweeps.trials import SweepSettings, Trial

METRICS = ("ra", "fa", "ca", "bytes_up_total", "seconds", "score")
"""What may be an objective: columns of trials.parquet, accuracies on the half that is chosen by; score = ra - fa."""
_OURS = ("engine.", "output.", "audit.", "pretrain.from", "pretrain.history", "federation.clients_per_actor",
         "federation.actor_cpus", "federation.actor_gpus", "federation.actor_labels")  # fmt: skip
"""What the sweep sets itself, or what changes no result."""


class SweepConfig(SweepSettings):
    """Everything that a sweep depends on."""

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
        for key, dimension in self.space.items():
            self._field(key, dimension, kinds)
        self._search()
        self._list()
        return self

    def _field(self, key: str, dimension: Dimension, kinds: Mapping[str, str]) -> None:
        """Whether a dimension is that of a field which may vary, and draws what the field takes."""
        if any(kind == "mapping" and key.startswith(f"{name}.") for name, kind in kinds.items()):
            return  # a part's own setting, of which the part itself says what it takes
        if key not in kinds:
            near = did_you_mean(key, kinds) or "; `fused-ray init` writes all fields with what they mean"
            raise ValueError(f"space.{key}: there is no such field{near}")
        if key.startswith(_OURS):
            raise ValueError(
                f"space.{key}: this is no dimension: it changes no result, or the sweep sets it; set base.{key}"
            )
        takes = set(re.findall(r"\w+", kinds[key]))
        if dimension.values is None and not takes & {"int", "float"}:
            raise ValueError(f"space.{key}: it takes no numbers; write grid or choice instead of {dimension.kind}")
        if dimension.values is None and "float" not in takes and not dimension.whole:
            whole = dimension.kind.replace("uniform", "randint")
            raise ValueError(f"space.{key}: it takes whole numbers, and {dimension.kind} draws others; write {whole}")

    def _search(self) -> None:
        """Whether search, samples, scheduler and objectives go together."""
        drawn = [key for key, dimension in self.space.items() if dimension.grid is None]
        if self.search != "grid" and self.samples is None:
            raise ValueError(f"samples: say how many trials {self.search} may draw")
        if self.search == "grid" and not drawn and (self.samples or 1) > 1:
            raise ValueError("samples: a grid without drawn dimensions would only repeat its trials; leave it unset")
        self.base.audit.check_shared("base.audit")
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
        for key, dimension in self.space.items() if self.search == "optuna" else ():
            if dimension.values is None and dimension.step is not None and dimension.logarithmic:
                kind = dimension.kind
                whole = kind.removeprefix("q")
                raise ValueError(f"space.{key}: optuna has no {kind}; write {whole}, or a choice of the values")
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
        everything = self.search == "grid" and all(dimension.grid is not None for dimension in self.dimensions.values())
        for key, dimension in self.dimensions.items():
            alone = {json.dumps(value): self.trial(0, {key: value}) for value in dimension.samples}
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
        others = ((name, v) for name, dimension in self.dimensions.items() if name != key for v in dimension.samples)
        return any(self.trial(0, {name: v, key: value}).config is not None for name, v in others)

    def _blamed_value(self, key: str, value: Any, reason: str) -> str:
        """What is wrong with a value of a dimension, and with which field, if that is another."""
        said = self.blamed(reason)
        return said if reason.startswith(f"{key}: ") else f"space.{key} = {json.dumps(value)}: {said}"

    @property
    def runs(self) -> list[RunConfig]:
        """The base and the trials that can be run; of what is proposed later, some that have every value named."""
        trials = self.likely if self.search == "optuna" else self.trials
        return [self.base, *(trial.config for trial in trials if trial.config)]

    # -- what trials share

    @property
    def store(self) -> Path:
        """Where models are kept."""
        return Path(self.output.store or Path(self.output.dir) / "store").absolute()

    def model(self, config: RunConfig) -> RunConfig:
        """The run that pre-trains and ranks for a trial."""
        return pretraining(self.store, config)

    def reference(self, config: RunConfig) -> RunConfig | None:
        """The run that retrains without what a trial forgets; None where the trial leaves the comparison out."""
        return retraining(self.store, config)

    def run(self, trial: Trial) -> RunConfig:
        """The run of a trial in the sweep's directory, on its shared model; the sweep draws its own plots."""
        return self._run(trial, f"trials/{trial.name}", {})

    def shorter(self, trial: Trial, rounds: int) -> RunConfig:
        """The run of a trial once more, that ends after so many of its rounds; its model is the one after that round.

        Raises ConfigError if the trial's method does not end there.
        """
        assert trial.config is not None
        method, about = trial.config.unlearn.method, trial.config.method
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
        own |= {
            "audit.enabled": False,
            "output.plots": "none",
            "output.report": False,
            "output.dir": str(place),
            **fields,
        }
        for key, value in own.items():
            put(values, key, value, trial.name)
        return validated(RunConfig, values, source=f"trial {trial.name}")

    # -- files

    def located(self) -> SweepConfig:
        """The same with absolute paths of what is read and of the store, so that it means the same in any process."""
        values = self.model_dump(mode="json", by_alias=True)
        values["base"] = self.base.located().model_dump(mode="json", by_alias=True)
        values["output"]["store"] = absolute(self.output.store)
        for key, dimension in self.space.items():
            if key in INPUTS and dimension.values is not None:
                values["space"][key] = {dimension.kind: [absolute(value) for value in dimension.values]}
        return validated(SweepConfig, values)

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
            merged = all_renamed(merged)
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
    dimension = value_of(override, text) if equals else ""
    if not isinstance(dimension, dict | None):
        raise ConfigError(f"--set {override!r}: write it as space.unlearn.lr={{grid: [0.1, 0.2]}}, or =null to drop it")
    if values.get("space") is None:
        values["space"] = {}
    space = values["space"]
    if not isinstance(space, dict):
        raise ConfigError("space: it must map dotted fields to their values")
    name = key.removeprefix("space.").strip()
    if dimension is None:
        space.pop(name, None)
    else:
        space[name] = dimension
