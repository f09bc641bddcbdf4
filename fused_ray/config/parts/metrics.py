"""Further figures of an audit: what is known of each without importing it.

A new one is a file in `audit/metrics`, an entry here, and its test. One that another package brings is a `Metric`
there. Its figures then stand in audit.json, result.json, the run's report, and the tables of comparisons and sweeps.
One that asks a question with an answer returns an `Answer`; docs/audit.md tells what those of this package ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fused_ray.config.parts.door import Door, imported


@dataclass(frozen=True)
class Answer:
    """Figures that answer a question."""

    figures: Mapping[str, float]
    """By name, for tables; a figure `passes`, 1 or 0, comes to them."""
    passes: bool | None
    """None: it cannot be told."""
    said: str
    """The answer in one sentence, with the figures and the threshold that it rests on."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that the figures come from, for audit.json alone."""


Measured = float | Mapping[str, float] | Answer
"""What a metric returns."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure, or several, of the model that forgot. They change no verdict."""

    name: str
    """Small letters, digits and _; a column of tables has it."""
    measure: Callable[[Any], Measured] | str
    """A function of what the audit knows (`fused_ray.api.Evidence`), or where it is: package.module:function."""
    better: Literal["higher", "lower", "none"] = "none"
    """Which direction is better; none: neither, as of a figure that should be the retrained model's."""
    meaning: str
    """What it is, in one line."""
    headline: tuple[str, ...] = ()
    """Of several figures those that tables for people show, named without the metric's name; none said: all."""
    rounds: Callable[[Any], int] | None = None
    """How many rounds it trains at most (`Evidence.federation`), by the run's configuration, for estimates of time;
    None: it trains nothing."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"a metric's name {self.name!r} is one of small letters, digits and _")
        if self.better not in ("higher", "lower", "none"):
            raise ValueError(f"metric {self.name}: better is higher, lower or none, not {self.better!r}")

    @property
    def function(self) -> Callable[[Any], Measured]:
        """Imported. Raises ValueError where it cannot be."""
        return self.measure if callable(self.measure) else imported(self.measure)

    def gives(self, figure: str) -> bool:
        """Whether a figure of this name is its."""
        return figure == self.name or figure.startswith(f"{self.name}_")

    def shows(self, figure: str) -> bool:
        """Whether a table for people shows a figure; one that is another metric's, too."""
        if not self.headline or not self.gives(figure):
            return True
        return figure in {f"{self.name}_{part}" for part in self.headline}

    @property
    def legend(self) -> str:
        """What it is and which direction is better."""
        direction = "" if self.better == "none" else f" ({self.better} is better)"
        return " ".join(self.meaning.split()).rstrip(".") + direction


ANSWER = ("passes",)
METRICS: dict[str, Metric] = {
    "agreement": Metric(
        name="agreement",
        measure="fused_ray.audit.metrics.agreement:measure",
        better="higher",
        meaning="share of the test images of each view that it and the retrained model call the same",
    ),
    "resurfacing": Metric(
        name="resurfacing",
        measure="fused_ray.audit.metrics.resurfacing:measure",
        meaning="what comes back in further rounds on the data that stay, beside retrained models",
        headline=ANSWER,
        rounds=lambda config: 4 * min(20, config.pretrain.rounds),
    ),
    "quantised": Metric(
        name="quantised",
        measure="fused_ray.audit.metrics.quantised:measure",
        meaning="what comes back when the merged weights are rounded to 8 and to 4 bits",
        headline=ANSWER,
    ),
    "memorised": Metric(
        name="memorised",
        measure="fused_ray.audit.metrics.memorised:measure",
        meaning="whether the forgotten examples that were memorised most are known still",
        headline=ANSWER,
    ),
    "residual": Metric(
        name="residual",
        measure="fused_ray.audit.metrics.residual:measure",
        meaning="whether forgotten examples are recognised near by more often than the retrained model does",
        headline=ANSWER,
    ),
    "worst_client": Metric(
        name="worst_client",
        measure="fused_ray.audit.metrics.worst_client:measure",
        meaning="RA of the client that is served worst, and who pays for the forgetting",
        headline=ANSWER,
    ),
    "giveaway": Metric(
        name="giveaway",
        measure="fused_ray.audit.metrics.giveaway:measure",
        meaning="what an attacker learns of the forgotten data from the models before and after and from gradients",
    ),
}
FULL = ("resurfacing", "quantised", "memorised", "residual", "worst_client", "giveaway")
"""Those that `fused-ray audit --full` takes."""
METRIC = Door("metric", "fused_ray.metrics", METRICS, Metric, "a fused_ray.api.Metric")


def further_metrics(names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these names or places. Raises ValueError where one is not there, or two have one name."""
    metrics = tuple(METRIC.find(name) for name in names)
    own = [metric.name for metric in metrics]
    if twice := [name for name in own if own.count(name) > 1]:
        raise ValueError(f"two metrics are called {twice[0]}; leave one of them out")
    return metrics
