"""Which client holds which training examples.

The contract, checked on every partition: disjoint, complete, nobody below the minimum, indices ascending.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fused_ray.config import DataConfig
from fused_ray.data.partition_file import owners
from fused_ray.errors import DataError
from fused_ray.seeding import generator, permutation
from fused_ray.types import ImageData, IntVector

_ATTEMPTS = 100
_ADVICE = "raise data.alpha or data.classes_per_client, or lower federation.clients or data.min_examples"


def partition(config: DataConfig, clients: int, labels: IntVector, seed: int) -> tuple[IntVector, ...]:
    """Per client, ascending int64 indices into `labels` [n], under the contract.

    Raises DataError if it cannot be met.
    """
    if clients * config.min_examples > len(labels):
        raise DataError(
            f"{clients} clients of at least {config.min_examples} examples (data.min_examples) need more than the "
            f"{len(labels)} there are; lower federation.clients or data.min_examples"
        )
    if config.partition == "iid":
        parts = list(np.array_split(permutation(len(labels), seed, "partition"), clients))
    elif config.partition == "pathological":
        parts = _pathological(labels, clients, config.classes_per_client, seed)
    else:
        parts = _dirichlet(labels, clients, config.alpha, config.min_examples, seed)
    ordered = tuple(np.sort(part) for part in parts)
    check(ordered, len(labels), config.min_examples)
    return ordered


def from_file(config: DataConfig, clients: int, data: ImageData) -> tuple[IntVector, ...]:
    """Per client, ascending int64 indices into the training set, as `data.partition_file` says, under the contract.

    Raises DataError naming the file and the row.
    """
    assert config.partition_file is not None, "a partition from a file without a file is no valid configuration"
    rows = np.arange(len(data.train_labels)) if data.train_rows is None else data.train_rows
    owner = owners(config.partition_file, clients, data.train_total or len(rows))[rows]
    parts = tuple(np.flatnonzero(owner == client) for client in range(clients))
    check(parts, len(rows), config.min_examples, f"lower data.min_examples, or change {config.partition_file}")
    return parts


def check(parts: Sequence[IntVector], examples: int, min_examples: int, advice: str = _ADVICE) -> None:
    """Raise DataError unless the parts are disjoint, complete, ascending and each at least of the minimum size."""
    everything = np.concatenate(list(parts))
    if len(everything) != examples or not np.array_equal(np.sort(everything), np.arange(examples)):
        raise DataError(f"the partition does not hold each of the {examples} examples exactly once")
    if any(len(part) > 1 and not (np.diff(part) > 0).all() for part in parts):
        raise DataError("a client's examples are not in ascending order")
    smallest = min(range(len(parts)), key=lambda client: len(parts[client]))
    if len(parts[smallest]) < min_examples:
        raise DataError(
            f"client {smallest} would hold {len(parts[smallest])} examples, fewer than data.min_examples = "
            f"{min_examples}; {advice}"
        )


def digest(parts: Sequence[IntVector]) -> str:
    """SHA-256 over who holds what."""
    result = hashlib.sha256()
    for part in parts:
        result.update(f"{len(part)}\n".encode())
        result.update(part.astype("<i8").tobytes())
    return result.hexdigest()


def _dirichlet(labels: IntVector, clients: int, alpha: float, min_examples: int, seed: int) -> list[IntVector]:
    """Each class is split over the clients by shares from Dirichlet(alpha); drawn anew while a client is short.

    When every draw leaves somebody short (many clients, small alpha), the last draw's largest clients give theirs.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        rng = generator(seed, "partition", attempt)
        pieces: list[list[IntVector]] = [[] for _ in range(clients)]
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            members = members[permutation(len(members), seed, f"partition/{label}", attempt)]
            cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha))) * len(members)).round().astype(np.int64)
            for client, piece in enumerate(np.split(members, cuts[:-1])):
                pieces[client].append(piece)
        parts = [np.concatenate(piece) for piece in pieces]
        if min(len(part) for part in parts) >= min_examples:
            return parts
    while (short := min(range(clients), key=lambda c: len(parts[c]))) is not None:
        missing = min_examples - len(parts[short])
        if missing <= 0:
            break
        giver = max(range(clients), key=lambda c: len(parts[c]))
        moved = min(missing, len(parts[giver]) - min_examples)
        order = permutation(len(parts[giver]), seed, "partition/move", client=giver)
        parts[short] = np.concatenate([parts[short], parts[giver][order[:moved]]])
        parts[giver] = parts[giver][order[moved:]]
    return parts


def _pathological(labels: IntVector, clients: int, per_client: int, seed: int) -> list[IntVector]:
    """Each client holds `per_client` classes; a class is shared evenly by the clients that hold it."""
    present = np.unique(labels)
    if per_client > len(present):
        raise DataError(f"data.classes_per_client is {per_client}, but the data has {len(present)} classes")
    if clients * per_client < len(present):
        raise DataError(
            f"{clients} clients of {per_client} classes leave some of the {len(present)} classes to nobody; raise "
            "data.classes_per_client or federation.clients"
        )
    # classes are dealt from shuffled decks, so that all are held about equally often, in mixes that differ
    holders: dict[int, list[int]] = {int(label): [] for label in present}
    deck: list[int] = []
    decks = 0
    for client in range(clients):
        hand: set[int] = set()
        while len(hand) < per_client:
            if not set(deck) - hand:
                decks += 1
                deck += [int(present[i]) for i in permutation(len(present), seed, "partition/classes", decks)]
            card = next(label for label in deck if label not in hand)
            deck.remove(card)
            hand.add(card)
            holders[card].append(client)
    pieces: list[list[IntVector]] = [[] for _ in range(clients)]
    for label, clients_of_label in holders.items():
        members = np.flatnonzero(labels == label)
        members = members[permutation(len(members), seed, f"partition/{label}")]
        for client, piece in zip(clients_of_label, np.array_split(members, len(clients_of_label)), strict=True):
            pieces[client].append(piece)
    return [np.concatenate(piece) for piece in pieces]
