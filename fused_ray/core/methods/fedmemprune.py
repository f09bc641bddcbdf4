"""FedMemPrune: the values that hardly move when the others train are drawn anew (arXiv 2605.24545).

1. Clients that keep data train as usual. The server applies the plain mean of their updates, Delta, every client
   counting alike, and ranks the values of all layers in one list by |Delta|. The int(p N) smallest are held to carry
   what was memorised, and are drawn anew in the updated model: tensors of two axes or more uniformly by Kaiming's rule
   for ReLU, vectors uniformly from -0.1 to 0.1, or zero.
2. The same clients go on by FedAvg, `unlearn.rounds` rounds. Nothing is drawn anew there.

The targets take no part, nothing of D_u is looked at and nothing is stored. The paper forgets clients; that it runs for
classes, samples and exclusive knowledge too is ours. It leaves normalisation out by its names; here buffers, frozen
values, normalisation layers and layers that no gradient reaches are left out, for their Delta says nothing.

Units that are dead have Delta = 0 and go first: that is harmless, and flatters p. A large p is retraining from a warm
start, so p belongs beside every figure. It cannot be taken back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray.core import state
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.fedavg import FullTraining, recover
from fused_ray.core.methods.shared import blank_model
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Phase, Round
from fused_ray.core.state import Arrays
from fused_ray.core.work import ModelEvaluation
from fused_ray.seeding import bits
from fused_ray.types import FloatVector, IntVector, Payload

VECTOR = 0.1
"""How far from zero a value of a vector is drawn, at the most."""


@dataclass(frozen=True)
class Tensor:
    """A parameter that is ranked, and where it lies in a payload's values."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def positions(self) -> IntVector:
        return np.arange(self.start, self.start + math.prod(self.shape))


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """A round of the others, whose smallest updates are drawn anew; then recovery."""
    config, start, tensors = federation.config, state.flatten(base), ranked(federation, base)
    on = used(config, "retained")
    count = int(config.fedmemprune.share * sum(len(tensor.positions) for tensor in tensors))

    def server(round: Round) -> tuple[Payload, Arrays]:
        values = round.mean.values.copy()
        places = np.concatenate([tensor.positions for tensor in tensors])
        learned = state.parameters(blank_model(federation))
        delta = plain_mean([round.updates[client] for client in sorted(round.updates)]) - round.before.values
        values[learned] = (round.before.values + delta)[learned].astype(np.float32)
        redundant = places[smallest(delta[places], count)]
        fresh = np.concatenate([drawn(config.seed, tensor, config.fedmemprune.vectors) for tensor in tensors])
        anew = np.zeros_like(values)
        anew[places] = fresh
        values[redundant] = anew[redundant]
        return Payload(values, round.mean.counters), {}

    pruning = Phase(
        name="unlearn",
        rounds=1,
        clients=federation.participants("unlearn", on),
        work=lambda number: FullTraining(
            *("unlearn", number, config.seed, config.train, on), frozen=federation.anatomy.frozen_values
        ),
        evaluation=ModelEvaluation(),
        server=server,
        keep_updates=True,
    )
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    pruned = federation.run(pruning, start)
    end = recover(federation, pruned.payload, first=1)
    return replace(whole_model(end.payload, base, end.metrics, start_metrics), figures={"drawn_anew": count})


def ranked(federation: Federation, base: Arrays) -> list[Tensor]:
    """The parameters whose updates are ranked, in a payload's order."""
    model, anatomy = blank_model(federation), federation.anatomy
    left_out = {*anatomy.norms, *anatomy.idle}
    learn = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name.rpartition(".")[0] not in left_out
    }
    tensors, at = [], 0
    for name in sorted(base):
        if np.issubdtype(base[name].dtype, np.floating):
            if name in learn:
                tensors.append(Tensor(name, base[name].shape, at))
            at += base[name].size
    return tensors


def plain_mean(updates: Sequence[FloatVector]) -> NDArray[np.float64]:
    """The mean of vectors [P], each counting alike, in their order."""
    total = np.zeros(len(updates[0]))
    for update in updates:
        total += update
    return total / len(updates)


def smallest(delta: NDArray[Any], count: int) -> IntVector:
    """The places of the `count` smallest magnitudes, ascending; of equal ones the first."""
    return np.sort(np.argsort(np.abs(delta), kind="stable")[:count])


def drawn(seed: int, tensor: Tensor, vectors: str) -> FloatVector:
    """Fresh values of a whole tensor, flat: within sqrt(6 / fan-in), Kaiming's bound for ReLU, if it has two axes."""
    size = math.prod(tensor.shape)
    if len(tensor.shape) < 2 and vectors == "zero":
        return np.zeros(size, np.float32)
    bound = math.sqrt(6 / math.prod(tensor.shape[1:])) if len(tensor.shape) > 1 else VECTOR
    uniform = (bits(size, seed, f"fedmemprune/{tensor.name}") >> np.uint64(11)) * 2.0**-53
    return ((2 * uniform - 1) * bound).astype(np.float32)
