"""FUSED: reversible unlearning by a sparse adapter on the critical layers (arXiv 2502.20709, section 3).

Reads in the paper's order: `unlearn` is the whole, on the server; below it are its parts.

1. Rank (section 3.2, critical layer identification). One federated round from M_r, all clients: the layers that move
   most are critical. `choose_layers`, `rank_layers`; a client's part is `RankTraining`, Diff_l is in core.layers.
2. Adapt. A_f is a sparse mask on each critical layer, random or chosen by saliency, and the values of its
   entries: `make_adapter`. Clients that keep data train these values alone, on D_r, above the frozen M_r, and upload
   nothing else: `AdapterTraining`.
3. Average. The server takes the mean of the values, each client weighted by n_k of D_r, and sends it back: `adapting`.

M_f = M_r + A_f. Dropping A_f gives M_r back, bit for bit. In the code `base` is M_r, `shape` the masks of A_f, and
`values` its entries' values [V].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from fused_ray.config import TrainConfig
from fused_ray.core import layers, state, wire
from fused_ray.core.adapter import Adapter
from fused_ray.core.layers import Sensitivity
from fused_ray.core.making import Made, Making, check_made
from fused_ray.core.methods import Unlearned
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.model_check import never_reset
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.schedules import scheduled
from fused_ray.core.server import served
from fused_ray.core.state import Arrays
from fused_ray.core.training import AdapterStep, batches, train_adapter
from fused_ray.core.wire import Delivery, Wire
from fused_ray.core.work import EACH, ONCE, AdapterEvaluation, OnExamples, Update, Work
from fused_ray.core.workspace import Workspace
from fused_ray.types import FloatVector, On, PartialSum, Payload

Chosen = dict[str, int | None]
"""The adapted layers in the model's order, each with its share of a budget if every layer has one of its own."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Forget D_u of the federation's scenario: M_r stays as it is, the adapter that comes back overwrites."""
    delivery = Delivery(wire.model_bytes(state.flatten(base), federation.anatomy.frozen_values))
    # 1. rank
    chosen, ranking = choose_layers(federation, base)
    if ranking:
        delivery.to(rankers(federation))  # the round that ranks sends M_r by itself
    # 2. adapt, 3. average, round after round
    made = make_adapter(federation, base, chosen, delivery)
    shape, start = made.adapter, made.values
    phase = adapting(federation, shape, made.told, delivery)
    start_metrics = federation.evaluate(phase.evaluation, Payload(start))
    end = federation.run(phase, Payload(start))
    return Unlearned(
        state=shape.apply(base, end.payload.values),
        metrics=end.metrics or start_metrics,
        start_metrics=start_metrics,
        adapter=shape,
        values=end.payload.values,
        mask_bytes=made.told,
        healing=made.healing,
        ranking=ranking,
    )


# -- 1. rank


def choose_layers(federation: Federation, base: Arrays) -> tuple[Chosen, list[Sensitivity]]:
    """The layers to adapt, in the model's order, and the ranking they come from (none unless by sensitivity)."""
    config, wanted, model = federation.config, federation.config.unlearn, federation.anatomy
    if not isinstance(wanted.layers, int):
        return {name: None for name in model.layers if name in wanted.layers}, []
    names = model.ranked
    input_layer = None if wanted.input_layer else model.layers[0]
    ranking: list[Sensitivity] = []
    selection, _ = wanted.selection_part
    if selection.ranks:
        ranking = layers.rank(rank_layers(federation, base, names), wanted.ranking, input_layer)
    if selection.shares:
        assert wanted.budget is not None
        taking = [item for item in ranking if item.layer != input_layer]
        entries = {name: layers.layer_vector(base, name).size for name in names}
        shares = layers.allocate(wanted.budget, taking, wanted.ranking, entries)
        return {name: shares[name] for name in names if shares.get(name)}, ranking
    stuck = never_reset(config, federation.data.shape, federation.data.classes, model)
    chosen = layers.choose(
        *(wanted.selection, names, wanted.layers, ranking, input_layer, config.seed, wanted.draw, stuck),
        args=wanted.selection_args,
    )
    return dict.fromkeys(chosen), ranking


def rank_layers(federation: Federation, base: Arrays, names: Sequence[str]) -> list[Sensitivity]:
    """One federated round from M_r: how far every layer moves, in the model's order."""
    config = federation.config
    frozen = federation.anatomy.frozen_values
    on = used(config, "held")
    work = RankTraining("rank", 1, config.seed, config.train, on, tuple(names), frozen=frozen)

    def conclude(total: PartialSum) -> Saved:
        entries = {name: layers.layer_vector(base, name).size for name in names}
        sensitivities = layers.sensitivities(total.reports, names, entries)
        nothing = Payload(np.zeros(0, np.float32))
        return Saved(round=1, payload=nothing, metrics={}, figures={"layers": [asdict(item) for item in sensitivities]})

    saved = federation.ask(work, state.flatten(base), federation.participants("rank", on), conclude)
    return [Sensitivity(**item) for item in saved.figures["layers"]]


