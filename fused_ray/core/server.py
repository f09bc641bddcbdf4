"""What the server makes of a round where it does more than take the mean: another aggregate, and a step of its own.

Both concern what learns. Buffers and frozen values are averaged as ever, and so is what a method's own formula says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fused_ray.config import RunConfig
from fused_ray.core.aggregate import check_values
from fused_ray.core.participation import count
from fused_ray.core.rounds import Phase, Round
from fused_ray.core.state import Arrays
from fused_ray.errors import ConfigError
from fused_ray.types import FloatVector, Payload

_KEPT = "optimiser."
"""What the names of the optimiser's arrays begin with, among those that the server keeps."""


def served(config: RunConfig, phase: Phase, step: bool = True) -> Phase:
    """A phase whose mean is what `federation.aggregate` and, with `step`, `federation.server` make of a round.

    The phase's own server then sees that as the round's mean. Raises NumericsError where a step leaves the bounds.
    """
    aggregate, _ = config.federation.aggregate_part
    optimiser, _ = config.federation.server_part
    if aggregate.entry is None and (optimiser.entry is None or not step):
        return phase

    def server(round: Round) -> tuple[Payload, Arrays]:
        learns = _learns(round)
        kept: Arrays = {}
        if aggregate.entry is not None:
            round = replace(round, mean=_aggregated(config, round, learns))
        if step and optimiser.entry is not None:
            mean, kept = _stepped(config, round, learns)
            check_values(mean.values[learns], f"{phase.name} round {round.number}: the step of the server")
            round = replace(round, mean=mean)
        payload, own = phase.server(round)
        return payload, own | kept

    return replace(phase, server=server, keep_updates=phase.keep_updates or aggregate.entry is not None)


def check_memory(config: RunConfig, values: int, looked_at: int | None = None) -> None:
    """Raises ConfigError if single updates of so many values would take more than `engine.aggregate_memory_mb`.

    A method's server may look at other messages than whole models, of `looked_at` values each.
    """
    clients = config.federation.clients
    most = max(count(config.participation(phase), clients) for phase in ("pretrain", "unlearn", "retrain"))
    if config.federation.aggregate_part[0].entry is not None:
        _check(config, f"federation.aggregate: {config.federation.aggregate}", most, values, ", or take the mean")
    if config.method.every_update:
        check_messages(config, most, values if looked_at is None else looked_at)


def check_messages(config: RunConfig, clients: int, values: int) -> None:
    """Raises ConfigError if messages of so many values of so many clients, which a method needs at once, do not fit."""
    _check(config, f"unlearn.method: {config.unlearn.method}", clients, values)


def _check(config: RunConfig, who: str, clients: int, values: int, else_: str = "") -> None:
    needed, limit = clients * values * 4 / 1e6, config.engine.aggregate_memory_mb
    if needed > limit:
        raise ConfigError(
            f"{who} needs every update at once, {clients} clients x {values:,} values x 4 bytes = {needed:,.1f} MB; "
            f"engine.aggregate_memory_mb allows {limit:,.1f}: raise it{else_}"
        )


def _learns(round: Round) -> NDArray[np.bool_]:
    learns = np.ones(len(round.mean.values), bool)
    for start, stop in round.fixed:
        learns[start:stop] = False
    return learns


def _aggregated(config: RunConfig, round: Round, learns: NDArray[np.bool_]) -> Payload:
    aggregate, settings = config.federation.aggregate_part
    clients = sorted(round.updates)
    whole = learns.all()  # then nothing need be copied
    updates = [round.updates[client] if whole else round.updates[client][learns] for client in clients]
    combined: FloatVector = aggregate.function(updates, [round.examples[client] for client in clients], settings)
    values = round.mean.values.copy()
    values[learns] = combined
    return Payload(values, round.mean.counters)


def _stepped(config: RunConfig, round: Round, learns: NDArray[np.bool_]) -> tuple[Payload, Arrays]:
    optimiser, settings = config.federation.server_part
    before = round.before.values[learns].astype(np.float64)
    kept = {name.removeprefix(_KEPT): array for name, array in round.kept.items() if name.startswith(_KEPT)}
    step, keeps = optimiser.function(round.mean.values[learns] - before, kept, settings)
    values = round.mean.values.copy()
    values[learns] = before + step
    return Payload(values, round.mean.counters), {f"{_KEPT}{name}": array for name, array in keeps.items()}
