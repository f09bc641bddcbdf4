"""RayPool: clients in Ray actors. What is shared is put once, calls return values, sums arrive as actors finish.

An actor adds its clients up and hands over one sum a round, however many calls that takes. When it dies, what it had
not handed over is computed again (`engine.recovery`), with the same bits. Every wait has a bound.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from fused_ray.config import RunConfig
from fused_ray.core.pools import ClientDone
from fused_ray.core.simulation import check_numerics
from fused_ray.core.standard import standard
from fused_ray.core.work import Evaluation, Work
from fused_ray.core.workspace import test_blocks
from fused_ray.engine.calls import Answer, Calls, Request
from fused_ray.engine.client import RemoteClient
from fused_ray.engine.cluster import await_nodes, bundles, group_nodes, plan_beside_others
from fused_ray.engine.cluster import cluster_nodes as cluster_nodes
from fused_ray.engine.crew import Crew
from fused_ray.engine.dispatch import Call
from fused_ray.engine.pace import Pace
from fused_ray.engine.parcels import Sent, packed
from fused_ray.engine.placement import Plan, plan, room
from fused_ray.engine.recovery import assigned, split
from fused_ray.errors import ClientFailedError, PlacementError
from fused_ray.models.rehearsal import memory_format, section_of
from fused_ray.types import ClientReport, Identity, ImageData, IntVector, PartialSum, Payload, Scenario

_CALLS = 4
"""Calls that an actor's clients are split into each round, for progress to be seen and small losses."""
_POLL = 0.5
"""Seconds of one look at whether actors have started."""
_SETTLE = 20.0
"""Seconds without a further actor after which a run begins with those that it has; the others join as they come."""


