"""Federated averaging (McMahan et al. 2017): pre-training on all data, retraining without the forgotten data, and
going on without it.

Each round every client trains the global model on its own data with a fresh optimiser; the server averages the
results weighted by examples, w = sum_k (n_k / n) w_k. Another optimiser of the clients or the server, another aggregate
and a schedule of learning rates hold here: wherever a whole model is trained by rounds of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fused_ray import models
from fused_ray.config import TrainConfig
from fused_ray.core import pretrained, state, wire
from fused_ray.core.augment import Draws
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.participation import Who
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.schedules import scheduled
from fused_ray.core.server import served
from fused_ray.core.state import Arrays
from fused_ray.core.training import batches, train_model
from fused_ray.core.work import ModelEvaluation, OnExamples, Update
from fused_ray.core.workspace import Workspace
from fused_ray.seeding import bits, derive
from fused_ray.types import On, Payload


@dataclass(frozen=True)
class FullTraining(OnExamples):
    """A client trains the whole model on all that it holds (D), what stays of it (D_r) or what must go (D_u)."""

    phase: str
    round: int
    seed: int
    train: TrainConfig
    on: On
    frozen: int = field(default=0, kw_only=True)
    """How many of a model's values are frozen: no round sends them."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        indices = self.rows(space, client)
        space.load(payload)
        order = batches(len(indices), self.train, self.seed, self.phase, self.round, client)
        draws: Draws | None = None
        if space.config.data.augment != "none":
            draws = bits(self.train.shown(len(indices)), self.seed, f"augment/{self.phase}", self.round, client)
        with models.seeded(derive(self.seed, f"dropout/{self.phase}", self.round, client), space.device):
            loss = train_model(space, self.train, indices, order, draws)
        after = state.read(space.model)
        return Update(after, loss, moved=state.trained_change(space.model, payload, after), fixed=space.fixed)

    def upload_bytes(self, payload: Payload) -> int:
        return wire.model_bytes(payload, self.frozen)

    def download_bytes(self, payload: Payload) -> int:
        return wire.model_bytes(payload, self.frozen)


def initial(federation: Federation, phase: str) -> Arrays:
    """The model that a phase's training begins with: `model.weights`, else random ones, others for each phase."""
    drawn = random_model(federation, f"init/{phase}")
    weights = federation.config.model.weights
    return drawn if weights is None else pretrained.read(Path(weights), drawn, federation.config.model.label)


def random_model(federation: Federation, purpose: str) -> Arrays:
    """The configured model with random weights from the seed and the purpose."""
    config, data = federation.config, federation.data
    return state.arrays(models.initialise(config.model, data.shape, data.classes, config.seed, purpose))


def pretrain(federation: Federation, start: Payload) -> Saved:
    """FedAvg on all data; gives M_r. Keeps the global model of every round where a method needs it."""
    recorder, keeps = federation.recorder, federation.config.keeps_history
    if keeps and recorder.resume("pretrain") is None:
        recorder.save_history(0, start)
    phase = pretraining(federation)
    return federation.run(replace(phase, after=recorder.save_history) if keeps else phase, start)


def pretraining(federation: Federation) -> Phase:
    """The rounds that give M_r."""
    return averaging(federation, "pretrain", "held", federation.config.pretrain.rounds)


def trained_by(federation: Federation) -> Who:
    """Whose updates made M_r, by the round of pre-training."""
    if not federation.config.deployment.decides:
        return federation.participants("pretrain", "held")
    phase, start = pretraining(federation), state.flatten(initial(federation, "pretrain"))
    plans = federation.planned(phase, start, phase.rounds)
    return lambda round: plans[round - 1].counted


def retrain(federation: Federation, start: Payload) -> Saved:
    """FedAvg on D_r alone from a fresh model: what unlearning is measured against."""
    return fedavg(federation, start, "retrain", "retained", federation.config.retrain_rounds)


def unlearn_by_retraining(federation: Federation, base: Arrays) -> Unlearned:
    """The gold standard as a method: M_f is the retrained model, and nothing is left of M_r."""
    config, start = federation.config, state.flatten(initial(federation, "retrain"))
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    if config.retrains:
        end = retrain(federation, start)
    else:  # the standard that it is measured against has all
        end = fedavg(federation, start, "unlearn", used(config, "retained"), config.retrain_rounds)
    return whole_model(end.payload, base, end.metrics, start_metrics)


def unlearn_by_finetuning(federation: Federation, base: Arrays) -> Unlearned:
    """FedAvg of the whole model simply goes on, on D_r: what is never seen again fades."""
    return finetune(federation, state.flatten(base), base)


def finetune(federation: Federation, start: Payload, like: Arrays, storage_bytes: int = 0) -> Unlearned:
    """FedAvg on D_r from a given model, `unlearn.rounds` rounds: a method of its own, or a method's recovery."""
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    end = recover(federation, start)
    return whole_model(end.payload, like, end.metrics or start_metrics, start_metrics, storage_bytes)


def recover(federation: Federation, start: Payload, first: int = 0) -> Saved:
    """FedAvg on D_r from a model, `unlearn.rounds` rounds; the first rounds of the phase were others."""
    config = federation.config
    return fedavg(federation, start, "unlearn", used(config, "retained"), first + config.unlearn.rounds, first)


def frozen_once(federation: Federation, clients: Sequence[int]) -> dict[int, int]:
    """The bytes of the frozen values, which clients are sent when a model's training begins, by client."""
    frozen = federation.anatomy.frozen_values
    return dict.fromkeys(clients, wire.values_bytes(frozen)) if frozen else {}


def fedavg(federation: Federation, start: Payload, name: str, on: On, rounds: int, first: int = 0) -> Saved:
    """FedAvg over the clients that have data of one kind and take part, at the learning rates of `train.schedule`.

    `first` rounds of the phase were others; the schedule does not count them.
    """
    return federation.run(averaging(federation, name, on, rounds, first), start)


def averaging(federation: Federation, name: str, on: On, rounds: int, first: int = 0) -> Phase:
    """The phase of `fedavg`. What is averaged is what the configured aggregate and server optimiser make of a round."""
    config, clients, frozen = federation.config, federation.scenario.clients(on), federation.anatomy.frozen_values
    phase = Phase(
        name=name,
        rounds=rounds,
        clients=federation.participants(name, on),
        work=lambda number: FullTraining(
            *(name, number, config.seed, scheduled(config.train, number - first, rounds - first), on), frozen=frozen
        ),
        evaluation=ModelEvaluation(),
        once=frozen_once(federation, clients) if name in ("pretrain", "retrain") else {},
    )
    return served(config, phase)
