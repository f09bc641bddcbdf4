"""FedOSD: federated unlearning with orthogonal steepest descent (arXiv 2412.20200), without its recovery's projection.

Each round the targets send the gradient of an unlearning loss, everybody else that of the usual one. The server takes
from the first what points along any of the others, so that a step forgets and harms nobody. So not all may be targets.
"""

from dataclasses import dataclass

import numpy as np
import torch

from fused_ray.api import (
    Arrays,
    Federation,
    FullTraining,
    Method,
    ModelEvaluation,
    Payload,
    Phase,
    Round,
    Section,
    Unlearned,
    Update,
    Workspace,
    cross_entropy,
    flatten,
    model_gradient,
    whole_model,
)  # fmt: skip


class FedOSD(Section):
    lr: float = 0.1
    """Length of a step along the orthogonal direction."""


def unlearning_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log(1 - p_y / 2), summed: bounded where the usual loss, climbed, is not."""
    return -torch.log(1 - logits.softmax(1).gather(1, labels[:, None]) / 2).sum()


@dataclass(frozen=True)
class OneGradient(FullTraining):
    """A client sends the gradient of its loss on D_u if it has some, else on D_r; the round's payload is the model."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.load(payload)
        forgotten = space.scenario.examples("forgotten", client)
        rows = forgotten if len(forgotten) else space.scenario.examples("retained", client)
        gradient, loss = model_gradient(space, rows, unlearning_loss if len(forgotten) else cross_entropy)
        return Update(Payload(gradient, payload.counters), loss, moved=gradient)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    config, targets = federation.config, federation.scenario.clients("forgotten")

    def step(round: Round) -> tuple[Payload, Arrays]:
        others = np.stack([g for client, g in round.updates.items() if client not in targets]).astype(np.float64)
        wanted = np.mean([round.updates[client] for client in targets], axis=0, dtype=np.float64)
        inside = others.T @ np.linalg.lstsq(others @ others.T, others @ wanted, rcond=None)[0]
        direction = wanted - inside
        length = config.method_options.lr / max(np.linalg.norm(direction), 1e-12)
        values = (round.before.values - length * direction).astype(np.float32)
        return Payload(values, round.before.counters), {}

    phase = Phase(
        name="unlearn",
        rounds=config.unlearn.rounds,
        clients=federation.scenario.clients("held"),
        work=lambda number: OneGradient("unlearn", number, config.seed, config.train, "held"),
        evaluation=ModelEvaluation(),
        server=step,
        keep_updates=True,
    )
    start = flatten(base)
    before = federation.evaluate(ModelEvaluation(), start)
    end = federation.run(phase, start)
    return whole_model(end.payload, base, end.metrics or before, before)


METHOD = Method(unlearn, ("client", "exclusive"), section=FedOSD)
