"""Shadow models: trained like the audited one, each on a known half of every client's data.

They tell an attacker what membership looks like (Shokri et al. 2017, arXiv 1610.05820). Training one is ordinary
federated averaging, so any pool can do it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.rounds import Federation, Phase
from fused_ray.core.schedules import scheduled
from fused_ray.core.server import served
from fused_ray.core.work import ModelEvaluation
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Payload, Scenario


@dataclass(frozen=True)
class ShadowTraining(FullTraining):
    """A client trains the whole model on the half of what it holds that the phase's shadow model may know."""

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        held = scenario.held[client]
        half = permutation(len(held), self.seed, f"{self.phase}/members", client=client)[: (len(held) + 1) // 2]
        return held[np.sort(half)]


@dataclass(frozen=True)
class Shadow:
    """A trained shadow model, the training examples that it has seen, and those that it has not (ascending)."""

    payload: Payload
    members: IntVector
    non_members: IntVector


def train_shadows(federation: Federation, initial: Payload, count: int, rounds: int) -> list[Shadow]:
    """Shadow models by FedAvg from the same initial model, as phases `shadow-1` and on; resumed where they stopped."""
    return [_train(federation, initial, f"shadow-{number}", rounds) for number in range(1, count + 1)]


def _train(federation: Federation, initial: Payload, name: str, rounds: int) -> Shadow:
    config, scenario = federation.config, federation.scenario

    def work(number: int) -> ShadowTraining:
        return ShadowTraining(name, number, config.seed, scheduled(config.train, number, rounds), "held")

    clients = scenario.clients("held")
    phase = Phase(name=name, rounds=rounds, clients=clients, work=work, evaluation=ModelEvaluation())
    saved = federation.run(served(config, phase), initial)
    members = np.sort(np.concatenate([work(1).indices(scenario, client) for client in clients]))
    return Shadow(saved.payload, members, np.setdiff1d(scenario.held.indices, members, assume_unique=True))