class RayPool:
    """A set of client actors on the Ray cluster that this process is connected to, or in a placement group of it."""

    _plan: Plan
    _base: ray.ObjectRef[Payload] | None

    def __init__(
        self, config: RunConfig, data: ImageData, scenario: Scenario, group: PlacementGroup | None = None
    ) -> None:
        self._group = group
        self._crew: Crew | None = None
        self._lost: set[str] = set()
        """Nodes that this pool has lost."""
        self._sent, self._pace = Sent(), Pace()
        self._rounds = 0
        """Number of the last round: what an actor keeps of an earlier one is of no use."""
        self.assign(config, data, scenario)

    def assign(self, config: RunConfig, data: ImageData, scenario: Scenario) -> None:
        """Place these clients; actors that are there stay if the new plan wants as many with the same resources."""
        examples: list[int] = scenario.held.sizes.tolist()
        wanted = self._planned(config, examples)
        crew = self._crew
        kept = crew is not None and wanted.seats == self._plan.seats and len(crew.ready) == len(wanted.seats)
        if not kept:
            self.close()
        self._config, self._plan, self._blocks = config, wanted, test_blocks(data)
        self._examples = examples
        with standard():
            form = memory_format(section_of(config.model), data.shape, data.classes)
        self._shared = (ray.put(_bounded(config, wanted)), ray.put(data), ray.put(scenario), form)
        self._base = None
        self._room = dict(wanted.room)
        self._assigned: tuple[list[int], dict[int, int]] = ([], {})
        if kept:
            self._everywhere("assign", lambda call, last: self._shared)
        else:
            self._crew = Crew(len(wanted.seats), self._create, config.engine.max_attempts)
            self._meet()

    @property
    def identities(self) -> list[Identity]:
        """What the actors that are there say of themselves, by slot."""
        return [self._members.identity(slot) for slot in self._members.ready]

    def install(self, base: Payload) -> None:
        self._base = ray.put(base)
        for actor in self._members.beginners:  # made before there was this base, they may join after it
            actor.install.remote(self._base)
        self._everywhere("install", lambda call, last: (self._base,))

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        self._await_one()
        slot_of, by_slot = self._slots(), defaultdict[int, list[int]](list)
        for client in clients:
            by_slot[slot_of[client]].append(client)
        calls = [Call(slot, part) for slot, held in by_slot.items() for part in split(held, _CALLS)]
        parcel = packed(work)
        task, once, self._rounds = ray.put((parcel.rest, payload)), self._sent.ref(parcel.once), self._rounds + 1
        number, told, reports = self._rounds, set[int](), list[ClientReport]()
        request = Request(
            "train",
            lambda call, last: (task, once, parcel.of(call.items), call.items, keep_updates, number, last),
            f"{work.phase} round {work.round}",
            lambda client: self._pace.seconds(self._examples[client]),
            done,
            self._config.federation.on_failure,
        )
        for answer in self._calls().answers(calls, request):
            new = set(answer.call.items) - told  # what is computed again is no progress
            told |= new
            done(len(new))
            if answer.result is not None:
                reports += answer.result.reports
                yield self._placed(answer)
        self._pace.learn([report.examples for report in reports], [report.train_seconds for report in reports])

    def evaluate(self, evaluation: Evaluation, payload: Payload) -> IntVector:
        self._await_one()
        parcel = packed(evaluation)
        task, once, slots = ray.put((parcel.rest, payload)), self._sent.ref(parcel.once), self._evaluators()
        calls = [Call(slot, tuple(range(at, self._blocks, len(slots)))) for at, slot in enumerate(slots)]
        request = Request("evaluate", lambda call, last: (task, once, call.items), "evaluation")
        found: dict[int, IntVector] = {}
        for answer in self._calls().answers(calls, request):
            found.update(zip(answer.call.items, answer.result, strict=True))
        return np.concatenate([found[block] for block in range(self._blocks)])

    def base_hashes(self) -> list[list[str]]:
        return self._everywhere("base_hashes", lambda call, last: ())

    def close(self) -> None:
        """End every actor and drop every reference."""
        if self._crew is not None:
            self._crew.close()
        self._crew, self._base = None, None

    # -- actors

    def _planned(self, config: RunConfig, examples: Sequence[int]) -> Plan:
        """Where the actors go: into the placement group, or beside what others hold."""
        if self._group is not None:
            return plan(config.federation, examples, group_nodes(self._group))
        await_nodes(config.engine)
        ours = [] if self._crew is None else self.identities
        return plan_beside_others(
            lambda nodes: plan(config.federation, examples, nodes), ours, config.engine.start_timeout
        )

    def _create(self, slot: int, anywhere: bool) -> Any:
        seat = self._plan.seats[slot]
        where: Any = "SPREAD"
        labels = dict(self._config.federation.actor_labels) if anywhere and self._group is None else None
        if self._group is not None:
            index = -1 if anywhere else bundles(self._group).get(seat.node, -1)
            where = PlacementGroupSchedulingStrategy(self._group, index)
        elif not anywhere:
            where = NodeAffinitySchedulingStrategy(seat.node, soft=False)
        actor: Any = RemoteClient.options(
            num_cpus=seat.cpus, num_gpus=seat.gpus, scheduling_strategy=where, label_selector=labels
        ).remote(*self._shared, seat.gpus)
        if self._base is not None:
            actor.install.remote(self._base)
        return actor

    def _meet(self) -> None:
        """Wait until every actor has started, or no further one does: then those that have must do."""
        crew, limit = self._members, self._config.engine.start_timeout
        heard = time.monotonic()
        while len(crew.ready) < len(self._plan.seats):
            if crew.join(_POLL):
                heard = time.monotonic()
            quiet = time.monotonic() - heard
            if crew.failure is not None:
                self.close()
                raise ClientFailedError(f"a client actor could not start: {crew.failure}")
            if crew.ready and quiet > min(limit, _SETTLE):
                return
            if quiet > limit:
                self.close()
                raise PlacementError(
                    f"none of {len(self._plan.seats)} client actors started within {limit:g} s "
                    "(engine.start_timeout); others hold the cluster's CPUs or GPUs, or imports are slow there: free "
                    "resources or raise the limit"
                )

    def _join(self) -> None:
        """Take in actors that have started since, also on nodes that came late."""
        if not self._members.join():
            return
        check_numerics(self._config, self.identities)
        if not {identity.node for identity in self.identities} <= self._room.keys():
            self._room = {node.name: room(node, self._plan.on_gpus) for node in cluster_nodes()} | self._room

    def _await_one(self) -> None:
        """Until an actor is there. Raises ClientFailedError if none comes."""
        self._join()
        self._members.wait(self._config.engine.start_timeout)

    @property
    def _members(self) -> Crew:
        assert self._crew is not None, "the pool is closed"
        return self._crew

    def _slots(self) -> dict[int, int]:
        """Which slot computes each client now."""
        ready = self._members.ready
        if ready != self._assigned[0]:
            self._assigned = ready, assigned(self._plan.clients, ready, self._examples.__getitem__)
        return self._assigned[1]

    def _evaluators(self) -> list[int]:
        """Slots that evaluate at once: no more than a node has room for, or than there are blocks."""
        busy: dict[str, int] = defaultdict(int)
        found = []
        for slot in self._members.ready:
            node = self._members.identity(slot).node
            busy[node] += 1
            if busy[node] <= self._room.get(node, 1):
                found.append(slot)
        return found[: self._blocks]

    # -- calls

    def _calls(self) -> Calls:
        return Calls(self._members, self._room, self._config.engine, self._lost, self._join)

    def _everywhere(self, method: str, arguments: Callable[[Call, bool], tuple[Any, ...]]) -> list[Any]:
        """One call on every actor that is there when it is over; the results by slot."""
        found: dict[int, Any] = {}
        calls = self._calls()
        while True:
            self._await_one()
            missing = [Call(slot, ()) for slot in self._members.ready if slot not in found]
            if not missing:
                return [found[slot] for slot in self._members.ready]
            for answer in calls.answers(missing, Request(method, arguments, method)):
                found[answer.call.slot] = answer.result

    def _placed(self, answer: Answer) -> PartialSum:
        """The sum of an actor, with where that was and which attempt it took in its clients' reports."""
        where = self._members.identity(answer.call.slot)
        attempt = {client: call.attempt for call in answer.covered for client in call.items}

        def placed(report: ClientReport) -> ClientReport:
            return replace(report, node=where.node, device=where.device, attempt=attempt[report.client])

        part: PartialSum = answer.result
        return replace(part, reports=tuple(map(placed, part.reports)))


def _bounded(config: RunConfig, plan: Plan) -> RunConfig:
    """The configuration for actors whose caches all fit into the memory of their nodes; that changes no result."""
    cache = min(config.engine.prefix_cache_mb, max(0.0, plan.cache) / 1e6)
    return config.model_copy(update={"engine": config.engine.model_copy(update={"prefix_cache_mb": cache})})
