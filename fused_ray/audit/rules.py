"""Which rules a verdict is by. Nothing is imported here, so that a verdict can be shown without what finds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RULES = 2
"""Counts changes of what an audit measures and of the verdict's thresholds: an audit by other rules is made again."""


def outdated(judged: Mapping[str, Any]) -> bool:
    """Whether the `verdict` that something holds, if any, is by other rules than these, or does not say by which."""
    return bool(judged.get("verdict")) and judged.get("verdict_rules") != RULES
