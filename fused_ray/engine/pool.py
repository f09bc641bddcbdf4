"""RayPool: clients in Ray actors. What is shared is put once, calls return values, partial sums drain as they finish.

An actor that dies is replaced by a new one, whose calls give the same bits, and its call is repeated, client by client
so that a client whose work kills its actor again and again is named. Every wait has a bound.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fused_ray.config import RunConfig
from fused_ray.core.rounds import ClientDone
from fused_ray.core.simulation import check_numerics
from fused_ray.core.standard import standard
from fused_ray.core.work import Evaluation, Work
from fused_ray.core.workspace import test_blocks
from fused_ray.engine.client import RemoteClient
from fused_ray.engine.dispatch import Call, Dispatch
from fused_ray.engine.placement import Node, Plan, plan
from fused_ray.engine.reason import reason
from fused_ray.errors import ClientFailedError, FusedRayError, PlacementError
from fused_ray.models.rehearsal import memory_format, section_of
from fused_ray.types import ClientReport, Identity, ImageData, IntVector, PartialSum, Payload, Scenario

_CALLS = 4
"""Calls that an actor's clients are split into each round, for progress to be seen."""
_POLL = 0.5
"""Seconds between two looks at whether the user wants to stop."""


class RayPool:
    """A set of client actors on the Ray cluster that this process is connected to, or in a placement group of it."""

    identities: list[Identity]
    _plan: Plan
    _base: ray.ObjectRef[Payload] | None

    def __init__(
        self, config: RunConfig, data: ImageData, scenario: Scenario, group: PlacementGroup | None = None
    ) -> None:
        self._group = group
        self._actors: list[Any] = []
        self.assign(config, data, scenario)

    def assign(self, config: RunConfig, data: ImageData, scenario: Scenario) -> None:
        """Place these clients; actors that are there stay if the new plan wants as many with the same resources."""
        nodes = cluster_nodes() if self._group is None else group_nodes(self._group)
        wanted = plan(config.federation, [len(held) for held in scenario.held], nodes)
        kept = bool(self._actors) and wanted.like(self._plan)
        if not kept:
            self.close()
        self._config, self._plan, self._blocks = config, wanted, test_blocks(data)
        self._slot_of = {c: slot for slot, clients in enumerate(wanted.clients) for c in clients}
        with standard():
            form = memory_format(section_of(config.model), data.shape, data.classes)
        self._shared = (ray.put(config), ray.put(data), ray.put(scenario), form)
        self._base = None
        self._cores = {node.name: max(1, int(node.cpus)) for node in nodes}
        if kept:
            self._run("assign", self._everywhere(), lambda call: self._shared)
        else:
            self._actors = [self._create() for _ in wanted.clients]
            self.identities = self._meet()

    def install(self, base: Payload) -> None:
        self._base = ray.put(base)
        self._run("install", self._everywhere(), lambda call: (self._base,))

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        by_slot: dict[int, list[int]] = defaultdict(list)
        for client in clients:
            by_slot[self._slot_of[client]].append(client)
        calls = [Call(slot, part) for slot, held in by_slot.items() for part in _split(held, _CALLS)]
        task = ray.put((work, payload))
        what = f"{work.phase} round {work.round}"
        for call, result in self._drain("train", calls, lambda call: (task, call.items, keep_updates), what, done):
            done(len(call.items))
            yield self._placed(call, result)

    def evaluate(self, evaluation: Evaluation, payload: Payload) -> IntVector:
        slots = min(len(self._actors), sum(self._cores.values()), self._blocks)
        task = ray.put((evaluation, payload))
        calls = [Call(slot, tuple(range(slot, self._blocks, slots))) for slot in range(slots)]
        found: dict[int, IntVector] = {}
        for call, result in self._drain("evaluate", calls, lambda call: (task, call.items), "evaluation"):
            found.update(zip(call.items, result, strict=True))
        return np.concatenate([found[block] for block in range(self._blocks)])

    def base_hashes(self) -> list[list[str]]:
        return self._run("base_hashes", self._everywhere(), lambda call: ())

    def close(self) -> None:
        """End every actor and drop every reference."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()
        self._base = None

    def _placed(self, call: Call, part: PartialSum) -> PartialSum:
        """What a call gave, with where that was and which attempt it took in its clients' reports."""
        where = self.identities[call.slot]

        def placed(report: ClientReport) -> ClientReport:
            return replace(report, node=where.node, device=where.device, attempt=call.attempt)

        return replace(part, reports=tuple(map(placed, part.reports)))

    # -- actors

    def _create(self) -> Any:
        where = "SPREAD" if self._group is None else PlacementGroupSchedulingStrategy(self._group)
        actor: Any = RemoteClient.options(
            num_cpus=self._plan.cpus, num_gpus=self._plan.gpus, scheduling_strategy=where
        ).remote(*self._shared, self._plan.gpus)
        if self._base is not None:
            actor.install.remote(self._base)
        return actor

    def _meet(self) -> list[Identity]:
        """Wait until every actor has started and said who it is, for as long as one after the other does."""
        waiting = [actor.identity.remote() for actor in self._actors]
        limit = self._config.engine.start_timeout
        started = 0
        while started < len(waiting):
            ready = len(ray.wait(waiting, num_returns=started + 1, timeout=limit)[0])
            if ready == started:
                self.close()
                raise PlacementError(
                    f"{ready} of {len(waiting)} client actors started, and no other within {limit:g} s "
                    "(engine.start_timeout); others hold the cluster's CPUs or GPUs, or imports are slow there: free "
                    "resources or raise the limit"
                )
            started = ready
        try:
            return list(ray.get(waiting))
        except RayError as error:
            self.close()
            raise ClientFailedError(f"a client actor could not start: {reason(error)}") from None

    def _replace(self, slot: int) -> None:
        """A new actor in a slot whose actor died or cannot be reached; it may come to another node."""
        with contextlib.suppress(RayError):
            ray.kill(self._actors[slot])
        self._actors[slot] = self._create()
        limit = self._config.engine.start_timeout
        try:
            self.identities[slot] = ray.get(self._actors[slot].identity.remote(), timeout=limit)
        except GetTimeoutError:
            raise ClientFailedError(
                f"the actor of clients {list(self._plan.clients[slot])} died and no node could take a new one within "
                f"{limit:g} s (engine.start_timeout); make room for it"
            ) from None
        except RayError:
            return  # it died at once: its next call fails, which counts as an attempt
        check_numerics(self._config, self.identities)

    # -- calls

    def _everywhere(self) -> list[Call]:
        return [Call(slot, ()) for slot in range(len(self._actors))]

    def _run(self, method: str, calls: list[Call], arguments: Callable[[Call], tuple[Any, ...]]) -> list[Any]:
        """The calls' results in the order of their slots."""
        results = {call.slot: result for call, result in self._drain(method, calls, arguments, method)}
        return [results[slot] for slot in sorted(results)]

    def _drain(
        self,
        method: str,
        calls: Sequence[Call],
        arguments: Callable[[Call], tuple[Any, ...]],
        what: str,
        done: ClientDone = lambda count: None,
    ) -> Iterator[tuple[Call, Any]]:
        """Make every call, one at a time per actor and no more than cores per node; yield results as they finish.

        Calls of an actor that dies are repeated on a new one, up to `engine.max_attempts` times each.
        """
        waiting = Dispatch(calls, self._node_of, self._cores)
        running: dict[Any, Call] = {}

        def submit() -> None:
            for call in waiting.start():
                running[getattr(self._actors[call.slot], method).remote(*arguments(call))] = call

        quiet_since = time.monotonic()
        submit()
        while running:
            ready, _ = ray.wait(list(running), timeout=_POLL)
            done(0)
            if not ready:
                self._check_time(quiet_since, what, running.values())
                continue
            quiet_since = time.monotonic()
            call = running.pop(ref := ready[0])
            try:
                result = ray.get(ref)
            except RayTaskError as error:
                raise self._explained(error, call, method, what) from None
            except RayError as error:
                if call.attempt >= self._config.engine.max_attempts:
                    raise self._hopeless(error, call, method, what) from None
                self._replace(call.slot)
                parts = _split(call.items, len(call.items)) or [()]
                waiting.end(call, [Call(call.slot, part, call.attempt + 1) for part in parts])
                submit()
                continue
            del ref, ready
            waiting.end(call)
            submit()
            yield call, result

    def _check_time(self, since: float, what: str, running: Any) -> None:
        limit = self._config.engine.client_timeout
        if time.monotonic() - since > limit:
            missing = "; ".join(f"{list(call.items)} on node {self._node_of(call.slot)[:12]}" for call in running)
            raise ClientFailedError(
                f"{what}: nothing finished for {limit:g} s (engine.client_timeout); still running: {missing}"
            )

    def _node_of(self, slot: int) -> str:
        return self.identities[slot].node

    def _explained(self, error: RayTaskError, call: Call, method: str, what: str) -> FusedRayError:
        """The error that a call raised: ours as it is, any other with who and where."""
        if isinstance(error.cause, FusedRayError):
            return error.cause
        kind = "clients" if method == "train" else "blocks"
        cause = error.cause
        return ClientFailedError(
            f"{what}, {kind} {list(call.items)}, node {self._node_of(call.slot)[:12]}: {type(cause).__name__}: {cause}"
        )

    def _hopeless(self, error: RayError, call: Call, method: str, what: str) -> ClientFailedError:
        who = (
            f"client {call.items[0]}" if method == "train" and len(call.items) == 1 else f"{method} {list(call.items)}"
        )
        return ClientFailedError(
            f"{what}, {who}, node {self._node_of(call.slot)[:12]}: its actor died {call.attempt} times "
            f"({reason(error)}); if memory ran out, lower train.batch_size or engine.prefix_cache_mb, or raise "
            "federation.clients_per_actor"
        )


