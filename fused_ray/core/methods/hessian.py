"""Hessian-selected reset: what the targets' curvature singles out is set to zero (Balordi et al., arXiv 2508.19065).

1. Each client sends once the diagonal h_k of the generalised Gauss-Newton matrix of its mean loss at M_r: the mean over
   examples and classes c, weighted by p_c, of (d log p_c / dw)^2. By default one class is drawn from p for each example
   instead of all of them, as in the released runs.
2. Of a value, info = 1/2 (h_u / sum_k h_k)^2, clients counting alike; 0 where the sum is 0, as of dead units.
3. In each layer the share of the values with the largest info is set to zero. Clients that keep data train these values
   alone, on D_r, `unlearn.rounds` rounds of one epoch.

The paper forgets clients and classes. Ours: h_u is the sum over all clients that hold some of D_u, of their D_u alone,
and what they keep counts as another client's; for whole targets that is the paper's formula. The share is ours too: the
paper looks at 5 to 50%, and also at shares of the summed info. So are two limits: a value without info is never
reset, and normalisation layers, frozen ones and those that no gradient reaches are left alone.

Of K clients whose data are alike every value has info 1 / (2 K^2): the choice is then noise. Training is that of an
adapter, in evaluation mode, so running statistics stay. The server keeps no values, so it cannot be taken back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.func import functional_call, grad, vmap

from fused_ray import models
from fused_ray.core import state, wire
from fused_ray.core.adapter import Mask, Masks
from fused_ray.core.layers import layer_parameters, layer_vector
from fused_ray.core.methods import Unlearned
from fused_ray.core.methods.fused import AdapterTraining, with_residuals
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.schedules import scheduled
from fused_ray.core.server import served
from fused_ray.core.state import Arrays
from fused_ray.core.training import AdapterStep
from fused_ray.core.wire import Delivery
from fused_ray.core.work import AdapterEvaluation, OnExamples, Update
from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.errors import ConfigError
from fused_ray.seeding import bits
from fused_ray.types import FloatVector, IntVector, On, PartialSum, Payload

AT_ONCE = 1 << 24
"""Values of single examples' gradients that are held at once."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Ask for the diagonals, choose, reset, and train what was reset."""
    names = federation.anatomy.ranked
    delivery = Delivery(wire.model_bytes(state.flatten(base), federation.anatomy.frozen_values))
    target = summed(federation, base, names, 1, "forgotten", delivery)
    everybody = target + summed(federation, base, names, 2, used(federation.config, "retained"), delivery)
    shape = chosen(base, names, information(target, everybody), federation.config.hessian_reset.share)
    phase = training(federation, shape, delivery)
    start = Payload(-np.concatenate([layer_vector(base, mask.layer)[mask.positions] for mask in shape.layers]))
    start_metrics = federation.evaluate(phase.evaluation, start)
    end = federation.run(phase, start)
    return Unlearned(
        state=shape.apply(base, end.payload.values),
        metrics=end.metrics or start_metrics,
        start_metrics=start_metrics,
        figures={"values_reset": shape.size},
    )


# -- 1. the diagonals


@dataclass(frozen=True)
class Diagonal(OnExamples):
    """A client sends the diagonal at M_r over the entries of some layers, laid end to end."""

    phase: str
    round: int
    on: On
    seed: int
    layers: tuple[str, ...]
    every_class: bool

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        indices = self.rows(space, client)
        kind = "forgotten" if self.on == "forgotten" else "retained"
        draws = None if self.every_class else bits(len(indices), self.seed, f"hessian/{kind}", self.round, client)
        found, loss = diagonal(space, self.layers, indices, draws)
        return Update(Payload(found), loss)

    def upload_bytes(self, payload: Payload) -> int:
        return wire.values_bytes(payload.values.size)

    def download_bytes(self, payload: Payload) -> int:
        return 0  # but for M_r, which is sent once


def summed(
    federation: Federation, base: Arrays, names: Sequence[str], round: int, on: On, delivery: Delivery
) -> NDArray[np.float64]:
    """The sum of the diagonals of all clients that hold data of one kind; of those that answered, in proportion.

    Both kinds are kept in one checkpoint, the first round's first.
    """
    config, size = federation.config, sum(layer_vector(base, name).size for name in names)
    work = Diagonal("diagonal", round, on, config.seed, tuple(names), config.hessian_reset.diagonal == "exact")
    earlier = federation.recorder.resume("diagonal")
    before = earlier.payload.values[: size * (round - 1)] if earlier else np.zeros(0, np.float32)
    could = len(federation.scenario.clients(on))

    def conclude(total: PartialSum) -> Saved:
        whole = np.sum([total.updates[client] for client in sorted(total.updates)], axis=0, dtype=np.float64)
        values = (whole * (could / len(total.updates))).astype(np.float32)
        return Saved(round=round, payload=Payload(np.concatenate([before, values])), metrics={})

    nothing, clients = Payload(np.zeros(size, np.float32)), federation.participants("diagonal", on)
    saved = federation.ask(work, nothing, clients, conclude, 2, delivery.to, keep_updates=True)
    return saved.payload.values[size * (round - 1) : size * round].astype(np.float64)


