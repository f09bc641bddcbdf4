"""Which client holds which training examples.

The contract, checked on every partition: disjoint, complete, nobody below the minimum, indices ascending.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray.config import DataConfig
from fused_ray.config.parts.door import function
from fused_ray.config.parts.partitions import Partitioning
from fused_ray.data.partition_file import owners
from fused_ray.errors import DataError
from fused_ray.seeding import generator, permutation
from fused_ray.types import ImageData, IntVector, Parts

_ATTEMPTS = 100
_LARGE = 1_000_000
"""Numbers in a draw of shares from which on several draws are made at once."""
_THREADS = 8
"""Draws at once at most; one of a million clients and ten classes takes 80 MB."""
_ADVICE = "raise data.alpha or data.classes_per_client, or lower federation.clients or data.min_examples"


@dataclass(frozen=True)
class Partition:
    """Who holds what."""

    parts: Parts
    """Per client, ascending int64 indices into the training examples."""
    names: tuple[str, ...] = ()
    """What the clients are called; none where that is their number."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was made."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", Parts.of(self.parts))  # which may be given as a vector a client


def partition(
    config: DataConfig, clients: int, labels: IntVector, seed: int, columns: Mapping[str, NDArray[Any]] | None = None
) -> Partition:
    """Examples with these labels [n] over clients, under the contract. Raises DataError if it cannot be met.

    `columns` are what else is known of each example, by name [n], for a partition that another package brings.
    """
    if clients * config.min_examples > len(labels):
        raise DataError(
            f"{clients} clients of at least {config.min_examples} examples (data.min_examples) need more than the "
            f"{len(labels)} there are; lower federation.clients or data.min_examples"
        )
    if config.partitioning is not None:
        return _brought(config, config.partitioning, clients, labels, seed, columns or {})
    notes: tuple[str, ...] = ()
    if config.partition == "iid":
        owner = np.empty(len(labels), np.int64)
        owner[permutation(len(labels), seed, "partition")] = np.repeat(np.arange(clients), _even(len(labels), clients))
    elif config.partition == "pathological":
        owner = _pathological(labels, clients, config.classes_per_client, seed)
    else:
        owner, notes = _dirichlet(labels, clients, config.alpha, config.min_examples, seed)
    parts = Parts.owned(owner, clients)
    check(parts, len(labels), config.min_examples)
    return Partition(parts, notes=notes)


def from_file(config: DataConfig, clients: int, data: ImageData) -> Partition:
    """The training set over clients as a file or a column of the data says, under the contract.

    Raises DataError naming the file and the row.
    """
    rows = np.arange(len(data.train_labels)) if data.train_rows is None else data.train_rows
    client, names = owners(config, clients, data.train_total or len(rows))
    parts = Parts.owned(client[rows], clients)
    advice = f"lower data.min_examples, or change {config.partition_file or config.root}"
    check(parts, len(rows), config.min_examples, advice, names)
    return Partition(parts, names)


def check(
    parts: Sequence[IntVector], examples: int, min_examples: int, advice: str = _ADVICE, names: Sequence[str] = ()
) -> None:
    """Raise DataError unless the parts are disjoint, complete, ascending and each at least of the minimum size."""
    parts = Parts.of(parts)
    if len(parts.indices) != examples or not np.array_equal(np.sort(parts.indices), np.arange(examples)):
        raise DataError(f"the partition does not hold each of the {examples} examples exactly once")
    if not _ascending(parts):
        raise DataError("a client's examples are not in ascending order")
    sizes = parts.sizes
    smallest = int(sizes.argmin())
    if sizes[smallest] < min_examples:
        name = names[smallest] if names else smallest
        raise DataError(
            f"client {name} would hold {sizes[smallest]} examples, fewer than data.min_examples = {min_examples}; "
            f"{advice}"
        )


def _ascending(parts: Parts) -> bool:
    """Whether each client's indices ascend."""
    begins = np.zeros(len(parts.indices) + 1, bool)
    begins[parts.offsets] = True
    return bool((begins[1:-1] | (np.diff(parts.indices) > 0)).all())


def _brought(
    config: DataConfig,
    part: Partitioning,
    clients: int,
    labels: IntVector,
    seed: int,
    columns: Mapping[str, NDArray[Any]],
) -> Partition:
    """As another package says. Raises DataError naming the part where it breaks the contract."""
    where = f"data.partition: {config.partition}"
    settings = dict(config.partition_settings or ())
    try:
        given = [np.asarray(own) for own in function(part.split)(labels.copy(), clients, seed, columns, **settings)]
    except DataError:
        raise
    except Exception as error:  # whatever the function does
        raise DataError(f"{where} fails: {type(error).__name__}: {error}") from error
    if len(given) != clients:
        raise DataError(f"{where} gives the examples of {len(given)} clients, not of {clients} (federation.clients)")
    for client, own in enumerate(given):
        if own.ndim != 1 or (own.size and own.dtype.kind not in "iu"):
            raise DataError(f"{where} gives client {client} {own.dtype} {list(own.shape)}, not a vector of indices")
    parts = Parts.of([np.sort(own) for own in given])
    try:
        check(parts, len(labels), config.min_examples, "change data.partition_args, or lower data.min_examples")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return Partition(parts)


