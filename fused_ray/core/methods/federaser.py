"""FedEraser: unlearning by calibrating stored updates (Liu et al. 2021, arXiv 2012.13891; whole clients).

1. In pre-training the server keeps, every `federaser.interval` rounds, each client's update U_k = w_k - w.
2. The first stored round is applied to the initial model without the forgotten clients: w + sum_k p_k U_k.
3. In each later one the retained clients train a little from the current model, which gives V_k; the stored update
   says how far to go and the new one where to: w + sum_k p_k |U_k| V_k / |V_k|, norms per parameter tensor.
   BN buffers are averaged as trained.

Here nothing is stored in pre-training: the phase "replay" trains the stored rounds once more and keeps |U_k| alone,
which is all that step 3 reads. `unlearn.rounds` is not used: there are as many rounds as stored ones but the first,
none if only one was stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fused_ray.core import state
from fused_ray.core.methods import Unlearned, model_bytes, whole_model
from fused_ray.core.methods.fedavg import FullTraining, trained_by
from fused_ray.core.methods.shared import Replay, staying
from fused_ray.core.numerics import norm
from fused_ray.core.participation import of_round
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.schedules import scheduled
from fused_ray.core.state import Arrays
from fused_ray.core.work import ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import PartialSum, Payload


@dataclass(frozen=True)
class StoredUpdate(Replay):
    """What the server has stored of a client: |U_k| of each parameter, and of the first round the model w + U_k."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        trained = super().update(space, payload, client)
        norms = [norm(_moved(trained.payload, payload, span)) for span in state.spans(space.model)]
        kept = trained.payload if self.round == 1 else Payload(np.zeros(0, np.float32))
        return Update(kept, trained.loss, tuple(norms), fixed=trained.fixed if self.round == 1 else ())


@dataclass(frozen=True)
class Calibration(FullTraining):
    """A client trains a little from the current model, and goes in that direction as far as it once went."""

    norms: Mapping[int, Sequence[float]]
    """|U_k| of each parameter, by client."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        trained = super().update(space, payload, client)
        values = trained.payload.values.copy()  # buffers stay as trained
        for span, length in zip(state.spans(space.model), self.norms[client], strict=True):
            values[span] = payload.values[span] + calibrate(length, _moved(trained.payload, payload, span))
        calibrated = Payload(values, trained.payload.counters)
        moved = state.trained_change(space.model, payload, calibrated)
        return Update(calibrated, trained.loss, moved=moved, fixed=trained.fixed)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Rebuild the model from the initial one, by the retained clients' calibrated updates."""
    config = federation.config
    stored = range(1, config.pretrain.rounds + 1, config.federaser.interval)
    trained = trained_by(federation)
    took_part = [of_round(trained, original) for original in stored]
    clients = [staying(federation.scenario, some, "federaser", n) for some, n in zip(took_part, stored, strict=True)]
    replayed = replay(federation, stored, clients)
    less, on = config.train.in_part(config.federaser.ratio), used(config, "retained")

    def work(number: int) -> Calibration:
        train = scheduled(less, stored[number], config.pretrain.rounds)
        norms = dict(zip(clients[number], replayed.figures["norms"][number], strict=True))
        frozen = federation.anatomy.frozen_values
        return Calibration("unlearn", number, config.seed, train, on, norms, frozen=frozen)

    phase = Phase(
        name="unlearn", rounds=len(stored) - 1, clients=clients.__getitem__, work=work, evaluation=ModelEvaluation()
    )
    start_metrics = federation.evaluate(ModelEvaluation(), replayed.payload)
    end = federation.run(phase, replayed.payload)
    storage_bytes = sum(map(len, took_part)) * model_bytes(replayed.payload)
    return whole_model(end.payload, base, end.metrics or start_metrics, start_metrics, storage_bytes)


def replay(federation: Federation, stored: Sequence[int], clients: Sequence[Sequence[int]]) -> Saved:
    """The model after the first stored round without the forgotten clients, and per stored round the clients' norms.

    `clients` are the retained ones that took part in each stored round.
    """
    config = federation.config
    for number, original in enumerate(stored, 1):
        train = scheduled(config.train, original, config.pretrain.rounds)
        work = StoredUpdate("replay", number, config.seed, train, "held", original)
        start = federation.recorder.history(original - 1)
        keep = partial(_keep, federation, work, start)
        saved = federation.ask(work, start, clients[number - 1], keep, len(stored))
    return saved


def _keep(federation: Federation, work: StoredUpdate, start: Payload, total: PartialSum) -> Saved:
    earlier = federation.recorder.resume("replay")
    payload = earlier.payload if earlier else federation.mean(work, start, total)
    norms = [*(earlier.figures["norms"] if earlier else ()), [report.figures for report in total.reports]]
    return Saved(round=work.round, payload=payload, metrics={}, figures={"norms": norms})


def calibrate(reach: float, v: NDArray[np.float64]) -> NDArray[np.float64]:
    """|U| V / |V|: the step V at the length of U; a V of zero shows no direction and gives no step."""
    length = norm(v)
    return v * (reach / length) if length else v


def _moved(after: Payload, before: Payload, span: slice) -> NDArray[np.float64]:
    return after.values[span].astype(np.float64) - before.values[span]
