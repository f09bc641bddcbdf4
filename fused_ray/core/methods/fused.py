"""FUSED: reversible unlearning by a sparse adapter on the critical layers (arXiv 2502.20709, section 3).

1. Rank: one federated round from M_r; the layers that move most are critical.
2. Adapt: a random sparse mask per critical layer; clients that keep data train only the masked entries, on D_r, while
   M_r stays frozen, and upload only these values; the server averages them weighted by n_k of D_r.
3. M_f = M_r + A_f. Dropping A_f gives M_r back, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fused_ray import registry
from fused_ray.config import TrainConfig
from fused_ray.core import adapter, layers, state, wire
from fused_ray.core.adapter import Masks, attached
from fused_ray.core.layers import Sensitivity
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.metrics import Metrics
from fused_ray.core.rounds import Federation, Phase, Saved, record_of
from fused_ray.core.state import Arrays
from fused_ray.core.training import AdapterStep, batches, train_adapter
from fused_ray.core.work import AdapterEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import FloatVector, IntVector, Payload, Scenario


@dataclass(frozen=True)
class RankTraining(FullTraining):
    """A client trains M_r for a round and uploads, per layer, only how far it moved."""

    layers: tuple[str, ...] = ()

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        trained = super().update(space, payload, client)
        like = state.arrays(space.model)
        before, after = state.unflatten(payload, like), state.unflatten(trained.payload, like)
        nothing = Payload(np.zeros(0, np.float32))
        return Update(nothing, trained.loss, layers.distances(after, before, self.layers))

    def upload_bytes(self, payload: Payload) -> int:
        return wire.distances_bytes(len(self.layers))


@dataclass(frozen=True)
class AdapterTraining:
    """A client trains the adapter's values on its D_r, above the frozen prefix."""

    phase: str
    round: int
    seed: int
    train: TrainConfig
    step: AdapterStep
    masks: Masks

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        return scenario.retained[client]

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        indices, cut = self.indices(space.scenario, client), space.cut(self.masks)
        x, y = space.activations("train", client, indices, cut), space.labels(indices)
        order = batches(len(indices), self.train, self.seed, self.phase, self.round, client)
        with attached(space.model, self.masks, payload.values) as live:
            values, loss = train_adapter(space, self.step, live, x, y, cut, order)
        return Update(Payload(values.cpu().numpy()), loss)

    def upload_bytes(self, payload: Payload) -> int:
        return len(wire.encode(payload))


@dataclass(frozen=True)
class Unlearned:
    """An adapter and what is known of it."""

    masks: Masks
    values: FloatVector
    metrics: Metrics
    """After the last round."""
    start_metrics: Metrics
    """With the adapter as it starts, before any training."""
    ranking: list[Sensitivity]
    """Every layer, most sensitive first; empty where the layers were named."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Forget D_u of the federation's scenario: M_r stays as it is, the adapter that comes back overwrites."""
    config = federation.config
    chosen, ranking = critical_layers(federation, base)
    masks = adapter.random_masks(config.seed, base, chosen, config.unlearn.density, config.unlearn.draw)
    step = AdapterStep(config.adapter_lr, config.train.momentum, config.unlearn.weight_decay)
    input_layer = registry.MODELS[config.model.name].layers[0]
    start = Payload(adapter.start_values(masks, base, config.unlearn.start, input_layer))
    evaluation = AdapterEvaluation(masks)
    phase = Phase(
        name="unlearn",
        rounds=config.unlearn.rounds,
        clients=[client for client, share in enumerate(federation.scenario.retained) if len(share)],
        work=lambda number: AdapterTraining("unlearn", number, config.seed, config.train, step, masks),
        evaluation=evaluation,
    )
    start_metrics = federation.evaluate(evaluation, start)
    end = federation.run(phase, start)
    return Unlearned(masks, end.payload.values, end.metrics or start_metrics, start_metrics, ranking)


def critical_layers(federation: Federation, base: Arrays) -> tuple[list[str], list[Sensitivity]]:
    """The layers to adapt, in the model's order, and the ranking they come from (none where they are named)."""
    config = federation.config
    names = registry.MODELS[config.model.name].layers
    if not isinstance(config.unlearn.layers, int):
        return [name for name in names if name in config.unlearn.layers], []
    ranking = rank_layers(federation, base, names)
    chosen = {item.layer for item in ranking[: config.unlearn.layers]}
    return [name for name in names if name in chosen], ranking


def rank_layers(federation: Federation, base: Arrays, names: Sequence[str]) -> list[Sensitivity]:
    """One federated round from M_r, all clients, and the layers by how far it moved them."""
    config, recorder = federation.config, federation.recorder
    saved = recorder.resume("rank")
    if saved is None:
        payload = state.flatten(base)
        clients = [client for client, share in enumerate(federation.scenario.held) if len(share)]
        recorder.begin_round("rank", 1, 1, len(clients))
        work, clock = RankTraining("rank", 1, config.seed, config.train, "held", tuple(names)), time.perf_counter()
        total, adding = federation.gather(work, payload, clients)
        trained = time.perf_counter()
        entries = {name: layers.layer_vector(base, name).size for name in names}
        found = layers.sensitivities(total.reports, names, entries)
        seconds = (trained - clock - adding, time.perf_counter() - trained + adding, 0.0)
        record = record_of(work, payload, clients, total, seconds, {})
        nothing = Payload(np.zeros(0, np.float32))
        saved = Saved(round=1, payload=nothing, metrics={}, figures={"layers": [asdict(item) for item in found]})
        recorder.finish_round(record, total, None, saved)
    found = [Sensitivity(**item) for item in saved.figures["layers"]]
    input_layer = None if config.unlearn.input_layer else names[0]
    return layers.rank(found, config.unlearn.ranking, input_layer)
