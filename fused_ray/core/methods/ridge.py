"""Ridge head: an output layer in closed form, which gives data back exactly (arXiv 2603.12977; AFL, CVPR 2025).

Below the output layer M_r stays as it is. Its features phi, with a constant 1 appended, are d numbers an example.

1. Each client sends once G_k = Phi^T Phi and H_k = Phi^T Y, Y one-hot. The server adds them up and solves
   W = (sum G + lambda I)^-1 sum H: sums and no means, lambda fixed. That head is this method's M_r.
2. To forget, G and H of D_u are subtracted, and W is solved anew. Of a whole client the server has them already; of a
   part its owner sends them, in one message. No rounds, and the order does not matter. Adding them back takes it back.

Ours: features are rounded to whole multiples of 2**-12, so that G and H are whole numbers and their sums have no
rounding. So the head after deleting has the very bits of one that never had the data (of the same features), for a
client, a class or single examples. A class of which no example is left would score 0, which can win: it is masked.

The head alone is exact. The features were trained on D_u and know it still, so the verdict is never `forgotten`: it
is what an audit calls head only. G_k of fewer examples than d gives their features away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from fused_ray.config.parts.methods import WHOLE_CLIENTS
from fused_ray.core import herding, state, wire
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.shared import all_there, blank_model
from fused_ray.core.participation import Who, of_round
from fused_ray.core.rounds import Federation, Saved
from fused_ray.core.state import Arrays
from fused_ray.core.wire import Delivery
from fused_ray.core.work import ModelEvaluation, OnExamples, Update
from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.errors import ConfigError, NumericsError
from fused_ray.types import FloatVector, IntVector, On, PartialSum, Payload

FRACTION = 12
"""Bits behind the point of a feature."""
LARGEST = 512
"""Of a feature. The products of BLOCK examples are then below 2**53, and float64 adds them up without rounding."""
EXAMPLES = 1 << 20
"""Of all clients together: 2**20 products of 2**42 fit into int64."""
MASKED = -100.0
"""The bias of a class of which no example is left; scores are about 0 to 1."""
_LIMB = 21
"""Bits of a sum that one float32 of an update carries within an update's bound."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """The head of all data, then that of what stays."""
    config, scenario, layer = federation.config, federation.scenario, output_layer(federation)
    if len(scenario.held.indices) > EXAMPLES:
        raise ConfigError(f"unlearn.method: ridge adds up at most {EXAMPLES:,} examples; lower data.limit")
    delivery = Delivery(wire.model_bytes(state.flatten(base), federation.anatomy.frozen_values))
    head = asked(federation, layer, "head", "held", federation.participants("head", "held"), delivery)
    sums, gone = head.server["sums"].astype(np.int64), head.server["gone"].astype(np.int64)
    owners = [client for client in scenario.clients("forgotten") if client in head.figures["clients"]]
    if config.kind not in WHOLE_CLIENTS and owners:
        gone = asked(federation, layer, "unlearn", "forgotten", owners, delivery).server["sums"].astype(np.int64)

    def model(sums: IntVector) -> Arrays:
        d = base[f"{layer}.weight"].shape[1] + 1
        return with_head(base, layer, solved(*unpacked(sums, d, federation.data.classes), config.ridge.penalty))

    before, after = (state.flatten(model(some)) for some in (sums, sums - gone))
    start_metrics = federation.evaluate(ModelEvaluation(), before)
    metrics = federation.evaluate(ModelEvaluation(), after)
    return replace(whole_model(after, base, metrics, start_metrics), before=start_metrics)


def output_layer(federation: Federation) -> str:
    """The name of the layer whose inputs are the features. Raises ConfigError where it is not linear with a bias."""
    name = federation.anatomy.layers[-1]
    module = blank_model(federation).get_submodule(name)
    linear = isinstance(module, nn.Linear) and module.bias is not None
    if not linear or module.out_features != federation.data.classes:
        label = federation.config.model.label
        raise ConfigError(
            f"unlearn.method: ridge takes a last layer that is linear with a bias; {name} of {label} is not"
        )
    return name


# -- 1. sums of products


@dataclass(frozen=True)
class Products(OnExamples):
    """A client sends G and H of what it has of one kind. An update's values carry them in three limbs [3 n]."""

    phase: str
    on: On
    layer: str
    features: int
    """d, the constant counted."""
    classes: int
    round: int = 1

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        rows = self.indices(space.scenario, client)
        sums = np.zeros(self.size, np.int64)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            phi = rounded(herding.features(space, self.layer, part), f"client {client}, {self.phase}")
            sums += products(phi, space.scenario.train_labels[part], self.classes)
        return Update(Payload(limbs(sums)), 0.0)

    @property
    def size(self) -> int:
        """Numbers in a message: a triangle of G, and H."""
        return self.features * (self.features + 1) // 2 + self.features * self.classes

    def upload_bytes(self, payload: Payload) -> int:
        return len(save({"products": np.zeros(self.size, np.int64)}))

    def download_bytes(self, payload: Payload) -> int:
        return 0  # but for M_r, which is sent once


