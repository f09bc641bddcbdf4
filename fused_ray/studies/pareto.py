"""What no other beats."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def unbeaten(items: Iterable[Item], figures: Callable[[Item], tuple[float, ...]]) -> list[Item]:
    """Those that no other beats, best first figure first: none has every figure no larger, and one smaller.

    Of several with the same figures the first one is kept.
    """
    front: list[Item] = []
    for item in sorted(items, key=figures):
        own = figures(item)
        if not any(all(a <= b for a, b in zip(figures(other), own, strict=True)) for other in front):
            front.append(item)  # whoever beats it, or equals it, comes before it in this order
    return front
