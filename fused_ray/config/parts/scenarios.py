"""Scenarios, what must be forgotten: what is known of each without importing it.

A new one is a function in `data/scenarios.py`, an entry here, and its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from fused_ray.config.parts.door import Door

Kind = Literal["class", "client", "sample", "exclusive"]


@dataclass(frozen=True)
class Request:
    """A scenario: what must be forgotten; its settings stand in forget.args."""

    forget: str | Callable[..., Any]
    """A function of (Settings, ImageData, Partition) that returns Forgotten, or where it is: package.module:function.
    A scenario finds its own settings in `settings.scenario_options`."""
    like: Kind
    """What goes, in kind: whole classes (class), all of some clients (client), single examples (sample), or all that
    one client alone knew (exclusive). Methods say by these names what they can do."""
    what: str = ""
    """What goes, in the words of a title: "forgetting ..."."""
    section: type[BaseModel] | None = None
    """The settings of its own, a subclass of `fused_ray.config.Section`."""


SCENARIOS: dict[str, Request] = {
    "class": Request("fused_ray.data.scenarios:forget_classes", "class"),
    "client": Request("fused_ray.data.scenarios:forget_clients", "client"),
    "sample": Request("fused_ray.data.scenarios:forget_samples", "sample"),
    "exclusive": Request("fused_ray.data.scenarios:forget_exclusive", "exclusive"),
}
SCENARIO = Door("scenario", "fused_ray.scenarios", SCENARIOS, Request, "a fused_ray.api.Request")
