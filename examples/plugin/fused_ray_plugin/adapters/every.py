"""Every so many layers, counted from the output: it needs no ranking, and reaches down into the model."""

from pydantic import Field

from fused_ray.api import Candidates, Section, Selection


class Every(Section):
    step: int = Field(default=2, ge=1)
    """How many layers from one to the next."""


def every(candidates: Candidates, settings: Every) -> list[str]:
    upwards = list(reversed(candidates.names))
    wanted = upwards[:: settings.step]
    return wanted + [name for name in upwards if name not in wanted]


SELECTION = Selection(every, Every)
