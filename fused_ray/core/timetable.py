"""The timetable of a run's rounds: whom the server asks, who counts, and when a round is over, by a deployment's clock.

It follows from the configuration, the devices and the sizes of messages, never from what training gives: so it is known
before a round is trained, it is the same wherever clients are computed, and a run that goes on works it out again.

The clock starts at 0 with pre-training, with the request to forget, and with each retraining. The server asks those
that are there, and waits while nobody is. Clients that a method asks by name (its targets, whose device nobody can
stand in for) are waited for: they neither drop out nor are late.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fused_ray.config import RunConfig
from fused_ray.core.deployment import Device, Task, client_seconds, close, drops_out, over_selected
from fused_ray.core.participation import Draw, Who, count, of_round
from fused_ray.types import Payload, Scenario

if TYPE_CHECKING:  # it needs PyTorch, and tables of finished runs do not
    from fused_ray.core.work import Work

STORED = "replay"
"""The phase that stands for what a deployment would have stored when it trained; it takes no time."""
_ELSEWHERE = ("pretrain", "retrain", "shadow")
"""What the names of phases begin with that are no method's; each has a clock of its own."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A round before it is trained."""

    asked: Sequence[int]
    """Who is sent something, ascending."""
    counted: Sequence[int]
    """Whose update is in the mean, ascending; nobody in a round that is abandoned."""
    received: int
    """How many updates arrive, those that are thrown away included."""
    once: Mapping[int, int]
    """Bytes that those asked receive beside the round's message, by client."""
    seconds: float | None = None
    """From its start to that of the next one; None without a clock."""
    waited: float = 0.0
    """Those of them until somebody, or everybody who is asked by name, was there."""

    @classmethod
    def of_all(cls, clients: Sequence[int], once: Mapping[int, int]) -> Plan:
        """All that are asked count, and nobody looks at a clock."""
        return cls(asked=clients, counted=clients, received=len(clients), once=once)


@dataclass(frozen=True)
class Asking:
    """What the server is about to ask in a round."""

    work: Work
    payload: Payload
    scenario: Scenario
    who: Who
    """Drawn from those that could (a Draw), or asked by name."""
    once: Callable[[Sequence[int]], Mapping[int, int]]
    """Bytes that some are sent beside the work's own, by client, of those that are asked."""
    learns: Collection[str] = ()
    """The layers that learn; none: the whole model does."""
    all_or_most: bool = True
    """Whether fewer than `min_share` are too few; else one answer is enough."""