def asked(federation: Federation, layer: str, phase: str, on: On, clients: Who, delivery: Delivery) -> Saved:
    """The sums of clients' messages, those of the forgotten clients' apart as well, and who sent one.

    Raises ClientFailedError where an owner of D_u sent none: it would stay.
    """
    inputs = blank_model(federation).get_parameter(f"{layer}.weight").shape[1]
    work = Products(phase, on, layer, inputs + 1, federation.data.classes)
    targets = set(federation.scenario.clients("forgotten"))

    def conclude(total: PartialSum) -> Saved:
        if on == "forgotten":
            all_there(of_round(clients, 1), total.updates, phase, 1)
        sent = {client: whole(total.updates[client]) for client in sorted(total.updates)}
        nothing = np.zeros(work.size, np.int64)
        sums = sum(sent.values(), nothing)
        gone = sum((message for client, message in sent.items() if client in targets), nothing)
        figures = {"clients": [*sent]}
        nobody = Payload(np.zeros(0, np.float32))
        return Saved(round=1, payload=nobody, metrics={}, figures=figures, server={"sums": sums, "gone": gone})

    nothing = Payload(np.zeros(0, np.float32))
    return federation.ask(work, nothing, clients, conclude, once=delivery.to, keep_updates=True)


def rounded(phi: NDArray[np.float64], who: str) -> NDArray[np.float64]:
    """Features with a constant 1 appended, in whole multiples of 2**-FRACTION [n, d]. Raises NumericsError."""
    largest = np.abs(phi).max(initial=0.0)
    if not largest <= LARGEST:
        raise NumericsError(f"{who}: a feature is {largest:g}, and ridge takes them up to {LARGEST}; lower train.lr")
    steps: NDArray[np.float64] = np.rint(np.c_[phi, np.ones(len(phi))] * 2.0**FRACTION)
    return steps


def products(phi: NDArray[np.float64], labels: IntVector, classes: int) -> IntVector:
    """The upper triangle of G, row by row, then H, in one vector; `phi` [n, d] are whole numbers."""
    gram, moments = phi.T @ phi, phi.T @ np.eye(classes)[labels]
    return np.concatenate([gram[np.triu_indices(len(gram))], moments.ravel()]).astype(np.int64)


def limbs(sums: IntVector) -> FloatVector:
    """Whole numbers [n] as float32 [3 n] of at most 2**10, without loss."""
    mask = (1 << _LIMB) - 1
    parts = (sums & mask, (sums >> _LIMB) & mask, sums >> 2 * _LIMB)
    return (np.concatenate(parts) * 2.0 ** (10 - _LIMB)).astype(np.float32)


def whole(values: FloatVector) -> IntVector:
    """The whole numbers again."""
    low, middle, high = (values.astype(np.float64) * 2.0 ** (_LIMB - 10)).astype(np.int64).reshape(3, -1)
    total: IntVector = low + (middle << _LIMB) + (high << 2 * _LIMB)
    return total


# -- 2. the head


def unpacked(sums: IntVector, d: int, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """G [d, d] and H [d, C] of a vector of sums."""
    upper, gram = d * (d + 1) // 2, np.zeros((d, d))
    gram[np.triu_indices(d)] = sums[:upper] * 2.0 ** (-2 * FRACTION)
    gram = np.triu(gram) + np.triu(gram, 1).T
    moments = sums[upper:].astype(np.float64).reshape(d, classes) * 2.0**-FRACTION
    return gram, moments


def solved(gram: NDArray[np.float64], moments: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """W = (G + lambda I)^-1 H [d, C], by Cholesky's factors. Without BLAS, whose bits depend on its threads.

    Raises NumericsError where the matrix is singular.
    """
    left, d = gram + penalty * np.eye(len(gram)), len(gram)
    lower = np.zeros_like(left)
    for j in range(d):
        if not left[j, j] > 0:
            raise NumericsError(
                "ridge: without a penalty too few examples, or features that are always alike, have no solution; raise "
                "ridge.penalty"
            )
        lower[j:, j] = left[j:, j] / np.sqrt(left[j, j])
        left[j + 1 :, j + 1 :] -= lower[j + 1 :, j, None] * lower[j + 1 :, j]
    w = moments.astype(np.float64)
    for j in range(d):
        w[j] /= lower[j, j]
        w[j + 1 :] -= lower[j + 1 :, j, None] * w[j]
    for j in reversed(range(d)):
        w[j] /= lower[j, j]
        w[:j] -= lower[j, :j, None] * w[j]
    return w


def with_head(base: Arrays, layer: str, w: NDArray[np.float64]) -> Arrays:
    """M_r with another output layer. A class whose column is zero, for no example of it is left, is masked."""
    weight, bias = w[:-1].T.astype(np.float32), w[-1].astype(np.float32)
    bias[~w.any(0)] = MASKED
    return {**base, f"{layer}.weight": weight.copy(), f"{layer}.bias": bias}
