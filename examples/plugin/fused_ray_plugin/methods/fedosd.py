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
    go_on,
    model_gradient,
)


class FedOSD(Section):
    lr: float = 0.1
    """Length of a step along the orthogonal direction."""


def unlearning_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log(1 - p_y / 2), summed: bounded where the usual loss, climbed, is not."""
    return -torch.log(1 - logits.softmax(1).gather(1, labels[:, None]) / 2).sum()


@dataclass(frozen=True)
class OneGradient(FullTraining):
    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        """The gradient of a loss on D_u if there is some, else on D_r, at the round's model."""
        space.load(payload)
        forgotten = space.scenario.examples("forgotten", client)
        rows = forgotten if len(forgotten) else space.scenario.examples("retained", client)
        gradient, loss = model_gradient(space, rows, unlearning_loss if len(forgotten) else cross_entropy)
        return Update(Payload(gradient, payload.counters), loss, moved=gradient)


def orthogonal(wanted: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What of a direction [P] is orthogonal to all of the others [n, P], length 1."""
    away = wanted - others.T @ np.linalg.lstsq(others @ others.T, others @ wanted, rcond=None)[0]
    return away / max(np.linalg.norm(away), 1e-12)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    config, targets = federation.config, federation.scenario.clients("forgotten")

    def step(round: Round) -> tuple[Payload, Arrays]:
        others = np.stack([g for client, g in round.updates.items() if client not in targets]).astype(np.float64)
        wanted = np.mean([round.updates[client] for client in targets], axis=0, dtype=np.float64)
        values = round.before.values - config.method_options.lr * orthogonal(wanted, others)
        return Payload(values.astype(np.float32), round.before.counters), {}

    phase = Phase(
        name="unlearn",
        rounds=config.unlearn.rounds,
        clients=federation.participants("unlearn", "held", always=targets),
        work=lambda number: OneGradient("unlearn", number, config.seed, config.train, "held"),
        evaluation=ModelEvaluation(),
        server=step,
        keep_updates=True,
    )
    return go_on(federation, base, phase)


METHOD = Method(unlearn, ("client", "exclusive"), section=FedOSD)