@dataclass(frozen=True)
class Timetable:
    """The rounds of one run."""

    config: RunConfig
    devices: Sequence[Device]
    share_from: Callable[[Collection[str]], float]
    """The share of a forward pass from the lowest of some layers on."""
    plans: dict[str, list[Plan]] = field(default_factory=dict, init=False)
    """By phase, its rounds so far."""
    _now: dict[str, float] = field(default_factory=dict, init=False)

    def of(self, phase: str) -> Sequence[Plan]:
        """A phase's rounds so far; more are seen as they are planned."""
        return self.plans.setdefault(phase, [])

    def plan(self, asking: Asking) -> Plan:
        """A round's plan; rounds come in their order, and each is planned once."""
        phase, round = asking.work.phase, asking.work.round
        rounds = self.plans.setdefault(phase, [])
        if round <= len(rounds):
            return rounds[round - 1]
        assert round == len(rounds) + 1, "a round is planned after those before it"
        now = self._now.get(clock_of(phase), 0.0)
        if isinstance(asking.who, Draw) and self.config.deployment.decides and phase != STORED:
            plan = self._drawn(asking, asking.who, now)
        else:
            plan = self._named(asking, of_round(asking.who, round), now)
        assert plan.seconds is not None, "a clock knows how long a round takes"
        self._now[clock_of(phase)] = now + plan.seconds
        rounds.append(plan)
        return plan

    def _named(self, asking: Asking, clients: Sequence[int], now: float) -> Plan:
        """Everybody is asked by name, and counts."""
        once = asking.once(clients)
        seconds, waited = self.everybody(asking.work.phase, self._tasks(asking, clients, once), now)
        return replace(Plan.of_all(clients, once), seconds=seconds, waited=waited)

    def everybody(self, phase: str, tasks: Mapping[int, Task], now: float) -> tuple[float, float]:
        """Seconds of a round that waits for all its clients, and those of them until the last one was there."""
        if phase == STORED:
            return 0.0, 0.0
        last = max(self._seconds(client, task, now) for client, task in tasks.items())
        waited = max(self.devices[client].availability.wait(now) for client in tasks)
        return last + self._server(sum(task.bytes_up for task in tasks.values())), waited

    def _drawn(self, asking: Asking, draw: Draw, now: float) -> Plan:
        """Those that are there are asked; who is in time counts, and so do those that are always asked."""
        deployment, work = self.config.deployment, asking.work
        waits = [self.devices[client].availability.wait(now) for client in draw.others]
        shortest = min(waits)
        there = [place for place, wait in enumerate(waits) if wait <= shortest]
        wanted = count(draw.participation, len(there))
        # a number is what the server set out for, however few are there
        goal = wanted if draw.participation <= 1 else count(draw.participation, len(draw.others))
        others = draw.asked(work.round, there, over_selected(wanted, deployment.over_selection, len(there)))
        asked = sorted([*draw.always, *others])
        once, begins = asking.once(asked), now + shortest
        tasks = self._tasks(asking, asked, once)
        times = {client: self._seconds(client, task, begins) for client, task in tasks.items()}
        gone = {c for c in others if drops_out(self.config.seed, work.phase, work.round, c, deployment.dropout)}
        closed = close(
            {client: times[client] for client in others if client not in gone},
            {client: times[client] for client in gone},
            wanted,
            math.ceil(deployment.min_share * goal - 1e-9) if asking.all_or_most else 1,
            deployment.deadline_s,
            deployment.max_wait_s,
        )
        # whoever is always asked was waited for in vain where the round is abandoned
        counted = sorted([*draw.always, *closed.counted]) if closed.counted else []
        last = max([closed.seconds, *(times[client] for client in draw.always)])
        away = max((self.devices[client].availability.wait(begins) for client in draw.always), default=0.0)
        server = self._server(sum(tasks[client].bytes_up for client in counted))
        return Plan(
            asked=asked,
            counted=counted,
            received=len(asked) - len(gone),
            once=once,
            seconds=shortest + last + server,
            waited=shortest + away,
        )

    def _tasks(self, asking: Asking, clients: Sequence[int], once: Mapping[int, int]) -> dict[int, Task]:
        work, train = asking.work, self.config.train
        down, up = work.download_bytes(asking.payload), work.upload_bytes(asking.payload)
        # what a phase that is no method's trains must not depend on the method: its model is shared
        shared, learning = work.phase.startswith(_ELSEWHERE), self.share_from(asking.learns)

        def task(client: int) -> Task:
            examples = len(work.indices(asking.scenario, client))
            return Task(
                examples=train.shown(examples) if shared else self.shown(work.phase, work.round, examples),
                bytes_down=down + once.get(client, 0),
                bytes_up=up,
                learning=learning,
            )

        return {client: task(client) for client in clients}

    def shown(self, phase: str, round: int, examples: int) -> int:
        """Examples that a client with so many is shown in a round of a method's phase."""
        return self.config.method.shown(self.config, phase, round, examples)

    def _seconds(self, client: int, task: Task, now: float) -> float:
        return client_seconds(self.devices[client], task, self.config.deployment.train_factor, now)

    def _server(self, arrived: int) -> float:
        """Seconds that the server takes for so many bytes."""
        deployment = self.config.deployment
        given = deployment.server_s
        return arrived / (deployment.server_mb_s * 1e6) if given is None else given


def clock_of(phase: str) -> str:
    """With what the clock of a phase started: itself, where it is no method's, or the request to forget."""
    return phase if phase.startswith(_ELSEWHERE) else "request"