def rankers(federation: Federation) -> Sequence[int]:
    """The clients that were asked to rank: all, or those drawn to take part."""
    return federation.asked("rank", 1, federation.participants("rank", used(federation.config, "held")))


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


# -- 2. adapt


def make_adapter(federation: Federation, base: Arrays, chosen: Chosen, delivery: Delivery) -> Made:
    """The configured kind of adapter on the chosen layers (`config.parts.adapters` lists them)."""
    kind, settings = federation.config.unlearn.adapter_part
    made: Made = kind.function(Making(federation, _unwritable(base), chosen, delivery), settings)
    if kind.load is not None:  # it is another package's
        check_made(made, kind.load, federation.config.unlearn.adapter)
    return made


def _unwritable(base: Arrays) -> Arrays:
    """M_r for those who may read it alone."""
    views = {name: array.view() for name, array in base.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


@dataclass(frozen=True)
class AdapterTraining(OnExamples):
    """A client trains the adapter's values on its D_r, above the frozen prefix."""

    phase: str
    round: int
    seed: int
    train: TrainConfig
    step: AdapterStep
    adapter: Adapter = field(metadata=ONCE)
    wire: Wire = "float32"
    """The format of the upload; the download is float32."""
    residuals: Mapping[int, FloatVector] = field(default_factory=dict, metadata=EACH)
    """By client, what int8 kept back of its updates so far [V]."""
    on: On = "retained"

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        indices, cut = self.rows(space, client), space.cut(self.adapter.names)
        x, y = space.activations("train", indices, cut), space.labels(indices)
        order = batches(len(indices), self.train, self.seed, self.phase, self.round, client)
        with space.attached(self.adapter, payload.values) as (live, theta):
            start = theta.clone()
            values, loss = train_adapter(space, self.step, live, theta, x, y, cut, order)
            # of theta, not of the values: fl(fl(w + a) - w) is not always a, though nothing was trained
            moved = (theta - start).cpu().numpy()
        arrived, kept_back = self._sent(payload.values, values.cpu().numpy(), self.residuals.get(client))
        if self.wire != "float32":
            moved[arrived == payload.values] = 0
        return Update(Payload(arrived), loss, state=kept_back, moved=moved)

    def _sent(
        self, before: FloatVector, after: FloatVector, residual: FloatVector | None
    ) -> tuple[FloatVector, FloatVector | None]:
        """What arrives, the values or the values before plus the change as its format carries it; and what does not."""
        if self.wire == "float32":
            return after, None
        change = after - before if residual is None else after - before + residual
        carried = wire.decode_change(wire.encode_change(change, self.wire, self.adapter.sizes), self.adapter.sizes)
        return before + carried, change - carried if self.wire == "int8" else None

    def upload_bytes(self, payload: Payload) -> int:
        if self.wire == "float32":
            return len(wire.encode(payload))
        return len(wire.encode_change(payload.values, self.wire, self.adapter.sizes))

    def download_bytes(self, payload: Payload) -> int:
        return len(wire.encode(payload))


def with_residuals(work: Work, states: Mapping[int, FloatVector]) -> Work:
    """The work, told what int8 kept back."""
    assert isinstance(work, AdapterTraining)
    return replace(work, residuals=states)


# -- 3. average


def adapting(federation: Federation, shape: Adapter, mask_bytes: int, delivery: Delivery) -> Phase:
    """The rounds of unlearning: clients that keep data train the adapter, and the server averages its values.

    What a client lacks is sent with its first round: which entries the masks hold, and M_r.
    """
    config, clients = federation.config, federation.scenario.clients("retained")
    on = used(config, "retained")

    def work(number: int) -> AdapterTraining:
        train = scheduled(config.train.model_copy(update={"lr": config.adapter_lr}), number, config.unlearn.rounds)
        step, form = AdapterStep(train.lr, train.momentum, config.unlearn.weight_decay), config.unlearn.wire
        return AdapterTraining("unlearn", number, config.seed, train, step, shape, form, on=on)

    missing = delivery.to(clients)
    phase = Phase(
        name="unlearn",
        rounds=config.unlearn.rounds,
        clients=federation.participants("unlearn", on),
        work=work,
        with_states=with_residuals,
        evaluation=AdapterEvaluation(shape),
        once={client: count for client in clients if (count := mask_bytes + missing.get(client, 0))},
        learns=shape.names,
    )
    return served(config, phase, step=False)
