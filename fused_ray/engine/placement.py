"""How many actors there are, what each reserves, and which clients it holds: pure arithmetic, decided before any start.

A run that cannot be placed is refused at once with the arithmetic in the message, instead of pending for ever.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fused_ray.config import FederationConfig
from fused_ray.errors import PlacementError

ACTOR_BYTES = 300e6
"""Memory that an actor is planned with, bytes: about 200 MB after importing PyTorch, and its clients' work."""
_FRACTION = 1e4
"""Ray grants fractions of a resource in steps of 1e-4."""


@dataclass(frozen=True)
class Node:
    """What a node offers in all: CPU cores, GPUs, bytes of memory."""

    name: str
    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Plan:
    """Actors, all alike, and the clients of each."""

    clients: tuple[tuple[int, ...], ...]
    cpus: float
    """CPU cores that an actor reserves."""
    gpus: float
    """GPUs, or the fraction of one, that an actor reserves."""

    def like(self, other: Plan) -> bool:
        """Whether the same actors do for both."""
        return (len(self.clients), self.cpus, self.gpus) == (len(other.clients), other.cpus, other.gpus)


def plan(federation: FederationConfig, examples: Sequence[int], nodes: Sequence[Node]) -> Plan:
    """Spread clients with these many examples over actors that fit on the nodes. Raises PlacementError."""
    clients = len(examples)
    cpus, gpus = federation.actor_cpus, federation.actor_gpus
    with_gpu = sum(n.gpus for n in nodes) >= 1 if gpus == "auto" else gpus > 0
    if with_gpu:  # an actor with a GPU cannot use another node's cores
        nodes = [node for node in nodes if node.gpus > 0] or nodes
    cores, cards = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    if federation.clients_per_actor == "auto":
        if gpus != "auto" and gpus > 0:
            slots = _slots(nodes, cpus if cpus != "auto" else 0.0, gpus)
        elif with_gpu:
            slots = int(cards)
        else:
            slots = sum(int(node.cpus / (cpus if cpus != "auto" else 1.0) + 1e-9) for node in nodes)
        actors = max(1, min(clients, slots, sum(int(node.memory / ACTOR_BYTES) for node in nodes)))
    else:
        actors = math.ceil(clients / federation.clients_per_actor)
    gpu_share = (_share(actors, [int(n.gpus) for n in nodes]) if with_gpu else 0.0) if gpus == "auto" else gpus
    cpu_share = _share(actors, [int(n.cpus) for n in nodes]) if cpus == "auto" else cpus
    fits = _slots(nodes, cpu_share, gpu_share)
    if fits < actors:
        raise PlacementError(
            f"{clients} clients in {actors} actors need {actors} x ({cpu_share:g} CPU + {gpu_share:g} GPU), but the "
            f"{len(nodes)} node(s) with {cores:g} CPU and {cards:g} GPU hold {fits} such actors; raise "
            "federation.clients_per_actor or lower federation.actor_cpus or federation.actor_gpus"
        )
    memory = sum(int(node.memory / ACTOR_BYTES) for node in nodes)
    if memory < actors:
        raise PlacementError(
            f"{actors} actors of {ACTOR_BYTES / 1e6:g} MB need {actors * ACTOR_BYTES / 1e9:.1f} GB, but the nodes' "
            f"memory ({sum(n.memory for n in nodes) / 1e9:.1f} GB) holds {memory}; raise federation.clients_per_actor"
        )
    return Plan(_balance(examples, actors), cpu_share, gpu_share)


def shares(nodes: Sequence[Node], count: int, with_gpus: bool) -> list[list[Node]]:
    """The cluster in that many even shares of whole cores, or of whole GPUs with their even part of the cores.

    Raises PlacementError if there are fewer cores or GPUs.
    """
    units = [node for node in nodes for _ in range(int(node.gpus if with_gpus else node.cpus))]
    size = len(units) // count
    if size == 0:
        kind = "GPU" if with_gpus else "CPU"
        raise PlacementError(
            f"max_concurrent: {count} trials at a time need {count} whole {kind}s, but the {len(nodes)} node(s) have "
            f"{len(units)}; lower max_concurrent, or set it to auto"
        )
    found = []
    for number in range(count):
        here: dict[str, Node] = {}
        for node in units[number * size : (number + 1) * size]:
            parts = int(node.gpus if with_gpus else node.cpus)
            had = here.get(node.name, Node(node.name, 0.0, 0.0, 0.0))
            here[node.name] = Node(
                node.name,
                had.cpus + (node.cpus // parts if with_gpus else 1.0),
                had.gpus + (1.0 if with_gpus else 0.0),
                had.memory + node.memory / parts,
            )
        found.append(list(here.values()))
    return found


def _share(actors: int, units: Sequence[int]) -> float:
    """The largest share of a core or card, at most 1, with which this many actors fit on whole units of all nodes."""
    total = sum(units)
    if total == 0 or actors <= total:
        return 1.0
    per_unit = math.ceil(actors / total)
    return math.floor(_FRACTION / per_unit) / _FRACTION


def _slots(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """How many actors with these shares fit. A fraction never spans two cards; more than one card must be whole."""
    total = 0
    for node in nodes:
        by_cpu = math.inf if cpus == 0 else math.floor(node.cpus / cpus + 1e-6)
        if gpus == 0:
            by_gpu = math.inf
        elif gpus <= 1:
            by_gpu = int(node.gpus) * math.floor(1 / gpus + 1e-6)
        else:
            by_gpu = math.floor(node.gpus / gpus) if float(gpus).is_integer() else 0
        slots = min(by_cpu, by_gpu)
        total += int(slots) if slots != math.inf else 10**9
    return total


def _balance(examples: Sequence[int], actors: int) -> tuple[tuple[int, ...], ...]:
    """Clients to actors: the largest first, each to the actor with the fewest examples that still has room.

    An actor holds no more than its even share of the clients, rounded up.
    """
    room = math.ceil(len(examples) / actors)
    loads = [(0, actor) for actor in range(actors)]
    heapq.heapify(loads)
    held: list[list[int]] = [[] for _ in range(actors)]
    for client in sorted(range(len(examples)), key=lambda c: (-examples[c], c)):
        load, actor = heapq.heappop(loads)
        held[actor].append(client)
        if len(held[actor]) < room:
            heapq.heappush(loads, (load + examples[client], actor))
    return tuple(tuple(sorted(clients)) for clients in held if clients)
