"""Unlearning methods: one short file each, all called with a federation and M_r, all returning `Unlearned`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fused_ray.config.parts.door import function
from fused_ray.core import state
from fused_ray.core.adapter import Adapter
from fused_ray.core.layers import Sensitivity
from fused_ray.core.metrics import Metrics
from fused_ray.core.rounds import Federation
from fused_ray.core.state import Arrays
from fused_ray.errors import ConfigError
from fused_ray.types import FloatVector, Payload


@dataclass(frozen=True, kw_only=True)
class Unlearned:
    """What a method made of M_r, and what it needed for that."""

    state: Arrays
    """M_f, the whole model."""
    metrics: Metrics
    """After the last round."""
    start_metrics: Metrics
    """Before the first round: of the adapter as it starts, or of the model that the first round begins with."""
    before: Metrics | None = None
    """Of a model of the method's own that stands for M_r, where it has one."""
    adapter: Adapter | None = None
    """The adapter whose removal gives M_r back; None for a method that changes the whole model."""
    values: FloatVector | None = None
    """The adapter's values [V]."""
    mask_bytes: int = 0
    """Protocol bytes that say which entries the adapter changes, where the seed alone does not."""
    healing: int = 0
    """How many of the values heal (`unlearn.heal`)."""
    ranking: Sequence[Sensitivity] = field(default_factory=tuple)
    """Every layer, most sensitive first; empty where nothing was ranked."""
    storage_bytes: int = 0
    """What the server must have stored during training for it, beside the model, bytes."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Further figures of the method for the report, by name."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Forget D_u of the federation's scenario by the configured method."""
    method: Callable[[Federation, Arrays], object] = function(federation.config.method.entry)
    outcome = method(federation, base)
    if not isinstance(outcome, Unlearned):  # it may be another package's
        name = federation.config.unlearn.method
        raise ConfigError(f"unlearn.method: {name} gave {type(outcome).__name__}; a method returns Unlearned")
    missing = federation.scenario.views.keys() - (outcome.metrics.keys() & outcome.start_metrics.keys())
    if missing:
        name = federation.config.unlearn.method
        raise ConfigError(f"unlearn.method: {name} gave no accuracy of {', '.join(sorted(missing))}; see evaluate()")
    return outcome


def model_bytes(payload: Payload) -> int:
    """S, a model's size in memory, bytes: what storing one costs."""
    return payload.values.nbytes + payload.counters.nbytes


def whole_model(payload: Payload, like: Arrays, metrics: Metrics, start: Metrics, storage_bytes: int = 0) -> Unlearned:
    """The outcome of a method that changes the whole model."""
    return Unlearned(
        state=state.unflatten(payload, like), metrics=metrics, start_metrics=start, storage_bytes=storage_bytes
    )
