"""PUF: one round of negated updates (arXiv 2504.05822; whole clients).

Round 1, one local epoch: the targets train on what must go like everybody else, and the server goes the other way:
    regular:  w + sum_retained p_k Delta_k - eta * sum_targets p_u Delta_u,  p over all, eta = 20
    special:  w - eta * sum_targets p_u Delta_u,  only targets take part, p among them, eta = 2
Then the others recover by FedAvg, `unlearn.rounds` rounds. Clients scale their own update, so the plain weighted mean
gives both. Parameters only: BN buffers stay those of w in round 1; the recovery averages them anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fused_ray.core import state
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.fedavg import FullTraining, recover
from fused_ray.core.methods.shared import with_all
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Phase
from fused_ray.core.state import Arrays
from fused_ray.core.work import ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import FloatVector, Payload


@dataclass(frozen=True)
class ScaledTraining(FullTraining):
    """A client trains and returns w + Delta; a target w - eta * Delta."""

    eta: float

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        trained = super().update(space, payload, client)
        factor = -self.eta if len(space.scenario.forgotten(client)) else 1.0
        values, inside = payload.values.copy(), state.parameters(space.model)
        values[inside] = scale(values[inside], trained.payload.values[inside], factor)
        return Update(Payload(values, payload.counters), trained.loss, fixed=space.fixed)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """One round against the targets' updates, then recovery."""
    config, start = federation.config, state.flatten(base)
    train, targets = config.train.in_epochs(1), federation.scenario.clients("forgotten")
    on = used(config, "held")
    everybody = federation.participants("unlearn", on, always=targets)
    reverse = Phase(
        name="unlearn",
        rounds=1,
        clients=everybody if config.puf.variant == "regular" else targets,
        work=lambda number: ScaledTraining(
            *("unlearn", number, config.seed, train, on, config.puf_eta), frozen=federation.anatomy.frozen_values
        ),
        evaluation=ModelEvaluation(),
        server=with_all(targets, "unlearn"),
    )
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    turned = federation.run(reverse, start)
    end = recover(federation, turned.payload, first=1)
    return whole_model(end.payload, base, end.metrics, start_metrics)


def scale(w: FloatVector, trained: FloatVector, factor: float) -> FloatVector:
    """w + factor * Delta with Delta = trained - w."""
    before = w.astype(np.float64)
    return (before + factor * (trained - before)).astype(np.float32)
