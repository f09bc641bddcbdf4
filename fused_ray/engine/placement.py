"""How many actors there are, where each stands, what it reserves there, and which clients it holds: pure arithmetic,
decided before any start, node by node.

A run that cannot be placed is refused at once with the arithmetic in the message, instead of pending for ever.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fused_ray.config import FederationConfig
from fused_ray.config.labels import selects
from fused_ray.errors import PlacementError

ACTOR_BYTES = 300e6
"""Memory that an actor is planned with, bytes: about 200 MB after importing PyTorch, and its clients' work."""
_CARD = 16
"""CPU cores that are as good as a GPU, where a cluster has nodes of both kinds and the choice is left to it."""
_FRACTION = 1e4
"""Ray grants fractions of a resource in steps of 1e-4."""
_ANY = 10**9
"""As many as one likes."""


@dataclass(frozen=True)
class Node:
    """What a node offers: CPU cores, GPUs, bytes of memory."""

    name: str
    cpus: float
    gpus: float
    memory: float
    others_cpus: float = 0.0
    """CPU cores that others hold there beside those."""
    others_gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seat:
    """An actor's place: its node, and the CPU cores and GPUs, or the fraction of one, that it reserves there."""

    node: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Plan:
    """Actors: the clients of each, and its seat."""

    clients: tuple[tuple[int, ...], ...]
    seats: tuple[Seat, ...]
    cache: float
    """Bytes that each actor's cache may take for all to fit into the memory of their nodes."""
    room: Mapping[str, int]
    """How many actors of a node work at once."""

    @property
    def on_gpus(self) -> bool:
        """Whether clients are computed on GPUs."""
        return any(seat.gpus for seat in self.seats)


def plan(federation: FederationConfig, examples: Sequence[int], nodes: Sequence[Node]) -> Plan:
    """Spread clients with these many examples over actors that fit on the nodes. Raises PlacementError."""
    clients, nodes = len(examples), selected(federation, nodes)
    cpus = None if federation.actor_cpus == "auto" else federation.actor_cpus
    gpus = None if federation.actor_gpus == "auto" else federation.actor_gpus
    if gpus is None and not _prefers_gpus(clients, nodes):
        gpus = 0.0
    if gpus != 0:  # an actor with a GPU cannot use another node's cores
        nodes = [node for node in nodes if node.gpus + node.others_gpus > 0] or nodes
    natural = [_natural(node, cpus, gpus) for node in nodes]
    memory = [int(node.memory / ACTOR_BYTES) for node in nodes]
    if federation.clients_per_actor == "auto":
        actors = max(1, min(clients, sum(map(min, natural, memory))))
    else:
        actors = math.ceil(clients / federation.clients_per_actor)
    fits = [_most(node, cpus, gpus) for node in nodes]
    if sum(fits) < actors:
        raise _refusal(clients, actors, cpus, gpus, nodes, sum(fits))
    if sum(map(min, fits, memory)) < actors:
        raise PlacementError(
            f"{actors} actors of {ACTOR_BYTES / 1e6:g} MB need {actors * ACTOR_BYTES / 1e9:.1f} GB, but the nodes' "
            f"memory ({sum(n.memory for n in nodes) / 1e9:.1f} GB) holds {sum(map(min, fits, memory))}; raise "
            "federation.clients_per_actor"
        )
    counts = _counts(actors, natural, [min(pair) for pair in zip(fits, memory, strict=True)])
    seats = [
        Seat(node.name, *(_cpus(node, count) if cpus is None else cpus, _gpus(node, count) if gpus is None else gpus))
        for node, count in zip(nodes, counts, strict=True)
        for _ in range(count)
    ]
    used = [node.memory / count for node, count in zip(nodes, counts, strict=True) if count]
    held, at_once = _balance(examples, actors), {node.name: room(node, gpus != 0) for node in nodes}
    return Plan(held, tuple(seats[: len(held)]), min(used) - ACTOR_BYTES, at_once)


def wish(federation: FederationConfig) -> tuple[int, dict[str, float]]:
    """How many actors there are where there is room for all, and what each of them has of Ray's CPU and GPU there.

    GPUs are wished for only where `federation.actor_gpus` says how many.
    """
    packed = 1 if federation.clients_per_actor == "auto" else federation.clients_per_actor
    cpus = None if federation.actor_cpus == "auto" else federation.actor_cpus
    gpus = 0.0 if federation.actor_gpus == "auto" else federation.actor_gpus
    if cpus is None and not gpus:
        cpus = 1.0
    each = {"CPU": cpus} if cpus is not None else {}
    return math.ceil(federation.clients / packed), each | ({"GPU": gpus} if gpus else {})


def fitting(federation: FederationConfig, nodes: Sequence[Node]) -> int:
    """How many actors with what they wish for have room on these nodes."""
    _, each = wish(federation)
    there = [node for node in nodes if selects(federation.actor_labels, node.labels)]
    return sum(_most(node, each.get("CPU"), each.get("GPU", 0.0)) for node in there)


