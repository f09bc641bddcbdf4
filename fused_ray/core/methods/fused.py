"""FUSED: reversible unlearning by a sparse adapter on the critical layers (arXiv 2502.20709, section 3).

1. Rank: one federated round from M_r; the layers that move most are critical.
2. Adapt: a sparse mask per critical layer, random or chosen by saliency; clients that keep data train only the masked
   entries, on D_r, while M_r stays frozen, and upload only these values; the server averages them weighted by n_k of
   D_r.
3. M_f = M_r + A_f. Dropping A_f gives M_r back, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fused_ray import registry
from fused_ray.config import TrainConfig
from fused_ray.core import adapter, layers, lora, saliency, state, wire
from fused_ray.core.adapter import Adapter, attached
from fused_ray.core.layers import Sensitivity
from fused_ray.core.methods import Unlearned
from fused_ray.core.methods.fedavg import FullTraining, having
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.state import Arrays
from fused_ray.core.training import AdapterStep, batches, train_adapter
from fused_ray.core.work import AdapterEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError
from fused_ray.types import FloatVector, IntVector, PartialSum, Payload, Scenario


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
    adapter: Adapter
    mask_bytes: int = 0
    """What the first round's message needs to say which entries are meant, bytes."""

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        return scenario.retained[client]

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        indices, cut = self.indices(space.scenario, client), space.cut(self.adapter.names)
        x, y = space.activations("train", client, indices, cut), space.labels(indices)
        order = batches(len(indices), self.train, self.seed, self.phase, self.round, client)
        with attached(space.model, self.adapter, payload.values) as (live, theta):
            values, loss = train_adapter(space, self.step, live, theta, x, y, cut, order)
        return Update(Payload(values.cpu().numpy()), loss)

    def upload_bytes(self, payload: Payload) -> int:
        return len(wire.encode(payload))

    def download_bytes(self, payload: Payload) -> int:
        return len(wire.encode(payload)) + (self.mask_bytes if self.round == 1 else 0)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Forget D_u of the federation's scenario: M_r stays as it is, the adapter that comes back overwrites."""
    config = federation.config
    chosen, ranking = choose_layers(federation, base)
    shape, start, mask_bytes = make_adapter(federation, base, chosen)
    step = AdapterStep(config.adapter_lr, config.train.momentum, config.unlearn.weight_decay)
    evaluation = AdapterEvaluation(shape)
    phase = Phase(
        name="unlearn",
        rounds=config.unlearn.rounds,
        clients=having(federation.scenario, "retained"),
        work=lambda number: AdapterTraining("unlearn", number, config.seed, config.train, step, shape, mask_bytes),
        evaluation=evaluation,
    )
    start_metrics = federation.evaluate(evaluation, Payload(start))
    end = federation.run(phase, Payload(start))
    return Unlearned(
        state=shape.apply(base, end.payload.values),
        metrics=end.metrics or start_metrics,
        start_metrics=start_metrics,
        adapter=shape,
        values=end.payload.values,
        mask_bytes=mask_bytes,
        ranking=ranking,
    )


def make_adapter(federation: Federation, base: Arrays, chosen: Sequence[str]) -> tuple[Adapter, FloatVector, int]:
    """The adapter's shape on the chosen layers, its values at the start [V], and the bytes that its masks take."""
    config, wanted = federation.config, federation.config.unlearn
    if wanted.adapter == "lora":
        shape = lora.make_lora(base, chosen, wanted.rank, wanted.alpha)
        return shape, shape.start_values(config.seed), 0
    mask_bytes = 0
    if wanted.mask == "saliency":
        masks = saliency.masks(federation, base, chosen)
        mask_bytes = wire.mask_bytes(masks)
    elif wanted.budget is not None:
        masks = adapter.random_budget(config.seed, base, chosen, wanted.budget, wanted.draw)
    else:
        masks = adapter.random_masks(config.seed, base, chosen, wanted.density, wanted.draw)
    input_layer = registry.MODELS[config.model.name].layers[0]
    whole = [m.layer for m in masks.layers if len(m.positions) == m.entries and m.layer != input_layer]
    if wanted.start == "reset" and len(whole) > 1:
        raise ConfigError(
            f"unlearn.start: reset with this unlearn.budget would set {' and '.join(whole)} wholly to zero, and then "
            "no gradient reaches them; use one layer or a smaller budget"
        )
    return masks, adapter.start_values(masks, base, wanted.start, input_layer), mask_bytes


def choose_layers(federation: Federation, base: Arrays) -> tuple[list[str], list[Sensitivity]]:
    """The layers to adapt, in the model's order, and the ranking they come from (none unless by sensitivity)."""
    config, wanted = federation.config, federation.config.unlearn
    names = registry.MODELS[config.model.name].layers
    if not isinstance(wanted.layers, int):
        return [name for name in names if name in wanted.layers], []
    input_layer = None if wanted.input_layer else names[0]
    ranking: list[Sensitivity] = []
    if wanted.selection == "critical":
        ranking = layers.rank(rank_layers(federation, base, names), wanted.ranking, input_layer)
    chosen = layers.choose(wanted.selection, names, wanted.layers, ranking, input_layer, config.seed, wanted.draw)
    return chosen, ranking


def rank_layers(federation: Federation, base: Arrays, names: Sequence[str]) -> list[Sensitivity]:
    """One federated round from M_r, all clients: how far every layer moves, in the model's order."""
    config = federation.config
    work = RankTraining("rank", 1, config.seed, config.train, "held", tuple(names))

    def conclude(total: PartialSum) -> Saved:
        entries = {name: layers.layer_vector(base, name).size for name in names}
        found = layers.sensitivities(total.reports, names, entries)
        nothing = Payload(np.zeros(0, np.float32))
        return Saved(round=1, payload=nothing, metrics={}, figures={"layers": [asdict(item) for item in found]})

    saved = federation.ask(work, state.flatten(base), having(federation.scenario, "held"), conclude)
    return [Sensitivity(**item) for item in saved.figures["layers"]]
