"""Further figures of an audit: what is known of each without importing it.

A new one is a file in `audit/metrics`, an entry here, and its test. One that another package brings is a `Metric`
there. Its figures then stand in audit.json, result.json, the run's report, and the tables of comparisons and sweeps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fused_ray.config.parts.door import Door, imported


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure, or several, of the model that forgot. They change no verdict."""

    name: str
    """Small letters, digits and _; a column of tables has it."""
    measure: Callable[[Any], float | Mapping[str, float]] | str
    """A function of what the audit knows (`fused_ray.api.Evidence`), or where it is: package.module:function."""
    better: Literal["higher", "lower", "none"] = "none"
    """Which direction is better; none: neither, as of a figure that should be the retrained model's."""
    meaning: str
    """What it is, in one line."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"a metric's name {self.name!r} is one of small letters, digits and _")
        if self.better not in ("higher", "lower", "none"):
            raise ValueError(f"metric {self.name}: better is higher, lower or none, not {self.better!r}")

    @property
    def function(self) -> Callable[[Any], float | Mapping[str, float]]:
        """Imported. Raises ValueError where it cannot be."""
        return self.measure if callable(self.measure) else imported(self.measure)

    def gives(self, figure: str) -> bool:
        """Whether a figure of this name is its."""
        return figure == self.name or figure.startswith(f"{self.name}_")

    @property
    def legend(self) -> str:
        """What it is and which direction is better."""
        direction = "" if self.better == "none" else f" ({self.better} is better)"
        return " ".join(self.meaning.split()).rstrip(".") + direction


METRICS: dict[str, Metric] = {
    "agreement": Metric(
        name="agreement",
        measure="fused_ray.audit.metrics.agreement:measure",
        better="higher",
        meaning="share of the test images of each view that it and the retrained model call the same",
    ),
    "giveaway": Metric(
        name="giveaway",
        measure="fused_ray.audit.metrics.giveaway:measure",
        meaning="what an attacker learns of the forgotten data from the models before and after and from gradients",
    ),
}
FULL = ("giveaway",)
"""Those that `fused-ray audit --full` takes anyway."""
METRIC = Door("metric", "fused_ray.metrics", METRICS, Metric, "a fused_ray.api.Metric")


def further_metrics(names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these names or places. Raises ValueError where one is not there, or two have one name."""
    metrics = tuple(METRIC.find(name) for name in names)
    own = [metric.name for metric in metrics]
    if twice := [name for name in own if own.count(name) > 1]:
        raise ValueError(f"two metrics are called {twice[0]}; leave one of them out")
    return metrics
