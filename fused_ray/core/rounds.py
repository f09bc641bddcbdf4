"""The round loop, written once over the ClientPool protocol: phases, their rounds, and what is kept of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from fused_ray.config import RunConfig
from fused_ray.core.adapter import Adapter
from fused_ray.core.aggregate import ExactSum
from fused_ray.core.metrics import Metrics, accuracies, halves
from fused_ray.core.participation import Who, of_round, participants
from fused_ray.core.pools import ClientPool
from fused_ray.core.state import Arrays
from fused_ray.core.timetable import Asking, Plan, Timetable
from fused_ray.core.work import Evaluation, Work, round_bits
from fused_ray.errors import ClientFailedError, ConfigError, NumericsError
from fused_ray.models.anatomy import Anatomy, anatomy
from fused_ray.types import (
    ClientReport,
    FloatVector,
    ImageData,
    IntVector,
    On,
    PartialSum,
    Payload,
    Scenario,
    Spans,
    TestView,
)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Rounds of one kind: who takes part, what they compute, how the outcome is evaluated."""

    name: str
    rounds: int
    clients: Who
    """Who takes part: in every round, or by the round's number (from 1)."""
    work: Callable[[int], Work]
    evaluation: Evaluation
    server: Callable[[Round], tuple[Payload, Arrays]] = lambda round: (round.mean, {})
    """What the server makes of a round, and what it keeps for the next one."""
    keep_updates: bool = False
    """Whether the server looks at single clients' updates; each then travels to it by itself."""
    with_states: Callable[[Work, Mapping[int, FloatVector]], Work] = lambda work, states: work
    """A round's work, told the states that clients returned with their last updates."""
    once: Mapping[int, int] = field(default_factory=dict)
    """Protocol bytes that a client receives with its first message of the phase alone, by client."""
    figures: Callable[[Saved, Payload], Mapping[str, Any]] = lambda before, payload: {}
    """What is kept beside the payload after a round, from what was kept before the round and the payload after it."""
    after: Callable[[int, Payload], None] = lambda round, payload: None
    """Is told the payload after each round."""
    unchanged: str = "raise the learning rate"
    """How to mend it where nothing that clients sent changes anything."""
    learns: Collection[str] = ()
    """The layers that learn, where that is not the whole model; a deployment's clock asks."""

    def participants(self, round: int) -> Sequence[int]:
        """Who takes part in a round, where nobody is away."""
        return of_round(self.clients, round)

    def once_in(self, round: int) -> Mapping[int, int]:
        """The bytes of `once` that belong to a round: those of the clients whose first one it is."""
        if not self.once or (round > 1 and not callable(self.clients)):
            return {}
        earlier = {client for before in range(1, round) for client in self.participants(before)}
        return {
            client: self.once[client]
            for client in self.participants(round)
            if client in self.once and client not in earlier
        }


@dataclass(frozen=True, kw_only=True)
class Round:
    """What the server has when all of a round's updates are in."""

    number: int
    """From 1."""
    before: Payload
    """What the clients worked from."""
    mean: Payload
    """The mean of what they sent, weighted by their examples."""
    updates: Mapping[int, FloatVector]
    """What each sent, by client, where the phase asks for it [P or V]."""
    examples: Mapping[int, int]
    """On how many examples each worked, by client."""
    kept: Arrays
    """What the server kept after the last round, by name; nothing in the first."""
    fixed: Spans = ()
    """Of a whole model: where the values lie that no optimiser moves."""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What is recorded of a finished round. Seconds are wall time; bytes are protocol bytes per client, one way."""

    phase: str
    round: int
    train_seconds: float
    aggregate_seconds: float
    evaluate_seconds: float
    metrics: Metrics
    loss: float | None
    """Mean training loss, weighted by examples; None where nobody counted."""
    bytes_up: int
    bytes_down: int
    once: Mapping[int, int]
    """Bytes that clients received beside `bytes_down`, by client: what each is sent once."""
    clients_expected: int
    clients_received: int
    clients_used: int


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a recorder kept of a phase: its last finished round, the payload after it, and figures."""

    round: int
    payload: Payload
    metrics: Metrics
    figures: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[int, FloatVector] = field(default_factory=dict)
    """What single clients keep from round to round, by client."""
    server: Arrays = field(default_factory=dict)
    """What the server keeps from round to round, by name."""