def cluster_nodes() -> list[Node]:
    """The live nodes of the cluster that this process is connected to."""
    return [
        Node(
            n["NodeID"],
            n["Resources"].get("CPU", 0.0),
            n["Resources"].get("GPU", 0.0),
            n["Resources"].get("memory", 0.0),
        )
        for n in ray.nodes()
        if n["Alive"]
    ]


def group_nodes(group: PlacementGroup) -> list[Node]:
    """The part of each live node that a placement group has reserved; memory is shared out by CPU cores."""
    nodes = {node.name: node for node in cluster_nodes()}
    held: dict[str, Node] = {}
    for index, name in placement_group_table(group)["bundles_to_node_id"].items():
        if name in nodes:  # a bundle of a lost node is being placed anew
            bundle, node = group.bundle_specs[index], nodes[name]
            had = held.get(name, Node(name, 0.0, 0.0, 0.0))
            cpus = bundle.get("CPU", 0.0)
            memory = node.memory * cpus / max(node.cpus, 1.0)
            held[name] = Node(name, had.cpus + cpus, had.gpus + bundle.get("GPU", 0.0), had.memory + memory)
    return list(held.values())


def _split(items: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    size = -(-len(items) // parts) if parts else 0
    return [tuple(items[at : at + size]) for at in range(0, len(items), size)] if size else []
