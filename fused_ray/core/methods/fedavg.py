"""Federated averaging (McMahan et al. 2017): pre-training on all data, and retraining without the forgotten data.

Each round every client trains the global model on its own data with a fresh optimiser; the server averages the
results weighted by examples, w = sum_k (n_k / n) w_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fused_ray.config import TrainConfig
from fused_ray.core import state, wire
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.training import batches, train_model
from fused_ray.core.work import ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import IntVector, Payload, Scenario


@dataclass(frozen=True)
class FullTraining:
    """A client trains the whole model on all that it holds (D) or on what stays of it (D_r)."""

    phase: str
    round: int
    seed: int
    train: TrainConfig
    on: Literal["held", "retained"]

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        return (scenario.held if self.on == "held" else scenario.retained)[client]

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.load(payload)
        indices = self.indices(space.scenario, client)
        order = batches(len(indices), self.train, self.seed, self.phase, self.round, client)
        loss = train_model(space, self.train, indices, order)
        return Update(state.read(space.model), loss)

    def upload_bytes(self, payload: Payload) -> int:
        return len(wire.encode(payload))


def pretrain(federation: Federation, initial: Payload) -> Saved:
    """FedAvg on all data; gives M_r."""
    return _fedavg(federation, initial, "pretrain", "held", federation.config.pretrain.rounds)


def retrain(federation: Federation, initial: Payload) -> Saved:
    """FedAvg on D_r alone from a fresh model: what unlearning is measured against."""
    return _fedavg(federation, initial, "retrain", "retained", federation.config.retrain_rounds)


def _fedavg(federation: Federation, initial: Payload, name: str, on: Literal["held", "retained"], rounds: int) -> Saved:
    config = federation.config
    shares = federation.scenario.held if on == "held" else federation.scenario.retained
    phase = Phase(
        name=name,
        rounds=rounds,
        clients=[client for client, share in enumerate(shares) if len(share)],
        work=lambda number: FullTraining(name, number, config.seed, config.train, on),
        evaluation=ModelEvaluation(),
    )
    return federation.run(phase, initial)
