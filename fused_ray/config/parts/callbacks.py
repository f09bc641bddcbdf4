"""Callbacks: what a run tells of itself while it goes on, to objects of the user's. All of them come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fused_ray.config.parts.door import Door

HOOKS = ("on_run", "on_phase", "on_round", "on_client", "on_audit", "on_end")
"""The methods that a callback may have (`fused_ray.api.Callback`)."""


def hears(listener: Any) -> bool:
    """Whether an object, or a class of objects, has one of these methods."""
    return any(callable(getattr(listener, name, None)) for name in HOOKS)


NEEDED = f"an object or class with one of the methods {', '.join(HOOKS)}"
_NONE: Mapping[str, Any] = {}
CALLBACK: Door[Any] = Door("callback", "fused_ray.callbacks", _NONE, hears, NEEDED)
