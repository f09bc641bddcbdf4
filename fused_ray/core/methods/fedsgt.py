"""FedSGT: modules trained one on the other, of which a deletion switches the later ones off (arXiv 2511.23393).

1. The data are dealt into groups, uniformly; a client's data fall into some of them. The groups stand in several
   orders, the sequences. For each position of a sequence a small module is trained on its group's data alone, on top of
   the frozen base and the modules before it. All modules lie on the server. The clients of a group train its modules.
2. To forget, in every sequence the module of a group that holds any of D_u is switched off, and so are all behind it.
   What serves is the sequence of which most modules are left, its first ones. Nobody trains.

The base is what training begins with (`model.weights`, or random values), so what serves never saw D_u, nor anything
that did: exact, bit for bit. The model with all modules on is this method's M_r. What counts is how many deletions are
served until a retraining: a sequence dies with its first group, so m sequences that begin with m different ones of n
groups last m (n + 1) / (m + 1) random deletions in the mean.

Its abstract and one note on it were read. What a module is, how large, how many groups and sequences there are, and how
clients train were not found. Ours: a module sets a share of each layer's values, drawn for its position and sequence;
the sequences are one order of the groups, turned; equally long ones serve by their order. A group's clients train its
module by averaged SGD in evaluation mode, so running statistics stay as they begin.

A class lies in every group. Where a request takes the first group of every sequence nothing is left to serve, and that
is refused before a module is trained: it takes a retraining. So do most requests that concern many clients.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fused_ray.config import TrainConfig
from fused_ray.core import state, wire
from fused_ray.core.adapter import Masks, attached, random_masks
from fused_ray.core.layers import layer_parameters
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.fedavg import initial
from fused_ray.core.rounds import Federation, Phase, Round
from fused_ray.core.state import Arrays
from fused_ray.core.training import AdapterStep, batches, train_adapter
from fused_ray.core.work import ONCE, ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Parts, Payload, Scenario

Order = Sequence[int]
"""Of groups, by their numbers."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Train every sequence on D, then switch off what saw a group that holds some of D_u."""
    config, own, names = federation.config, federation.config.fedsgt, federation.anatomy.ranked
    groups = dealt(federation.scenario, own.groups, own.spread, config.seed)
    orders = turned(permutation(own.groups, config.seed, "fedsgt/order").tolist(), own.sequences)
    chosen, on = best(orders, concerned(groups, federation.scenario))
    begun = initial(federation, "pretrain")
    start = state.flatten(begun)
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    ends, modules = [], []
    for number, order in enumerate(orders):
        draws = range(number * own.groups, (number + 1) * own.groups)
        modules.append([random_masks(config.seed, begun, names, own.share, draw) for draw in draws])
        phase = training(federation, number, begun, modules[-1], [groups[group] for group in order])
        ends.append(federation.run(phase, start))
    served = start.values.copy()
    for position, module in enumerate(modules[chosen][:on]):
        served[places(begun, module)] = ends[chosen].server[str(position)]
    after = Payload(served, start.counters)
    metrics = federation.evaluate(ModelEvaluation(), after)
    stored = sum(4 * module.size for each in modules for module in each)
    figures = {"sequence": chosen + 1, "modules_on": on, "expected_deletions": deletions(own.groups, own.sequences)}
    found = whole_model(after, base, metrics, start_metrics, stored)
    return replace(found, before=ends[0].metrics, figures=figures)


# -- groups and sequences


def dealt(scenario: Scenario, groups: int, spread: int, seed: int) -> list[Parts]:
    """What clients hold of each group. A client's examples are dealt to `spread` groups, neighbours in a circle.

    Raises ConfigError where a group would get none.
    """
    held, into = scenario.held, np.zeros(len(scenario.held.indices), np.int64)
    clients = scenario.clients("held")
    for rank, place in enumerate(permutation(len(clients), seed, "fedsgt/clients").tolist()):
        start, end = held.offsets[clients[place] : clients[place] + 2]
        order = permutation(int(end - start), seed, "fedsgt/examples", client=clients[place])
        into[start + order] = (rank + np.arange(len(order)) % spread) % groups
    if len(np.unique(into)) < groups:
        raise ConfigError(
            f"fedsgt.groups: {len(clients)} clients do not fill {groups} groups; lower it, or raise fedsgt.spread"
        )
    return [held.where(into == group) for group in range(groups)]


def concerned(groups: Sequence[Parts], scenario: Scenario) -> set[int]:
    """The groups that hold any of D_u."""
    gone = scenario.gone.indices
    return {number for number, group in enumerate(groups) if np.isin(group.indices, gone).any()}