def diagonal(
    space: Workspace, layers: Sequence[str], indices: IntVector, draws: NDArray[np.uint64] | None
) -> tuple[FloatVector, float]:
    """The mean over examples of sum_c p_c (d log p_c / dw)^2 [entries], and their mean loss.

    With `draws`, one random number for each example, a class is drawn from p instead of the sum.
    """
    named = dict(space.model.named_parameters())
    wanted = {name: named[name].detach() for layer in layers for name in layer_parameters(named, layer)}

    def log_probability(parameters: dict[str, torch.Tensor], x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        logits = models.logits_of(functional_call(space.model, parameters, (x[None],)))
        found: torch.Tensor = logits.log_softmax(1)[0].gather(0, c[None])[0]
        return found

    each = vmap(grad(log_probability), in_dims=(None, 0, 0))
    sums = [torch.zeros(value.numel(), dtype=torch.float64, device=space.device) for value in wanted.values()]
    step, loss = max(1, min(BLOCK, AT_ONCE // sum(map(len, sums)))), 0.0
    with state.asking(space.model, ()), warnings.catch_warnings():  # the gradients are those of copies
        warnings.filterwarnings("ignore", "There is a performance drop")  # of attention, example by example
        for start in range(0, len(indices), step):
            rows = indices[start : start + step]
            x = space.images("train", rows)
            logits = space.suffix(0, x)
            loss += F.cross_entropy(logits, space.labels(rows), reduction="sum").item()
            for classes, weights in _classes(logits.softmax(1), None if draws is None else draws[start : start + step]):
                gradients = each(wanted, x, classes)
                for total, gradient in zip(sums, gradients.values(), strict=True):
                    total += (weights[:, None] * gradient.reshape(len(rows), -1).double().square()).sum(0)
    found = torch.cat(sums) / len(indices)
    return found.to(torch.float32).cpu().numpy(), loss / len(indices)


def _classes(p: torch.Tensor, draws: NDArray[np.uint64] | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Classes [n] and their weights [n] of examples with these probabilities [n, C]: each class, or one drawn."""
    p = p.double()
    if draws is None:
        for c in range(p.shape[1]):
            yield torch.full((len(p),), c, device=p.device), p[:, c]
        return
    uniform = torch.from_numpy((draws >> np.uint64(11)) * 2.0**-53).to(p.device)
    below = p.cumsum(1) <= uniform[:, None]
    yield below.sum(1).clamp(max=p.shape[1] - 1), torch.ones_like(uniform)


# -- 2. the choice


def information(target: NDArray[np.float64], everybody: NDArray[np.float64]) -> NDArray[np.float64]:
    """1/2 (h_u / sum_k h_k)^2 of each value, 0 where the sum is 0."""
    return 0.5 * np.divide(target, everybody, out=np.zeros_like(target), where=everybody > 0) ** 2


def chosen(base: Arrays, names: Sequence[str], info: NDArray[np.float64], share: float) -> Masks:
    """Of each layer the int(share x entries) values of most info, none without any. Raises ConfigError if none is."""
    masks, at = [], 0
    for name in names:
        entries = layer_vector(base, name).size
        part = info[at : at + entries]
        first = np.argsort(-part, kind="stable")[: int(share * entries)]
        positions = np.sort(first[part[first] > 0])
        if len(positions):
            masks.append(Mask(name, entries, positions))
        at += entries
    if not masks:
        raise ConfigError(
            "unlearn.method: hessian-reset finds no value to reset: the curvature of what must be forgotten is zero, "
            f"or hessian_reset.share={share} of every layer is less than one value"
        )
    return Masks(tuple(masks))


# -- 3. reset and train


def training(federation: Federation, shape: Masks, delivery: Delivery) -> Phase:
    """Rounds that train what was reset. Which values these are is sent once, as is M_r to those that lack it."""
    config, own, clients = federation.config, federation.config.hessian_reset, federation.scenario.clients("retained")
    on = used(config, "retained")
    whole = config.train.in_epochs(1, batch_size=own.batch_size, lr=own.lr)

    def work(number: int) -> AdapterTraining:
        train = scheduled(whole, number, config.unlearn.rounds)
        step = AdapterStep(train.lr, own.momentum, 0.0)
        return AdapterTraining("unlearn", number, config.seed, train, step, shape, config.unlearn.wire, on=on)

    told, missing = wire.mask_bytes(shape), delivery.to(clients)
    phase = Phase(
        name="unlearn",
        rounds=config.unlearn.rounds,
        clients=federation.participants("unlearn", on),
        work=work,
        with_states=with_residuals,
        evaluation=AdapterEvaluation(shape),
        once={client: told + missing.get(client, 0) for client in clients},
        learns=shape.names,
        unchanged="raise hessian_reset.lr",
    )
    return served(config, phase, step=False)