class Recorder(Protocol):
    """Where finished rounds go, and where an interrupted run goes on from."""

    def resume(self, phase: str) -> Saved | None:
        """The phase as it was last saved; None when it has not begun."""
        ...

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        """A round starts; for the progress display."""
        ...

    def clients_done(self, count: int) -> None:
        """That many more clients of the round are done. Raises Interrupted when the run should end."""
        ...

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        """Keep a round's figures, and durably what the next round needs."""
        ...

    def save_history(self, round: int, payload: Payload) -> None:
        """Keep the global model after a round of pre-training; 0 is the initial one."""
        ...

    def history(self, round: int) -> Payload:
        """The global model after a round of pre-training. Raises RunDirectoryError if it was not kept."""
        ...

    def save_model(self, name: str, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep a model under a name: "base", "unlearned" or "retrained"."""
        ...

    def save_adapter(self, adapter: Adapter, values: FloatVector, about: Mapping[str, Any]) -> None:
        """Keep the adapter."""
        ...


@dataclass(frozen=True)
class Federation:
    """What a method works with: the configuration, the data, who holds what, the workers, and where results go."""

    config: RunConfig
    data: ImageData
    scenario: Scenario
    pool: ClientPool
    recorder: Recorder
    clock: Timetable | None = None
    """Of the configuration's deployment, if it has one."""

    @property
    def anatomy(self) -> Anatomy:
        """What the configured model consists of."""
        return anatomy(self.config.model, self.data.shape, self.data.classes)

    @cached_property
    def views(self) -> dict[str, TestView]:
        """The scenario's test views and their halves, by metric name."""
        return self.scenario.views | halves(self.scenario, self.data.test_labels, self.config.seed)

    def participants(self, phase: str, on: On, always: Collection[int] = ()) -> Who:
        """Who takes part in a phase's rounds, of the clients that have examples of one kind; `always` in every one."""
        config, scenario = self.config, self.scenario
        examples: Callable[[int], int] = scenario.parts(on).sizes.item
        share, sampling = config.participation(phase), config.federation.sampling
        absences = config.deployment.decides
        return participants(scenario.clients(on), examples, share, sampling, config.seed, phase, always, absences)

    def asked(self, phase: str, round: int, who: Who) -> Sequence[int]:
        """Whom the server asked in a round that is planned or over; `who` takes part in it where nobody is away."""
        return of_round(who, round) if self.clock is None else self.clock.plans[phase][round - 1].asked

    def planned(self, phase: Phase, payload: Payload, rounds: int) -> Sequence[Plan]:
        """The plans of a phase's first rounds, of messages like `payload`; none without a clock, which remembers none.

        None of these rounds need have been trained.
        """
        if self.clock is None:
            return ()
        plans = self.clock.of(phase.name)
        for number in range(len(plans) + 1, rounds + 1):
            self._plan(phase, number, phase.work(number), payload)
        return plans

    def _plan(self, phase: Phase, number: int, work: Work, payload: Payload) -> Plan:
        if self.clock is None:
            return Plan.of_all(phase.participants(number), phase.once_in(number))
        had = {client for plan in self.clock.of(phase.name) for client in plan.once}

        def once(asked: Sequence[int]) -> Mapping[int, int]:
            return {client: phase.once[client] for client in asked if client in phase.once and client not in had}

        return self.clock.plan(Asking(work, payload, self.scenario, phase.clients, once, phase.learns))

    def run(self, phase: Phase, payload: Payload) -> Saved:
        """All rounds of a phase, from where it was last saved. Raises what a client's work raises."""
        saved = self.recorder.resume(phase.name) or Saved(round=0, payload=payload, metrics={})
        self.planned(phase, saved.payload, min(saved.round, phase.rounds))  # what is over took its time, too
        for number in range(saved.round + 1, phase.rounds + 1):
            saved = self._round(phase, number, saved)
        return saved

    def ask(
        self,
        work: Work,
        payload: Payload,
        clients: Who,
        conclude: Callable[[PartialSum], Saved],
        rounds: int = 1,
        once: Callable[[Sequence[int]], Mapping[int, int]] = lambda asked: {},
        keep_updates: bool = False,
    ) -> Saved:
        """One round that gives no new model but something that the server concludes from; nothing is evaluated.

        `clients` are those that take part (`participants`), or that are asked by name. `once` is told who is asked, and
        says what bytes they receive beside the work's own, by client. Raises ConfigError where a deployment's clients
        are all late or lost.
        """
        if self.clock is None:
            plan = Plan.of_all(there := of_round(clients, work.round), once(there))
        else:
            plan = self.clock.plan(Asking(work, payload, self.scenario, clients, once, all_or_most=False))
        saved = self.recorder.resume(work.phase)
        if saved is not None and saved.round >= work.round:
            return saved
        if not plan.counted:
            raise ConfigError(
                f"deployment: of {len(plan.asked)} clients none answered in {work.phase} round {work.round}, and "
                "without it nothing goes on; raise deployment.deadline_s, or ask more clients"
            )
        self.recorder.begin_round(work.phase, work.round, rounds, len(plan.counted))
        clock = time.perf_counter()
        total, adding = self.gather(work, payload, plan.counted, keep_updates)
        trained = time.perf_counter()
        saved = conclude(total)
        seconds = (trained - clock - adding, time.perf_counter() - trained + adding, 0.0)
        self.recorder.finish_round(record_of(work, payload, plan, total, seconds, {}), total, None, saved)
        return saved

    def evaluate(self, evaluation: Evaluation, payload: Payload) -> Metrics:
        """Accuracy on every view of the scenario and its halves."""
        return accuracies(self.views, self.pool.evaluate(evaluation, payload))

    def mean(self, work: Work, payload: Payload, total: PartialSum) -> Payload:
        """The weighted mean of what clients sent; of what they all left as it was in `payload`, exactly that."""
        exact = ExactSum(len(total.total), *round_bits(work, self.scenario))
        exact.merge(total.total, total.weight, total.high, total.low)
        values = exact.mean()
        if total.fixed:
            kept = np.zeros(len(values), bool)
            for start, stop in total.fixed:
                kept[start:stop] = True
            kept[total.changed] = False
            values[kept] = payload.values[kept]
        return Payload(values, total.counters)

    def _round(self, phase: Phase, number: int, before: Saved) -> Saved:
        work, clock = phase.with_states(phase.work(number), before.states), time.perf_counter()
        plan = self._plan(phase, number, work, before.payload)
        self.recorder.begin_round(phase.name, number, phase.rounds, len(plan.counted))
        total, adding, trained = NOBODY, 0.0, time.perf_counter()
        mean, kept = before.payload, before.server
        if plan.counted:
            total, adding = self.gather(work, before.payload, plan.counted, phase.keep_updates)
            trained = time.perf_counter()
            mean, kept = self._concluded(phase, work, before, total)
        figures = phase.figures(before, mean)
        phase.after(number, mean)
        averaged = time.perf_counter()
        predictions = self.pool.evaluate(phase.evaluation, mean)
        evaluated = time.perf_counter()
        metrics = accuracies(self.views, predictions)
        states = {**before.states, **total.states}
        saved = Saved(round=number, payload=mean, metrics=metrics, figures=figures, states=states, server=kept)
        seconds = (trained - clock - adding, averaged - trained + adding, evaluated - averaged)
        record = record_of(work, before.payload, plan, total, seconds, metrics)
        self.recorder.finish_round(record, total, predictions, saved)
        return saved

    def _concluded(self, phase: Phase, work: Work, before: Saved, total: PartialSum) -> tuple[Payload, Arrays]:
        """What the server makes of a round, and what it keeps. Raises NumericsError where training changed nothing."""
        payload, mean = before.payload, self.mean(work, before.payload, total)
        # the mean alone would not tell: averaging rounds a payload that is finer than its resolution, and an adapter's
        # values are rounded where a client adds them to its weights
        if np.array_equal(mean.values, payload.values) or not any(report.values_changed for report in total.reports):
            raise NumericsError(f"{work.phase} round {work.round}: training changed nothing; {phase.unchanged}")
        return phase.server(
            Round(
                number=work.round,
                before=payload,
                mean=mean,
                updates=total.updates,
                examples={report.client: report.examples for report in total.reports},
                kept=before.server,
                fixed=total.fixed,
            )
        )

    def gather(
        self, work: Work, payload: Payload, clients: Sequence[int], keep_updates: bool = False
    ) -> tuple[PartialSum, float]:
        """The exact sum over clients, added up as their parts arrive, and the seconds that adding took."""
        exact, scale = None, round_bits(work, self.scenario)
        counters = np.zeros(0, np.int64)
        reports: list[ClientReport] = []
        updates: dict[int, FloatVector] = {}
        states: dict[int, FloatVector] = {}
        fixed: Spans = ()
        changed: IntVector = np.zeros(0, np.int64)
        adding = 0.0
        for part in self.pool.train(work, payload, clients, self.recorder.clients_done, keep_updates):
            started = time.perf_counter()
            exact = exact or ExactSum(len(part.total), *scale)
            exact.merge(part.total, part.weight, part.high, part.low)
            fixed, changed = part.fixed, np.union1d(changed, part.changed)
            counters = np.maximum(counters, part.counters) if counters.size else part.counters
            reports.extend(part.reports)
            updates.update(part.updates)
            states.update(part.states)
            adding += time.perf_counter() - started
        reports.sort(key=lambda report: report.client)
        there, skips = [report.client for report in reports], self.config.federation.on_failure == "skip"
        if exact is None:
            assert skips, "a round without an answer"
            raise ClientFailedError(f"{work.phase} round {work.round}: every client failed, and nobody is left")
        assert there == sorted({*there} if skips else clients), "a client is missing from the round, or twice"
        states = {client: states[client] for client in sorted(states)}
        whole = PartialSum(
            exact.total, counters, exact.weight, tuple(reports), updates, states, exact.high, exact.low, fixed, changed
        )
        return whole, adding


NOBODY = PartialSum(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, ())
"""What is there of a round in which nobody counted."""


def record_of(
    work: Work,
    payload: Payload,
    plan: Plan,
    total: PartialSum,
    seconds: tuple[float, float, float],
    metrics: Metrics,
) -> RoundRecord:
    """A round's record; `seconds` are those of training, aggregation and evaluation."""
    assert set(plan.once) <= set(plan.asked), "what is sent once is sent to a client of the round"
    failed = len(plan.counted) - len(total.reports)
    summed = sum(report.examples * report.loss for report in total.reports)  # in client order
    return RoundRecord(
        phase=work.phase,
        round=work.round,
        train_seconds=seconds[0],
        aggregate_seconds=seconds[1],
        evaluate_seconds=seconds[2],
        metrics=metrics,
        loss=summed / total.weight if total.reports else None,
        bytes_up=work.upload_bytes(payload),
        bytes_down=work.download_bytes(payload),
        once=plan.once,
        clients_expected=len(plan.asked),
        clients_received=plan.received - failed,
        clients_used=len(total.reports),
    )
