"""Exact-Fun: exact unlearning by quantised training (Xiong et al. 2023, "Exact-Fun").

Training is the method's own: the initial model and each round's average are floored to multiples of a step, so that a
small change of the data may leave a round's result as it was. The server stores the models of every round and client.

To forget, the rounds are replayed without D_u: only the clients that held some of it compute again; as long as the
quantised result is the stored one, everybody else's stored model is still right. From the first result that differs,
all clients retrain. Either way the outcome is that of quantised training that never saw D_u, bit for bit.

The phase "replay" is the training on D, its result this method's M_r; "unlearn" is the replay without D_u. Nothing but
a hash of each round's model is kept in between: an unchanged client that trains again returns the bits that a server
would have stored. So every round of "unlearn" trains, and its record counts, all clients of D_r; what the protocol
asks for is in `figures`. BN buffers are averaged and not quantised; they count as part of a round's result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fused_ray.core import state
from fused_ray.core.methods import Unlearned, model_bytes, whole_model
from fused_ray.core.methods.fedavg import FullTraining, frozen_once, initial, trained_by
from fused_ray.core.methods.shared import blank_model, staying
from fused_ray.core.participation import of_round
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.schedules import scheduled
from fused_ray.core.state import Arrays
from fused_ray.core.work import ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import FloatVector, On, Payload, Scenario


@dataclass(frozen=True)
class RepeatableTraining(FullTraining):
    """Training whose batches are the same in every phase, so that the same data give the same bits."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        return FullTraining("replay", self.round, self.seed, self.train, self.on).update(space, payload, client)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Train on D with quantisation, then replay without D_u."""
    config, scenario = federation.config, federation.scenario
    rounds, trained = config.exactfun_rounds, trained_by(federation)
    kept = {n: staying(scenario, of_round(trained, n), "exactfun", n) for n in range(1, rounds + 1)}
    start, inside = state.flatten(initial(federation, "pretrain")), state.parameters(blank_model(federation))
    step = grid_step(start.values[inside], config.exactfun.step)

    def on_grid(payload: Payload) -> Payload:
        values = payload.values.copy()
        values[inside] = quantise(values[inside], step)
        return Payload(values, payload.counters)

    def phase(name: str, on: On, figures: Callable[[Saved, Payload], Mapping[str, Any]]) -> Phase:
        return Phase(
            name=name,
            rounds=rounds,
            clients=trained if on == "held" else kept.__getitem__,
            work=lambda number: RepeatableTraining(
                *(name, number, config.seed, scheduled(config.train, number, rounds), on),
                frozen=federation.anatomy.frozen_values,
            ),
            evaluation=ModelEvaluation(),
            server=lambda round: (on_grid(round.mean), {}),
            figures=figures,
            once=frozen_once(federation, scenario.clients(on)) if name == "replay" else {},
        )

    def remember(before: Saved, payload: Payload) -> Mapping[str, Any]:
        return {"models": [*before.figures.get("models", []), digest(payload)]}

    def compare(before: Saved, payload: Payload) -> Mapping[str, Any]:
        equal = before.figures.get("equal", 0)
        same = equal == before.round and digest(payload) == remembers.figures["models"][before.round]
        return {"equal": equal + same}

    start = on_grid(start)
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    remembers = federation.run(phase("replay", "held", remember), start)
    end = federation.run(phase("unlearn", "retained", compare), start)
    stored = sum(2 + len(of_round(trained, number)) for number in kept) * model_bytes(start)
    unlearned = whole_model(end.payload, base, end.metrics, start_metrics, stored)
    figures = trainings(scenario, [*kept.values()], end.figures["equal"])
    return replace(unlearned, before=remembers.metrics, figures=figures)


def grid_step(weights: FloatVector, share: float) -> float:
    """The step as a share of the mean absolute weight, to 10 bits (0.1%).

    So the step's multiples (up to 2**14 of them) are float32 numbers themselves, and quantising again changes nothing.
    """
    fraction, exponent = math.frexp(share * float(np.abs(weights.astype(np.float64)).mean()))
    return math.ldexp(round(fraction * 2**10), exponent - 10)


def quantise(values: FloatVector, step: float) -> FloatVector:
    """The largest multiple of the step that is not above each value."""
    return (np.floor(values.astype(np.float64) / step) * step).astype(np.float32)


def digest(payload: Payload) -> str:
    """SHA-256 of a payload."""
    return state.state_hash({"values": payload.values, "counters": payload.counters})


def trainings(scenario: Scenario, clients: Sequence[Sequence[int]], equal: int) -> dict[str, float]:
    """How many rounds are replayed (by the targets alone) and retrained (by all), and the local trainings in both.

    `clients` are those of each round that keep data. The first result that differs from the stored one is still a
    replayed round's: it took the targets alone.
    """
    targets = set(scenario.clients("forgotten"))
    replayed = min(equal + 1, len(clients))
    return {
        "replayed_rounds": replayed,
        "retrained_rounds": len(clients) - replayed,
        "client_trainings": sum(len(targets.intersection(some)) for some in clients[:replayed])
        + sum(map(len, clients[replayed:])),
    }
