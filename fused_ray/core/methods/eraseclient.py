"""EraseClient: the target unlearns by itself, the others recover (Halimi et al. 2022, arXiv 2207.05521; whole clients).

1. Reference: what the last round of pre-training would have given without the targets' local models w_i,
   w_ref = (w - sum_i p_i w_i) / (1 - sum_i p_i), with p over all clients (of those that took part in that round).
2. Each target climbs its own loss from w_ref, projected after every step on the ball around w_ref whose radius is a
   third of the mean distance to randomly initialised models; it uploads once. Several targets are averaged.
3. The others recover by FedAvg, `unlearn.rounds` rounds.

Steps 1 and 2 concern parameters only: buffers stay those of w. A client keeps its own last local model, the server
stores nothing; here the phase "replay" trains the targets' last round once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fused_ray.config import EraseClientConfig
from fused_ray.core import state
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.fedavg import FullTraining, random_model, recover, trained_by
from fused_ray.core.methods.shared import Replay, blank_model, nobody_stays
from fused_ray.core.numerics import norm
from fused_ray.core.participation import of_round
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.schedules import scheduled
from fused_ray.core.state import Arrays
from fused_ray.core.training import batches
from fused_ray.core.work import ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.seeding import permutation
from fused_ray.types import FloatVector, IntVector, PartialSum, Payload

RANDOM_MODELS = 10
"""Random models that the radius is measured with; it is a third of their mean distance."""
VALIDATION = 10
"""One in so many of a target's examples is kept apart, to stop by."""


@dataclass(frozen=True)
class Ascent(FullTraining):
    """A target climbs its own loss inside a ball. In evaluation mode, so that buffers stay as they are."""

    erase: EraseClientConfig
    radius: float

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.load(payload)
        space.model.eval()
        indices = self.indices(space.scenario, client)
        indices = indices[permutation(len(indices), self.seed, f"validation/{self.phase}", self.round, client)]
        validation, rest = np.split(indices, [len(indices) // VALIDATION])
        tensors = [parameter for parameter in space.model.parameters() if parameter.requires_grad]
        theta = _flat(tensors)
        center, velocity = theta, torch.zeros_like(theta)
        losses = []
        for positions in batches(len(rest), self.train, self.seed, self.phase, self.round, client):
            rows = rest[positions]
            loss = F.cross_entropy(space.suffix(0, space.images("train", rows)), space.labels(rows))
            gradient = _flat(torch.autograd.grad(loss, tensors, materialize_grads=True))
            theta, velocity = ascend(theta, velocity, gradient, self.erase)
            theta = project(theta, center, self.radius)
            _write(tensors, theta)
            losses.append(loss.item())
            if len(validation) and accuracy(space, validation) < self.erase.stop_accuracy:
                break
        return Update(state.read(space.model), float(np.mean(losses)), fixed=space.fixed)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Take the targets out of the last average, let them climb, and recover."""
    config, targets = federation.config, federation.scenario.clients("forgotten")
    start = without_targets(federation, state.flatten(base), targets)
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    erase = config.eraseclient
    train = config.train.in_epochs(erase.epochs, batch_size=erase.batch_size)
    ascent = Phase(
        name="unlearn",
        rounds=1,
        clients=targets,
        work=lambda number: Ascent(
            *("unlearn", number, config.seed, train, "forgotten", erase, ball_radius(federation, start)),
            frozen=federation.anatomy.frozen_values,
        ),
        evaluation=ModelEvaluation(),
    )
    climbed = federation.run(ascent, start)
    end = recover(federation, climbed.payload, first=1)
    return whole_model(end.payload, base, end.metrics, start_metrics)


def without_targets(federation: Federation, w: Payload, targets: Sequence[int]) -> Payload:
    """w_ref, from the local models of the targets that took part in the last round; w if none of them did."""
    config, rounds = federation.config, federation.config.pretrain.rounds
    last_ones = of_round(trained_by(federation), rounds)
    present = [client for client in targets if client in last_ones]
    if not present:
        return w
    if len(present) == len(last_ones):
        raise nobody_stays("eraseclient", rounds)
    work = Replay("replay", 1, config.seed, scheduled(config.train, rounds, rounds), "held", rounds)
    inside = state.parameters(blank_model(federation))

    last = federation.recorder.history(rounds - 1)

    def conclude(total: PartialSum) -> Saved:
        share = total.weight / sum(len(federation.scenario.held[client]) for client in last_ones)
        values = w.values.copy()
        values[inside] = reference(w.values[inside], federation.mean(work, last, total).values[inside], share)
        return Saved(round=1, payload=Payload(values, w.counters), metrics={})

    return federation.ask(work, last, present, conclude).payload


def ball_radius(federation: Federation, center: Payload) -> float:
    """A third of the mean distance from a model to randomly initialised ones, over the parameters."""
    inside = state.parameters(blank_model(federation))
    others = (state.flatten(random_model(federation, f"init/eraseclient/{i}")) for i in range(RANDOM_MODELS))
    here = center.values[inside].astype(np.float64)
    return float(np.mean([norm(other.values[inside] - here) for other in others])) / 3


def reference(w: FloatVector, w_targets: FloatVector, share: float) -> NDArray[np.float64]:
    """(w - p w_i) / (1 - p): the average w without the targets, whose share of it is p and whose mean is w_i."""
    return (w - share * w_targets.astype(np.float64)) / (1 - share)


def ascend(
    theta: torch.Tensor, velocity: torch.Tensor, gradient: torch.Tensor, erase: EraseClientConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of SGD with momentum uphill, the gradient's norm clipped; vectors of all parameters."""
    norm = float(gradient.norm())
    velocity = erase.momentum * velocity + gradient * min(1.0, erase.clip / norm if norm else 1.0)
    return theta + erase.lr * velocity, velocity


def project(theta: torch.Tensor, center: torch.Tensor, radius: float) -> torch.Tensor:
    """The point of the ball around `center` that is nearest to theta."""
    away = theta - center
    distance = float(away.norm())
    return center + away * (radius / distance) if distance > radius else theta


@torch.no_grad()
def accuracy(space: Workspace, indices: IntVector) -> float:
    """The working model's accuracy on training examples."""
    predicted = space.suffix(0, space.images("train", indices)).argmax(1)
    return float((predicted == space.labels(indices)).float().mean())


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def _write(tensors: Sequence[torch.Tensor], theta: torch.Tensor) -> None:
    for tensor, part in zip(tensors, theta.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.reshape(tensor.shape))
