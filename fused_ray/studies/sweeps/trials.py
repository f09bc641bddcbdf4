"""The trials of a sweep: the points of its space, each as an ordinary run's configuration."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from fused_ray.config import RunConfig, Section
from fused_ray.config.fields import Auto, Count, Drawn, Integers, Place, Results
from fused_ray.config.kinds import base_of
from fused_ray.config.parts.methods import METHOD_SECTIONS
from fused_ray.config.parts.models import MODELS
from fused_ray.config.settings import exchanging
from fused_ray.config.validation import mistakes, put, validated
from fused_ray.errors import ConfigError
from fused_ray.studies.settings import StudySettings
from fused_ray.studies.sweeps.dimension import Dimension


class SweepOutput(Section):
    """Where the sweep goes."""

    dir: Results = "runs/sweep"
    """Its directory; an existing one is refused unless told otherwise."""
    store: Place | None = None
    """Folder of pre-trained and retrained models that studies share; unset: one in the sweep's directory."""
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


class SweepSettings(StudySettings):
    """Everything that a sweep depends on, and the trials that it comes to."""

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
        dimensions = {}
        for key, given in space.items():
            if not isinstance(given, dict | Dimension):
                values = json.dumps(given if isinstance(given, list) else [given])
                raise ValueError(f"{key}: say how it varies, as in {{grid: {values}}}")
            named = given if isinstance(given, Dimension) else {"grid" if k == "grid_search" else k: v
                                                                for k, v in given.items()}  # fmt: skip
            try:
                dimensions[key] = Dimension.model_validate(named)
            except ValidationError as error:
                raise ValueError(mistakes(Dimension, error, key)) from None
        return dimensions

    def blamed(self, reason: str) -> str:
        """What is wrong with a run, `field: ...`, under the name that the field has here."""
        field, _, what = reason.partition(": ")
        if field == "seed" and self.seeds is not None:
            return f"seeds: {what}"
        return f"{'space' if field in self.space else 'base'}.{reason}"

    @property
    def corners(self) -> list[Trial]:
        """Points that show every value, and both ends of every range, once."""
        columns = {key: list(dimension.samples) for key, dimension in self.dimensions.items()}
        longest = max(map(len, columns.values()))
        return [self.trial(n, {key: each[n % len(each)] for key, each in columns.items()}) for n in range(longest)]

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
        grids = (len(dimension.grid) for dimension in self.dimensions.values() if dimension.grid is not None)
        return math.prod(grids) * (self.samples or 1)

    @property
    def draws(self) -> int:
        """On how many seeds a setting is tried; 1 where anything is drawn, for then no setting comes twice."""
        seeds, drawn = self.dimensions.get("seed"), any(d.grid is None for d in self.dimensions.values())
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
        whole = {key: d.grid for key, d in self.dimensions.items() if d.grid and self.search == "grid"}
        drawn = {key: dimension for key, dimension in self.dimensions.items() if key not in whole}
        number = 0
        for fixed in itertools.product(*whole.values()):
            for _ in range(self.samples or 1):
                values = dict(zip(whole, fixed, strict=True))
                values |= {key: dimension.draw(self.seed, key, number) for key, dimension in drawn.items()}
                yield {key: values[key] for key in self.dimensions}
                number += 1

    def trial(self, number: int, values: Mapping[str, Any]) -> Trial:
        """The trial at one point."""
        nested = self.base.model_dump(mode="json", by_alias=True)
        for key, value in exchanging(nested, values).items():
            put(nested, key, value, "space")
        if nested["unlearn"]["layers"] == "all":
            own = nested["model"]["factory"] or nested["model"]["args"]
            model = None if own else MODELS.get(nested["model"]["name"])
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
        for key, dimension in self.dimensions.items():
            values = dimension.samples
            shapes = key == "unlearn.method" or key == "seed" or key.partition(".")[0] not in METHOD_SECTIONS
            columns[key] = values if shapes and dimension.values else values[:1]
        points = (dict(zip(columns, point, strict=True)) for point in itertools.product(*columns.values()))
        return [self.trial(number, point) for number, point in enumerate(points)]
