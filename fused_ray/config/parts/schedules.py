"""Schedules of the learning rate: what is known of each without importing it.

A new one is a function in `core/schedules.py`, an entry here, and its test. One that another
package brings is such a record there. This door is provisional: what the functions take may still change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fused_ray.config.fields import Count, Real, Section
from fused_ray.config.parts.door import Door, Part


@dataclass(frozen=True)
class Schedule(Part):
    """(done, rounds, settings) -> what the learning rate is multiplied by, above 0, after `done` of so many rounds."""


class StepConfig(Section):
    """Schedule `step`."""

    every: Count = 10
    """Rounds after which the learning rate falls."""
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    """What it is multiplied by then."""


SCHEDULES: Mapping[str, Schedule] = {
    "constant": Schedule("fused_ray.core.schedules:constant"),
    "cosine": Schedule("fused_ray.core.schedules:cosine"),
    "linear": Schedule("fused_ray.core.schedules:linear"),
    "step": Schedule("fused_ray.core.schedules:step", StepConfig),
}
SCHEDULE = Door(
    *("schedule", "fused_ray.schedules", SCHEDULES, Schedule),
    must_be="a fused_ray.api.Schedule",
)