def selected(federation: FederationConfig, nodes: Sequence[Node]) -> list[Node]:
    """The nodes that `federation.actor_labels` allows. Raises PlacementError if there is none."""
    wanted = federation.actor_labels
    found = [node for node in nodes if selects(wanted, node.labels)]
    if wanted and not found:
        there = (f"{key} is {_listed({node.labels.get(key, 'unset') for node in nodes})}" for key in wanted)
        raise PlacementError(
            f"federation.actor_labels: none of {len(nodes)} node(s) has {told(wanted)}: {', '.join(there)}; change the "
            "labels, or start such a node (ray start --labels)"
        )
    return found


def told(labels: Mapping[str, str]) -> str:
    """Labels as KEY=VALUE."""
    return ", ".join(f"{key}={value}" for key, value in labels.items())


def _listed(values: Collection[str]) -> str:
    """A few values in order, and how many more there are."""
    first = sorted(values)[:4]
    return " or ".join(first) + (f" or {len(values) - 4} others" if len(values) > 4 else "")


def room(node: Node, on_gpus: bool) -> int:
    """How many actors of a node work at once: one a core; with GPUs as many as have a share of one."""
    return _ANY if on_gpus else max(1, int(node.cpus))


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
            had = here.get(node.name, replace(node, cpus=0.0, gpus=0.0, memory=0.0))
            here[node.name] = replace(
                node,
                cpus=had.cpus + (node.cpus // parts if with_gpus else 1.0),
                gpus=had.gpus + (1.0 if with_gpus else 0.0),
                memory=had.memory + node.memory / parts,
            )
        found.append(list(here.values()))
    return found


def _prefers_gpus(clients: int, nodes: Sequence[Node]) -> bool:
    """Whether GPUs are used where nobody says: if there is one, and the nodes without any are not worth more.

    What others hold counts as well: a run's bits must not depend on who else is there.
    """
    cards = sum(int(node.gpus + node.others_gpus) for node in nodes)
    cores = sum(int(node.cpus + node.others_cpus) for node in nodes if node.gpus + node.others_gpus == 0)
    return cards >= 1 and min(clients, cores) <= _CARD * cards


def _natural(node: Node, cpus: float | None, gpus: float | None) -> int:
    """Actors that a node has a core, a card or a wanted fraction of these for, each."""
    return _most(node, 1.0 if cpus is None and gpus == 0 else cpus, 1.0 if gpus is None else gpus)


def _most(node: Node, cpus: float | None, gpus: float | None) -> int:
    """How many actors fit on a node. A fraction never spans two cards; more than one card must be whole."""
    cards = int(node.gpus + 1e-6)
    if cpus is not None:
        by_cpu = math.floor(node.cpus / cpus + 1e-6)
    elif gpus == 0:
        by_cpu = _ANY if node.cpus > 0 else 0
    else:  # with a GPU to compute on, any share of a core will do
        by_cpu = _ANY
    if gpus is None:
        by_gpu = _ANY if cards else 0
    elif gpus == 0:
        by_gpu = _ANY
    elif gpus <= 1:
        by_gpu = cards * math.floor(1 / gpus + 1e-6)
    else:
        by_gpu = math.floor(cards / gpus) if float(gpus).is_integer() else 0
    return min(by_cpu, by_gpu)


def _counts(actors: int, sizes: Sequence[int], most: Sequence[int]) -> list[int]:
    """Actors by node: as even as the nodes' sizes, and no more on one than fit there."""
    found = [0] * len(sizes)
    heap = [(1 / max(size, 0.5), at) for at, size in enumerate(sizes) if most[at]]
    heapq.heapify(heap)
    for _ in range(actors):
        _, at = heapq.heappop(heap)
        found[at] += 1
        if found[at] < most[at]:
            heapq.heappush(heap, ((found[at] + 1) / max(sizes[at], 0.5), at))
    return found


def _cpus(node: Node, count: int) -> float:
    """The share of a core, at most one, with which this many actors fit on a node; none where it offers none."""
    return math.floor(min(1.0, node.cpus / count) * _FRACTION + 1e-6) / _FRACTION


def _gpus(node: Node, count: int) -> float:
    """The share of a card, at most one, with which this many actors fit on a node's cards."""
    return math.floor(_FRACTION / math.ceil(count / int(node.gpus + 1e-6))) / _FRACTION


def _refusal(
    clients: int, actors: int, cpus: float | None, gpus: float | None, nodes: Sequence[Node], fits: int
) -> PlacementError:
    """That so many actors do not fit, with the arithmetic."""
    cores, cards = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    cpus = min(1.0, cores / actors) or 1.0 if cpus is None else cpus
    gpus = min(1.0, cards / actors) or 1.0 if gpus is None else gpus
    others = (sum(n.others_cpus for n in nodes), sum(n.others_gpus for n in nodes))
    beside = f" (others hold {others[0]:g} CPU and {others[1]:g} GPU)" if any(others) else ""
    return PlacementError(
        f"{clients} clients in {actors} actors need {actors} x ({cpus:g} CPU + {gpus:g} GPU), but the "
        f"{len(nodes)} node(s) with {cores:g} CPU and {cards:g} GPU{beside} hold {fits} such actors; raise "
        "federation.clients_per_actor or lower federation.actor_cpus or federation.actor_gpus"
    )


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
