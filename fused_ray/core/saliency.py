"""Masks chosen by saliency: the entries whose removal most raises the loss on what must be forgotten.

The clients that hold D_u send one gradient g_u of their mean loss at M_r, averaged exactly. Setting an entry w to zero
changes that loss by about -w * g_u; the entries where this is largest form the mask. `difference` uses g_u - g_r, so
that the retained loss rises least. `margin` is that for another loss, minus the log-odds of the true class: M_r is sure
of what it has learned, so that cross-entropy's gradient there speaks of the few examples that it has not.
Relatives in central unlearning: SalUn (arXiv 2310.12508), SSD (arXiv 2308.07707).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fused_ray.core import wire
from fused_ray.core.adapter import Masks, largest
from fused_ray.core.gradient import cross_entropy, log_odds, mean_gradient
from fused_ray.core.layers import layer_parameters, layer_vector
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Saved
from fused_ray.core.state import Arrays
from fused_ray.core.wire import Delivery
from fused_ray.core.work import OnExamples, Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import FloatVector, On, PartialSum, Payload


@dataclass(frozen=True)
class Gradient(OnExamples):
    """A client sends the gradient of its mean loss at M_r, over the entries of some layers, laid end to end."""

    phase: str
    round: int
    on: On
    layers: tuple[str, ...]
    margin: bool = False
    """Of the log-odds, not of cross-entropy."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        indices = self.rows(space, client)
        named = dict(space.model.named_parameters())
        wanted = [named[name] for layer in self.layers for name in layer_parameters(named, layer)]
        gradients, loss = mean_gradient(space, wanted, indices, log_odds if self.margin else cross_entropy)
        flat = torch.cat([gradient.contiguous().reshape(-1) for gradient in gradients])
        return Update(Payload(flat.cpu().numpy()), loss)

    def upload_bytes(self, payload: Payload) -> int:
        return wire.values_bytes(payload.values.size)

    def download_bytes(self, payload: Payload) -> int:
        return 0  # but for M_r, which is sent once


def masks(
    federation: Federation,
    base: Arrays,
    layers: Sequence[str],
    delivery: Delivery,
    counts: Mapping[str, int] | None = None,
) -> Masks:
    """The saliency mask over some layers: `counts` entries of each, or `unlearn.budget` of all, or the sparsity's.

    Clients that send a gradient are sent M_r if they lack it.
    """
    config, wanted = federation.config, federation.config.unlearn
    gradient = _mean_gradient(federation, base, layers, delivery, 1, "forgotten")
    if config.gradient_rounds == 2:
        gradient = gradient - _mean_gradient(federation, base, layers, delivery, 2, used(config, "retained"))
    return choose(base, layers, gradient, wanted.budget, config.adapter_density, counts)


def choose(
    base: Arrays,
    layers: Sequence[str],
    gradient: FloatVector,
    budget: int | None,
    density: float,
    counts: Mapping[str, int] | None = None,
) -> Masks:
    """The entries with the largest -w * g: `counts` of each layer, else `budget` of all, else the share `density`."""
    vectors = {layer: layer_vector(base, layer) for layer in layers}
    score = -np.concatenate(list(vectors.values())) * gradient
    return largest(score, {layer: vector.size for layer, vector in vectors.items()}, budget, density, counts)


def _mean_gradient(
    federation: Federation,
    base: Arrays,
    layers: Sequence[str],
    delivery: Delivery,
    round: int,
    on: On,
) -> FloatVector:
    """The mean gradient over D_u or D_r; both are kept in one checkpoint, the first round's first."""
    work = Gradient("saliency", round, on, tuple(layers), federation.config.unlearn.saliency == "margin")
    clients = federation.participants("saliency", on)
    size = sum(layer_vector(base, layer).size for layer in layers)
    earlier = federation.recorder.resume("saliency")
    before = earlier.payload.values[: size * (round - 1)] if earlier else np.zeros(0, np.float32)

    nothing = Payload(np.zeros(size, np.float32))

    def conclude(total: PartialSum) -> Saved:
        values = np.concatenate([before, federation.mean(work, nothing, total).values])
        return Saved(round=round, payload=Payload(values), metrics={})

    saved = federation.ask(work, nothing, clients, conclude, federation.config.gradient_rounds, delivery.to)
    return saved.payload.values[size * (round - 1) : size * round]
