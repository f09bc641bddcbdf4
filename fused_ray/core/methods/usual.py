"""What many methods do in the same way: one message of each client, or rounds that go on from a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fused_ray.core import state, wire
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.state import Arrays
from fused_ray.core.work import ModelEvaluation, OnExamples, Work
from fused_ray.types import FloatVector, On, PartialSum, Payload


@dataclass(frozen=True)
class Message(OnExamples):
    """A base class of work: a client that has M_r sends one vector, made of what it has of one kind.

    A subclass has `update(space, payload, client) -> Update`, whose payload has as many values as the round's.
    """

    phase: str
    on: On = "retained"
    round: int = 1

    def upload_bytes(self, payload: Payload) -> int:
        return wire.values_bytes(payload.values.size)

    def download_bytes(self, payload: Payload) -> int:
        return 0


def ask_once(
    federation: Federation,
    base: Arrays,
    work: Work,
    start: FloatVector,
    model_of: Callable[[FloatVector], Arrays],
    on: On = "retained",
) -> Unlearned:
    """Each client that has examples of a kind sends one vector [n], worked out from `start` [n]; the mean makes M_f.

    `model_of` makes the model's state from the mean, weighted by examples.
    """
    given = Payload(start)

    def conclude(total: PartialSum) -> Saved:
        model = state.flatten(model_of(federation.mean(work, given, total).values))
        return Saved(round=1, payload=model, metrics=federation.evaluate(ModelEvaluation(), model))

    before = federation.evaluate(ModelEvaluation(), state.flatten(base))
    end = federation.ask(work, given, federation.participants(work.phase, on), conclude)
    return whole_model(end.payload, base, end.metrics, before)


def go_on(federation: Federation, base: Arrays, phase: Phase, start: Payload | None = None) -> Unlearned:
    """The rounds of a phase from a model, by default M_r: what comes of them is M_f."""
    start = state.flatten(base) if start is None else start
    before = federation.evaluate(ModelEvaluation(), start)
    end = federation.run(phase, start)
    return whole_model(end.payload, base, end.metrics or before, before)
