"""What the adapter of `fused` is made of: its kind, which layers, which of their entries, and where they start.

A new one is a function in `core`, an entry here, and its test; one that another package brings is such a record there.
These doors are provisional: what their functions take may still change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fused_ray.config.parts.door import Door, Part


@dataclass(frozen=True)
class AdapterKind(Part):
    """(Making, settings) -> Made: the adapter (core.adapter.Adapter), its values [V] at the start, what it must tell.

    One of another package has `saved()` -> (plain values, arrays by name), which go into its file.
    """

    masked: bool = False
    """Whether it changes single entries, which a mask rule chooses and a start sets."""
    load: str | Callable[..., Any] | None = None
    """(plain values, arrays) -> the adapter whose `saved()` gave these, or where that is: package.module:function."""


@dataclass(frozen=True)
class Selection(Part):
    """(Candidates, settings) -> the names of layers, the one that is wanted most first; `unlearn.layers` are taken."""

    ranks: bool = False
    """Whether it needs the round that ranks the layers."""
    shares: bool = False
    """Whether it adapts all layers instead, which share `unlearn.budget` by their ranks."""

    @property
    def alone(self) -> bool:
        """Whether the ranking decides which layers are taken, and nothing else."""
        return self.ranks and not self.shares


@dataclass(frozen=True)
class MaskRule(Part):
    """(Making, settings) -> core.adapter.Masks: which entries of the chosen layers the adapter may change."""

    told: bool = False
    """Whether clients must be sent the masks, for neither the seed nor M_r tells them."""
    phases: Callable[[Any], Mapping[str, int]] = field(default=lambda settings: {})
    """The rounds that it asks clients for, by phase, from a run's Settings."""


@dataclass(frozen=True)
class Start(Part):
    """(weights, settings) -> the values [n] at which entries with these weights, float32 [n], start."""

    moves: bool = True
    """Whether the model with the adapter is another one from the beginning."""
    zeroes: bool = False
    """Whether entries then read zero; a whole layer of zeros may never learn again."""


def _gradients(settings: Any) -> Mapping[str, int]:
    if settings.keeps_all:
        return {}
    return {"saliency": settings.gradient_rounds}


ADAPTERS: Mapping[str, AdapterKind] = {
    "sparse": AdapterKind("fused_ray.core.masks:sparse", masked=True),
    "lora": AdapterKind("fused_ray.core.lora:low_rank"),
}
SELECTIONS: Mapping[str, Selection] = {
    "critical": Selection("fused_ray.core.layers:critical", ranks=True),
    "random": Selection("fused_ray.core.layers:at_random"),
    "last": Selection("fused_ray.core.layers:last"),
    "budget": Selection(None, ranks=True, shares=True),
}
MASK_RULES: Mapping[str, MaskRule] = {
    "random": MaskRule("fused_ray.core.masks:at_random"),
    "saliency": MaskRule("fused_ray.core.masks:salient", told=True, phases=_gradients),
}
STARTS: Mapping[str, Start] = {
    "zero": Start("fused_ray.core.starts:zero", moves=False),
    "reset": Start("fused_ray.core.starts:reset", zeroes=True),
    "negate": Start("fused_ray.core.starts:negate"),
}
ADAPTER = Door("adapter kind", "fused_ray.adapters", ADAPTERS, AdapterKind, "a fused_ray.api.AdapterKind")
SELECTION = Door("selection", "fused_ray.selections", SELECTIONS, Selection, "a fused_ray.api.Selection")
MASK_RULE = Door("mask rule", "fused_ray.masks", MASK_RULES, MaskRule, "a fused_ray.api.MaskRule")
START = Door("start", "fused_ray.starts", STARTS, Start, "a fused_ray.api.Start")