def digest(parts: Sequence[IntVector]) -> str:
    """SHA-256 over who holds what."""
    result = hashlib.sha256()
    whole = Parts.of(parts)
    for part in Parts(whole.indices.astype("<i8"), whole.offsets):
        result.update(b"%d\n" % len(part))
        result.update(part.data)
    return result.hexdigest()


def _even(examples: int, parts: int) -> IntVector:
    """The sizes of parts that share examples out evenly; the first ones have one more [parts]."""
    return examples // parts + (np.arange(parts) < examples % parts)


def _dirichlet(
    labels: IntVector, clients: int, alpha: float, min_examples: int, seed: int
) -> tuple[IntVector, tuple[str, ...]]:
    """Each class is split over the clients by shares from Dirichlet(alpha); drawn anew while a client is short.

    When every draw leaves somebody short (many clients, small alpha), the last draw's largest clients give theirs, and
    a note says so. Returns each example's client [n].
    """
    classes = [(label, np.flatnonzero(labels == label)) for label in np.unique(labels)]
    attempt, counts = _counts(clients, alpha, [len(members) for _, members in classes], min_examples, seed)
    shuffled = [members[permutation(len(members), seed, f"partition/{label}", attempt)] for label, members in classes]
    examples = np.concatenate(shuffled)
    owner = np.empty(len(labels), np.int64)
    owner[examples] = np.concatenate([np.repeat(np.arange(clients), of_class) for of_class in counts])
    moved = _top_up(owner, examples, clients, min_examples, seed)
    note = (
        f"no draw of {_ATTEMPTS} from Dirichlet({alpha:g}) left each of {clients} clients {min_examples} examples "
        f"(data.min_examples): {moved} of {len(labels)} examples were moved from large clients to small ones"
    )
    return owner, (note,) if moved else ()


def _counts(
    clients: int, alpha: float, of_class: Sequence[int], min_examples: int, seed: int
) -> tuple[int, NDArray[np.int64]]:
    """The first draw that leaves nobody short, or the last: its number, and how many of a class each client gets.

    A draw is [classes, clients]. Each has a stream of its own, so several large ones are made at once.
    """

    def drawn(attempt: int) -> tuple[int, NDArray[np.int64]]:
        rng = generator(seed, "partition", attempt)
        return attempt, np.stack([_shares(rng, clients, alpha, examples) for examples in of_class])

    together = min(_THREADS, os.cpu_count() or 1) if clients * len(of_class) > _LARGE else 1
    with ThreadPoolExecutor(together) as threads:
        for first in range(1, _ATTEMPTS + 1, together):
            last = [*threads.map(drawn, range(first, min(first + together, _ATTEMPTS + 1)))]
            for attempt, counts in last:
                if counts.sum(axis=0).min() >= min_examples:
                    return attempt, counts
    return last[-1]


def _shares(rng: np.random.Generator, clients: int, alpha: float, examples: int) -> IntVector:
    """A class's examples per client, int64 [clients]."""
    cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha))) * examples).round().astype(np.int64)
    return np.diff(cuts[:-1], prepend=0, append=examples)


def _top_up(owner: IntVector, examples: IntVector, clients: int, min_examples: int, seed: int) -> int:
    """The largest clients give to those that are short, in `owner` [n]; how many examples were moved.

    Of clients of one size the first is first. A client's own examples are in the order of `examples`, a permutation.
    """
    sizes, total = np.bincount(owner, minlength=clients).tolist(), 0
    if min(sizes) >= min_examples:
        return 0
    grouped = np.split(examples[np.argsort(owner[examples], kind="stable")], np.cumsum(sizes)[:-1])
    # an entry whose size is no longer its client's is passed over
    smallest = [(size, client) for client, size in enumerate(sizes)]
    largest = [(-size, client) for client, size in enumerate(sizes)]
    heapq.heapify(smallest)
    heapq.heapify(largest)
    while smallest[0][0] < min_examples:
        size, short = smallest[0]
        room, giver = -largest[0][0] - min_examples, largest[0][1]
        if size != sizes[short]:
            heapq.heappop(smallest)
        elif room + min_examples != sizes[giver]:
            heapq.heappop(largest)
        else:
            moved = min(min_examples - size, room)
            given = grouped[giver][permutation(sizes[giver], seed, "partition/move", client=giver)]
            grouped[short], grouped[giver] = np.concatenate([grouped[short], given[:moved]]), given[moved:]
            owner[given[:moved]] = short
            for client, change in ((short, moved), (giver, -moved)):
                sizes[client] += change
                heapq.heappush(smallest, (sizes[client], client))
                heapq.heappush(largest, (-sizes[client], client))
            total += moved
    return total


def _pathological(labels: IntVector, clients: int, per_client: int, seed: int) -> IntVector:
    """Each client holds `per_client` classes; a class is shared evenly by the clients that hold it.

    Returns each example's client [n].
    """
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
    owner = np.empty(len(labels), np.int64)
    for label, clients_of_label in holders.items():
        members = np.flatnonzero(labels == label)
        members = members[permutation(len(members), seed, f"partition/{label}")]
        owner[members] = np.repeat(clients_of_label, _even(len(members), len(clients_of_label)))
    return owner
