"""What is made of the clients' updates, each by itself: what is known of each without importing it.

A new one is a function in `core/aggregates.py`, an entry here, and its test. One that another
package brings is such a record there. This door is provisional: what the functions take may still change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fused_ray.config.fields import Real, Section
from fused_ray.config.parts.door import Door, Part


@dataclass(frozen=True)
class Aggregate(Part):
    """(updates, examples, settings) -> float32 [L], made of what single clients sent: updates, each float32 [L].

    The clients are in the order of their numbers; `examples` says on how many each trained.
    """


class TrimmedConfig(Section):
    """Aggregate `trimmed`."""

    share: Annotated[Real, Field(gt=0, lt=0.5)] = 0.1
    """Share of the clients that is left out at each end of every value, their number rounded down."""


AGGREGATES: Mapping[str, Aggregate] = {
    "mean": Aggregate(None),  # the exact sum has it, and no update travels by itself
    "median": Aggregate("fused_ray.core.aggregates:median"),
    "trimmed": Aggregate("fused_ray.core.aggregates:trimmed_mean", TrimmedConfig),
}
AGGREGATE = Door(
    *("aggregate", "fused_ray.aggregates", AGGREGATES, Aggregate),
    must_be="a fused_ray.api.Aggregate",
)
