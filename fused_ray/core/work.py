"""The unit of work that a pool hands to its workers: what a client computes in one round, and the exact sum over some.

A unit is a small frozen record that crosses the actor boundary. It is a pure function of the workspace, the round's
payload and the client, so a worker that died can be replaced and its work repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fused_ray.core import herding
from fused_ray.core.adapter import Adapter
from fused_ray.core.aggregate import LOWER, ExactSum, Scale, check_values, scale_of, with_fixed
from fused_ray.core.numerics import norm
from fused_ray.core.process import resident_bytes
from fused_ray.core.workspace import Workspace
from fused_ray.errors import NumericsError
from fused_ray.types import ClientReport, FloatVector, IntVector, On, PartialSum, Payload, Remaining, Scenario, Spans

TRAVELS = "travels"
"""What a field's metadata say of how it gets to workers that are elsewhere."""
ONCE, EACH = {TRAVELS: "once"}, {TRAVELS: "each"}
"""The same object round after round; a mapping by client, of which a worker needs its clients' part."""


@dataclass(frozen=True)
class Update:
    """What one client returns: a payload, its mean loss, figures of its own and a state if the work has any.

    The payload is mostly the round's, changed by training; it may be empty, or of another kind (a gradient). In a
    deployment a client keeps its state itself, so it is no part of any message.
    """

    payload: Payload
    loss: float
    figures: tuple[float, ...] = ()
    state: FloatVector | None = None
    moved: FloatVector | None = None
    """What training changed, as many values as the payload's; None: all that differs from the round's payload."""
    fixed: Spans = ()
    """Where the payload, a whole model, has what no optimiser moves: only what changed of it is averaged."""


class Work(Protocol):
    """What a client computes in one round."""

    @property
    def phase(self) -> str: ...
    @property
    def round(self) -> int: ...

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        """The client's training examples; their number is its weight in the mean."""
        ...

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        """The client's update from the round's payload."""
        ...

    def upload_bytes(self, payload: Payload) -> int:
        """Protocol bytes that a client sends, when it worked from `payload`."""
        ...

    def download_bytes(self, payload: Payload) -> int:
        """Protocol bytes that a client receives to work from `payload`."""
        ...


class OnExamples:
    """Work on all of a client's examples of one kind, as its field `on` says: nobody need ask every client for them."""

    on: On

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        return scenario.examples(self.on, client)

    def rows(self, space: Workspace, client: int) -> IntVector:
        """The examples that the client works on: as many as `indices`, but where herding chooses, which takes M_r."""
        if isinstance(self.on, Remaining) and self.on.herding:
            return herding.chosen(space, self.on, client)
        return self.indices(space.scenario, client)


@dataclass(frozen=True)
class ModelEvaluation:
    """Evaluate a payload that is a whole model."""

    def predict(self, space: Workspace, payload: Payload, blocks: Sequence[int]) -> list[IntVector]:
        """Predicted classes, block by block of the test set."""
        return space.predict_model(payload, blocks)


@dataclass(frozen=True)
class AdapterEvaluation:
    """Evaluate a payload that is an adapter's values on the installed base."""

    adapter: Adapter = field(metadata=ONCE)

    def predict(self, space: Workspace, payload: Payload, blocks: Sequence[int]) -> list[IntVector]:
        """Predicted classes, block by block of the test set."""
        return space.predict_adapter(self.adapter, payload.values, blocks)


Evaluation = ModelEvaluation | AdapterEvaluation


def round_bits(work: Work, scenario: Scenario) -> Scale:
    """The fixed-point scale of a round: for the weights of all clients that could take part in it."""
    asked: object = type(work).indices
    if isinstance(work, OnExamples) and asked is OnExamples.indices:
        return scale_of(len(scenario.parts(work.on).indices))
    return scale_of(sum(len(work.indices(scenario, client)) for client in range(len(scenario.held))))


def compute(
    space: Workspace,
    work: Work,
    payload: Payload,
    clients: Sequence[int],
    keep_updates: bool = False,
    done: Callable[[int], None] = lambda client: None,
    onto: PartialSum | None = None,
) -> PartialSum:
    """Every client's update, checked and added into one exact sum. Raises NumericsError naming the client.

    `onto` is the sum over other clients that it goes on from; its memory is taken.
    """
    scale = round_bits(work, space.scenario)
    exact = None if onto is None else ExactSum.onto(onto, *scale)
    before = onto or PartialSum(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, ())
    counters, reports, changed, fixed = before.counters, [*before.reports], before.changed, before.fixed
    updates, states, worker = dict(before.updates), dict(before.states), os.getpid()
    assert not {report.client for report in reports}.intersection(clients), "a client is in the sum already"
    for client in clients:
        at, started = time.time(), time.perf_counter()
        update = work.update(space, payload, client)
        trained = time.perf_counter()
        values = update.payload.values
        summed, positions = _checked(update, payload, scale.bits, f"client {client}, {work.phase} round {work.round}")
        fixed, changed = update.fixed or fixed, np.union1d(changed, positions)
        weight = len(work.indices(space.scenario, client))
        exact = exact or ExactSum(len(values), *scale)
        exact.add(summed, weight, update.fixed)
        counters = np.maximum(counters, update.payload.counters) if counters.size else update.payload.counters
        if keep_updates:
            updates[client] = values
        if update.state is not None:
            states[client] = update.state
        about = _about(update, payload, scale)
        about |= {"train_seconds": trained - started, "aggregate_seconds": time.perf_counter() - trained}
        about |= {"started_at": at, "worker": worker, "memory": resident_bytes()}
        reports.append(ClientReport(client=client, examples=weight, **about))
        done(client)
    assert exact is not None, "a worker was asked to compute no client"
    return PartialSum(
        exact.total, counters, exact.weight, tuple(reports), updates, states, exact.high, exact.low, fixed, changed
    )


def _checked(update: Update, payload: Payload, bits: int, who: str) -> tuple[FloatVector, IntVector]:
    """What is summed of an update, and where fixed values changed all the same. Raises NumericsError saying who."""
    if not np.isfinite(update.loss):
        raise NumericsError(f"{who}: the training loss is {update.loss}; {LOWER}")
    if not np.isfinite(update.figures).all():
        raise NumericsError(f"{who}: its figures are not finite; {LOWER}")
    values = update.payload.values
    if update.fixed:
        return with_fixed(values, payload.values, update.fixed, bits, who)
    check_values(values, who)
    return values, np.zeros(0, np.int64)


def _about(update: Update, payload: Payload, scale: Scale) -> dict[str, Any]:
    """What a client's report says of its update."""
    moved = _moved(update, payload)
    return {
        "loss": update.loss,
        "update_norm": norm(moved),
        "values_changed": int(np.count_nonzero(np.rint(moved * scale.steps))),
        "figures": update.figures,
    }


def _moved(update: Update, payload: Payload) -> FloatVector:
    """What training changed, as the update says, or all that differs from the round's payload."""
    if update.moved is not None:
        return update.moved
    values = update.payload.values
    with np.errstate(invalid="ignore"):  # a mask of -inf less itself, which the next line puts right
        moved = values - payload.values if values.shape == payload.values.shape else values
    for start, stop in update.fixed:
        moved[start:stop] = 0
    return moved
