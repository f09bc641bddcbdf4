"""What an adapter is made from, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray.config.parts.door import function
from fused_ray.core.adapter import Adapter, Masks, largest
from fused_ray.core.rounds import Federation
from fused_ray.core.state import Arrays
from fused_ray.core.wire import Delivery
from fused_ray.errors import ConfigError
from fused_ray.types import FloatVector


@dataclass(frozen=True)
class Making:
    """An adapter is to be made on some layers of M_r."""

    federation: Federation
    base: Arrays
    """M_r."""
    chosen: Mapping[str, int | None]
    """The layers in the model's order, each with its share of a budget if every layer has one of its own."""
    delivery: Delivery
    """Who has been sent M_r so far; a rule that asks clients about it tells whom it asks."""

    @property
    def names(self) -> list[str]:
        """The layers in the model's order."""
        return list(self.chosen)

    @property
    def counts(self) -> dict[str, int] | None:
        """The layers' shares of a budget; None where they have none of their own."""
        return {layer: count for layer, count in self.chosen.items() if count is not None} or None

    def largest(self, scores: Mapping[str, NDArray[np.floating[Any]]]) -> Masks:
        """The masks of the entries with the largest scores, as many as budget or sparsity say, by layer [entries]."""
        config, entries = self.federation.config, {layer: len(scores[layer]) for layer in self.names}
        end_to_end = np.concatenate([scores[layer] for layer in self.names])
        return largest(end_to_end, entries, config.unlearn.budget, config.adapter_density, self.counts)


@dataclass(frozen=True)
class Made:
    """An adapter, and how it begins."""

    adapter: Adapter
    values: FloatVector
    """At the start [V]."""
    told: int = 0
    """Protocol bytes by which each client is told what the adapter is, where neither seed nor M_r says it."""
    healing: int = 0
    """How many of the values heal: nothing chose them, and they start at zero."""


def check_made(made: Any, load: str | Callable[..., Any], name: str) -> None:
    """Raise ConfigError unless a kind of adapter of another package gave what can be trained, kept and read again."""
    if not isinstance(made, Made):
        raise ConfigError(f"unlearn.adapter: {name} gave {type(made).__name__}; a kind of adapter returns Made")
    values, size = made.values, made.adapter.size
    if getattr(values, "dtype", None) != np.float32 or values.shape != (size,) or not np.isfinite(values).all():
        raise ConfigError(f"unlearn.adapter: {name} must start with {size} finite values, float32")
    meaning, arrays = made.adapter.saved()
    try:
        again = function(load)(json.loads(json.dumps(meaning)), arrays).digest
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError(f"unlearn.adapter: {name} is not read from its file again: {error}") from None
    if again != made.adapter.digest:
        raise ConfigError(
            f"unlearn.adapter: {name} is another one when it is read from its file again; `load` must undo `saved`, "
            "of which JSON makes tuples lists"
        )
