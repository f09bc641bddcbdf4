"""About how long runs take on this machine when nothing else does: measured on a miniature, made here on one core.

A miniature is the real program on noise: two clients with a few batches each, a few rounds of pre-training and of
unlearning by the run's own method, layers and batch size. What it took an example is multiplied by the examples of the
run's rounds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fused_ray.config import RunConfig
from fused_ray.config.parts.datasets import DatasetInfo
from fused_ray.config.parts.scenarios import SCENARIOS
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.participation import count as taking_part
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import RoundRecord, Saved
from fused_ray.core.simulation import simulate
from fused_ray.seeding import generator
from fused_ray.types import ImageData, IntVector, PartialSum, Parts, Scenario, TestView

_BATCHES = (1, 8)
"""Batches a client of a miniature: first one, which also warms up, and several if that took no time."""
_QUICK = 0.5
"""Seconds that count as no time."""
_ROUNDS = 2
"""Rounds of pre-training and of unlearning in a miniature."""
_TESTS = 250
"""Test examples of a miniature."""
_RATE = 1e-3
"""Learning rate in a miniature: noise must not make it diverge, and no cost depends on it."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one core for one example, by phase."""

    train: Mapping[str, float]
    prefix: float
    """More, in the first round of unlearning: an adapter's frozen prefix."""
    evaluate: Mapping[str, float]
    """For one test example."""


def seconds(config: RunConfig, rounds: Mapping[str, int], costs: Costs) -> float:
    """Of one core, for so many rounds of each phase; where a phase was not in the miniature, as pre-training."""
    info = _data(config)
    limit = config.data.limit or max(info.train_examples, info.test_examples)
    held, tests = min(limit, info.train_examples), min(limit, info.test_examples)
    total = 0.0
    for phase, count in rounds.items():
        like = phase if phase in costs.train else "pretrain"
        stays = kept(config)
        passes = _passes(config, phase, count)
        # of two rounds of gradients, one is on what goes and one on what stays
        salient = 0.5 if config.gradient_rounds == 2 else 1 - stays
        share = {"unlearn": stays * config.unlearn.retain, "retrain": stays, "saliency": salient}.get(phase, 1.0)
        share *= taking_part(config.participation(phase), config.federation.clients) / config.federation.clients
        total += held * share * (count * costs.train[like] * passes + (costs.prefix if phase == "unlearn" else 0.0))
        if phase not in ("rank", "saliency"):
            total += count * tests * costs.evaluate[like]
    return total + tests * costs.evaluate["pretrain"]  # the model before unlearning is evaluated too


def _passes(config: RunConfig, phase: str, round: int) -> float:
    """What clients are shown in a round, against the epochs of a miniature; 1 unless there are `train.local_steps`."""
    in_epochs = config.model_copy(update={"train": config.train.in_epochs(config.train.local_epochs)})
    asked, usual = (config.method.shown(c, phase, round, _visit(config)) for c in (config, in_epochs))
    return asked / usual if usual else 1.0


def kept(config: RunConfig) -> float:
    """About what share of the training examples stays."""
    forget = config.forget
    if forget.scenario not in SCENARIOS:
        return 0.9  # what another package's takes is not known
    if forget.scenario == "client":
        gone = config.forget_count if forget.clients is None else len(forget.clients)
        return 1 - gone / config.federation.clients
    if forget.scenario == "sample":
        return 1 - config.forget_share * forget.examples_share if not forget.examples else 1.0
    return 1 - len(config.forget_classes) / _data(config).classes


def _data(config: RunConfig) -> DatasetInfo:
    known = config.data.known
    assert known is not None, "own data have no estimate"
    return known


def key(config: RunConfig, layers: tuple[str, ...] | None) -> object:
    """What the costs of a run that adapts these layers depend on, and nothing else."""
    unlearn = config.unlearn
    return (
        config.model,
        config.data.name,
        config.data.augment,
        config.train.batch_size,
        *(config.train.local_epochs, config.train.local_steps is None, config.train.proximal > 0),
        *(config.train.optimiser, str(config.train.optimiser_part[1])),
        _visit(config),
        unlearn.method,
        unlearn.method == "fused"
        and (layers, unlearn.adapter, config.adapter_mask, unlearn.wire, unlearn.heal, config.all_heal),
        config.kind == "client",
    )