def turned(order: Order, sequences: int) -> list[list[int]]:
    """One order of the groups, turned once, twice, and so on: no two begin with the same group."""
    return [[*order[len(order) - turns :], *order[: len(order) - turns]] for turns in range(sequences)]


def left(orders: Sequence[Order], gone: Collection[int]) -> list[int]:
    """How many modules of each sequence stay on: those before the first group that is gone."""
    return [next((at for at, group in enumerate(order) if group in gone), len(order)) for order in orders]


def best(orders: Sequence[Order], gone: Collection[int]) -> tuple[int, int]:
    """The sequence with most modules on, the first of equal ones, and how many. Raises ConfigError if none has any."""
    on = left(orders, gone)
    if not max(on):
        raise ConfigError(
            f"unlearn.method: fedsgt has nothing left to serve: {len(gone)} of {len(orders[0])} groups hold what must "
            "be forgotten, and with them the first of every sequence; take unlearn.method=retrain, or raise "
            "fedsgt.groups and fedsgt.sequences"
        )
    return on.index(max(on)), max(on)


def deletions(groups: int, sequences: int) -> float:
    """How many deletions of groups, in a random order, there are in the mean until no sequence is left."""
    return sequences * (groups + 1) / (sequences + 1)


# -- modules


@dataclass(frozen=True)
class ModuleTraining:
    """A client trains a module on what it has of its group, on top of the model that is sent."""

    phase: str
    round: int
    seed: int
    train: TrainConfig
    step: AdapterStep
    received: int
    """Values that a client needs for it beside the base."""
    module: Masks = field(metadata=ONCE)
    group: Parts = field(metadata=ONCE)

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        return self.group[client]

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        rows = self.indices(space.scenario, client)
        space.load(payload)
        space.model.eval()
        x, y = space.images("train", rows), space.labels(rows)
        order = batches(len(rows), self.train, self.seed, self.phase, self.round, client)
        with attached(space.model, self.module, np.zeros(self.module.size, np.float32)) as (live, theta):
            _, loss = train_adapter(space, self.step, live, theta, x, y, 0, order)
            after = state.read(space.model)
        return Update(after, loss)

    def upload_bytes(self, payload: Payload) -> int:
        return wire.values_bytes(self.module.size)

    def download_bytes(self, payload: Payload) -> int:
        return wire.values_bytes(self.received)


def training(
    federation: Federation, number: int, base: Arrays, modules: Sequence[Masks], groups: Sequence[Parts]
) -> Phase:
    """The rounds of a sequence, module after module, each on its group. The server keeps each module's values."""
    config, own, name = federation.config, federation.config.fedsgt, f"sequence-{number + 1}"
    start, clients = state.flatten(base), federation.scenario.clients("held")
    taking_part = [np.flatnonzero(group.sizes).tolist() for group in groups]
    step = AdapterStep(own.lr, config.train.momentum, 0.0)

    def work(round: int) -> ModuleTraining:
        position, before = divmod(round - 1, own.rounds)
        # of a module that others began to train its values so far, else those of the modules before it
        received = modules[position].size if before else sum(module.size for module in modules[:position])
        return ModuleTraining(
            *(name, round, config.seed, config.train, step, received), module=modules[position], group=groups[position]
        )

    def server(round: Round) -> tuple[Payload, Arrays]:
        position = (round.number - 1) // own.rounds
        values, at = round.before.values.copy(), places(base, modules[position])
        values[at] = round.mean.values[at]
        return Payload(values, round.before.counters), {**round.kept, str(position): values[at]}

    return Phase(
        name=name,
        rounds=own.groups * own.rounds,
        clients=lambda round: taking_part[(round - 1) // own.rounds],
        work=work,
        evaluation=ModelEvaluation(),
        server=server,
        # the base is sent once, and serves all sequences
        once=dict.fromkeys(clients, wire.model_bytes(start, federation.anatomy.frozen_values)) if not number else {},
    )


def places(model: Arrays, module: Masks) -> IntVector:
    """Where a module's entries lie in the values of a model's payload."""
    starts, at = {}, 0
    for name in sorted(model):
        if np.issubdtype(model[name].dtype, np.floating):
            starts[name] = at
            at += model[name].size
    found = []
    for mask in module.layers:
        names = layer_parameters(model, mask.layer)
        found.append(np.concatenate([starts[name] + np.arange(model[name].size) for name in names])[mask.positions])
    return np.concatenate(found)
