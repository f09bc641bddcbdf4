"""FedOSD: away from the targets' data, at right angles to what the others learn (AAAI 2025, arXiv 2412.20200).

1. `fedosd.rounds` rounds: every client sends one gradient over all its data, a target that of -log(1 - p_y / 2), which
   is bounded where cross-entropy uphill is not. With the others' gradients as rows of A the server goes against
   d = g_u - A^T (A A^T)^+ A g_u, rescaled to |g_u|; singular values up to 1e-6 are not inverted.
2. `unlearn.rounds` rounds of recovery, without the targets: each gradient loses its part along a = w - M_r, keeps its
   norm, and the plain mean is taken.

Gradients are of parameters, in evaluation mode: buffers stay. Ours: several targets' gradients are averaged plainly.
The paper takes 100 rounds of each at rates 4e-4 and 1e-6; the defaults here are five rounds that go as far.

The targets must be there in every round of the first part. Where g_u lies among the others' gradients there is no such
direction, and it is refused. It cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fused_ray.core import state, wire
from fused_ray.core.gradient import cross_entropy, model_gradient
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.shared import all_there
from fused_ray.core.numerics import norm
from fused_ray.core.participation import Who
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Phase, Round
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays
from fused_ray.core.work import ModelEvaluation, OnExamples, Update
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ClientFailedError, NumericsError
from fused_ray.types import On, Payload

SMALLEST = 1e-6
"""Singular values up to it are not inverted."""
NOTHING = 1e-9
"""A direction is none if it is shorter than this share of the gradient."""
Vector = NDArray[np.float64]
Step = Callable[[Round], Vector]


@dataclass(frozen=True)
class WholeGradient(OnExamples):
    """A client sends the gradient over all that it has; a target that of the loss that makes it forget."""

    phase: str
    round: int
    on: On
    frozen: int

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        rows = self.rows(space, client)
        space.load(payload)
        loss = unlearning_loss if len(space.scenario.forgotten(client)) else cross_entropy
        gradient, mean = model_gradient(space, rows, loss)
        return Update(Payload(gradient), mean, moved=gradient)

    def upload_bytes(self, payload: Payload) -> int:
        return wire.values_bytes(payload.values.size - self.frozen)

    def download_bytes(self, payload: Payload) -> int:
        return wire.model_bytes(payload, self.frozen)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Rounds away from the targets' data, then recovery that does not go back."""
    config, scenario, start = federation.config, federation.scenario, state.flatten(base)
    own, targets = config.fedosd, scenario.clients("forgotten")

    def away(round: Round) -> Vector:
        all_there(targets, round.updates, "unlearn", round.number)
        others = [round.updates[client].astype(np.float64) for client in sorted(round.updates) if client not in targets]
        if not others:
            raise ClientFailedError(f"unlearn round {round.number}: every client that keeps data failed")
        gone = [round.updates[client].astype(np.float64) for client in targets]
        return own.lr * direction(plain_mean(gone), others)

    def recovering(round: Round) -> Vector:
        moved = round.before.values.astype(np.float64) - start.values
        sent = [round.updates[client].astype(np.float64) for client in sorted(round.updates)]
        return own.recovery_lr * plain_mean([beside(gradient, moved) for gradient in sent])

    everything, kept = used(config, "held"), used(config, "retained")
    everybody = federation.participants("unlearn", everything, always=targets)
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    first = federation.run(_phase(federation, everything, everybody, own.rounds, away), start)
    others = federation.participants("unlearn", kept)
    rounds = own.rounds + config.unlearn.rounds
    end = federation.run(_phase(federation, kept, others, rounds, recovering), first.payload)
    return whole_model(end.payload, base, end.metrics, start_metrics)


def _phase(federation: Federation, on: On, clients: Who, rounds: int, step: Step) -> Phase:
    """Rounds in which the server goes against what it makes of the clients' gradients."""

    def server(round: Round) -> tuple[Payload, Arrays]:
        values = (round.before.values - step(round)).astype(np.float32)
        return Payload(values, round.before.counters), {}

    return Phase(
        name="unlearn",
        rounds=rounds,
        clients=clients,
        work=lambda number: WholeGradient("unlearn", number, on, federation.anatomy.frozen_values),
        evaluation=ModelEvaluation(),
        server=server,
        keep_updates=True,
        unchanged="all gradients are zero, as of a model that is sure of every answer; train it less",
    )


def unlearning_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log(1 - p_y / 2), summed over examples; its gradient in z_y is p (1 - p) / (2 - p)."""
    p = logits.softmax(1).gather(1, labels[:, None])
    return -(1 - p / 2).log().sum()


def direction(target: Vector, others: Sequence[Vector]) -> Vector:
    """The part of g_u at right angles to the others, as long as g_u. Raises NumericsError if there is none."""
    rows = np.stack(others)
    gram = torch.tensor([[_inner(a, b) for b in rows] for a in rows], dtype=torch.float64)
    along = torch.tensor([_inner(row, target) for row in rows], dtype=torch.float64)
    with standard():  # on one thread, for the bits of the factors depend on their number
        sizes, vectors = torch.linalg.eigh(gram)
        inverse = torch.where(sizes > SMALLEST, 1 / sizes, 0.0)
        shares = (vectors @ (inverse * (vectors.T @ along))).tolist()
    found: Vector = target - sum(share * row for share, row in zip(shares, rows, strict=True))
    if norm(found) <= NOTHING * norm(target):
        raise NumericsError(
            "unlearn.method: fedosd finds no way to forget that leaves the others alone: the targets' gradient lies "
            "among theirs"
        )
    return found * (norm(target) / norm(found))


def beside(gradient: Vector, moved: Vector) -> Vector:
    """The gradient without its part along `moved`, as long as it was; as it is where nothing moved yet."""
    length = norm(moved) ** 2
    if not length:
        return gradient
    left = gradient - moved * (_inner(gradient, moved) / length)
    return left * (norm(gradient) / norm(left)) if norm(left) else left


def plain_mean(vectors: Sequence[Vector]) -> Vector:
    """The mean of vectors [P], each counting alike."""
    mean: Vector = sum(vectors, np.zeros(len(vectors[0]))) / len(vectors)
    return mean


def _inner(a: Vector, b: Vector) -> float:
    return float((a * b).sum())