def _visit(config: RunConfig) -> int:
    """Examples that a client holds on average."""
    info = _data(config)
    held = min(config.data.limit or info.train_examples, info.train_examples)
    return max(2, held // config.federation.clients)


def measure(config: RunConfig, layers: tuple[str, ...] | None) -> Costs:
    """A miniature of a run on these layers; None: as it chooses. Raises what building or training its model raises."""
    for batches in _BATCHES:
        began = time.thread_time()
        rounds = _miniature(config, layers, min(_visit(config), batches * config.train.batch_size))
        if time.thread_time() - began > _QUICK:
            break
    train, evaluate, prefix = {}, {}, 0.0
    for phase in dict.fromkeys(each.phase for each in rounds):
        own = [each for each in rounds if each.phase == phase]
        train[phase] = min(each.train / each.examples for each in own[1:] or own)
        if phase == "unlearn" and config.unlearn.method == "fused":
            prefix = max(0.0, own[0].train / own[0].examples - train[phase])
        evaluate[phase] = min(each.evaluate for each in own) / _TESTS
    return Costs(train, prefix, evaluate)


@dataclass(frozen=True)
class _Round:
    """A round of a miniature: the examples that it trained on, and seconds."""

    phase: str
    examples: int
    train: float
    evaluate: float


class _Clock(MemoryRecorder):
    """Keeps what rounds took, in processor time: other work on the machine does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[_Round] = []
        self._began = self._trained = 0.0

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self._began = time.thread_time()

    def clients_done(self, count: int) -> None:
        self._trained = time.thread_time()

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        super().finish_round(record, total, predictions, saved)
        train, evaluate = self._trained - self._began, time.thread_time() - self._trained
        self.rounds.append(_Round(record.phase, total.weight, train, evaluate))


def _miniature(config: RunConfig, layers: tuple[str, ...] | None, examples: int) -> list[_Round]:
    """Two clients with so many examples of noise each; the first must forget some, in `client` all."""
    info, unlearn = _data(config), config.unlearn
    few = {
        "pretrain": config.pretrain.model_copy(update={"rounds": _ROUNDS, "from_": None}),
        # local steps on few batches would be many passes over them: `seconds` reckons with that
        "train": config.train.in_epochs(config.train.local_epochs, lr=_RATE),
        "federation": config.federation.model_copy(update={"server": "mean", "server_args": {}}),
        "unlearn": unlearn.model_copy(
            update={
                "method": "finetune" if unlearn.method == "retrain" else unlearn.method,
                "rounds": _ROUNDS,
                "lr": _RATE,
                # no cost depends on it either, but that nobody sends gradients where all heals from zero
                "start": unlearn.start if unlearn.heal == 1 else "zero",
                "layers": unlearn.layers if unlearn.selection_part[0].shares else layers or unlearn.layers,
            }
        ),
        "federaser": config.federaser.model_copy(update={"interval": 1}),
        # two clients fill two groups
        "fedsgt": config.fedsgt.model_copy(update={"groups": 2, "sequences": 2, "spread": 1, "rounds": 1}),
        "retrain": config.retrain.model_copy(update={"rounds": 0}),
    }
    pixels = generator(0, "plan").integers(0, 256, (2 * examples + _TESTS, *info.shape), np.uint8)
    labels = np.arange(len(pixels)) % info.classes
    data = ImageData(
        config.data.name,
        info.classes,
        (0.5,) * info.shape[0],
        (0.5,) * info.shape[0],
        pixels[_TESTS:],
        labels[_TESTS:],
        pixels[:_TESTS],
        labels[:_TESTS],
    )
    first, second = np.arange(examples), np.arange(examples, 2 * examples)
    stays = first[:0] if config.kind == "client" else first[: -max(1, examples // 10)]
    everything = TestView(np.arange(_TESTS), labels[:_TESTS])
    views = {"ra": everything, "fa": everything}
    scenario = Scenario(Parts.of((first, second)), Parts.of((stays, second)), labels[_TESTS:], views, "")
    small, clock = config.model_copy(update=few), _Clock()
    simulate(small, data, scenario, LocalPool(small, data, scenario), clock)
    return clock.rounds
