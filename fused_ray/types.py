"""Frozen records of everything that crosses an actor boundary or reaches the results.

They hold NumPy arrays and plain values only: NumPy travels through Ray's object store without a copy.
Shapes: n training examples, m test examples, P a model's float parameters and buffers, V an adapter's values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fused_ray.seeding import permutation

FloatVector = NDArray[np.float32]
IntVector = NDArray[np.int64]
Spans = tuple[tuple[int, int], ...]
"""Places in a vector: from, and up to."""


@dataclass(frozen=True)
class Remaining:
    """A share of what stays of each client's examples (D_r), at least one; the others are left out."""

    share: float
    seed: int
    """They are drawn from it, each client's by itself; a smaller share is part of a larger one."""
    herding: bool = False
    """Whether as many are chosen by M_r's features instead (core.herding)."""
    forgotten: bool = False
    """Whether all that must go (D_u) is there as well."""

    def count(self, examples: int) -> int:
        """How many of so many examples: the nearest whole number, at least 1."""
        return min(examples, max(1, math.floor(self.share * examples + 0.5)))


On = Literal["held", "retained", "forgotten"] | Remaining
"""Of a client's examples: all that it holds (D), what stays of it (D_r), what must go (D_u), or a share of D_r."""


@dataclass(frozen=True, eq=False)
class Parts(Sequence[IntVector]):
    """Per client some of the training examples, as one vector for all clients and where each client's part lies in it.

    As a sequence it has a client's indices by the client's number. A million clients are two arrays, not a million.
    """

    indices: IntVector
    """int64 [n], one client's after the other's."""
    offsets: IntVector
    """int64 [clients + 1]: client c has `indices[offsets[c] : offsets[c + 1]]`."""

    @classmethod
    def of(cls, parts: Sequence[IntVector]) -> Parts:
        """The same as `parts`, which may be a vector a client."""
        if isinstance(parts, Parts):
            return parts
        vectors = [np.asarray(part, np.int64) for part in parts]
        return cls(np.concatenate([np.zeros(0, np.int64), *vectors]), _offsets([len(part) for part in vectors]))

    @classmethod
    def owned(cls, owner: IntVector, clients: int) -> Parts:
        """All examples, of which each is a client's by `owner` [n]; indices ascend."""
        return cls(np.argsort(owner, kind="stable"), _offsets(np.bincount(owner, minlength=clients)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[IntVector]:
        start = 0
        for end in self.offsets[1:].tolist():
            yield self.indices[start:end]
            start = end

    @overload
    def __getitem__(self, client: int) -> IntVector: ...
    @overload
    def __getitem__(self, client: slice) -> Sequence[IntVector]: ...
    def __getitem__(self, client: int | slice) -> IntVector | Sequence[IntVector]:
        if isinstance(client, slice):
            return [self[one] for one in range(len(self))[client]]
        if client < 0:
            client += len(self)
        if not 0 <= client < len(self):
            raise IndexError(f"there is no client {client}")
        return self.indices[self.offsets[client] : self.offsets[client + 1]]

    @property
    def sizes(self) -> IntVector:
        """Examples of each client [clients]."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> IntVector:
        """The client of each of `indices` [n]."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def where(self, chosen: NDArray[np.bool_]) -> Parts:
        """Those of `indices` that are chosen [n]."""
        return Parts(self.indices[chosen], _offsets(chosen)[self.offsets])

    def without(self, others: Parts) -> Parts:
        """Each client's examples but for those that it has in `others`."""
        span = 1 + max(self.indices.max(initial=0), others.indices.max(initial=0))
        own, other = (parts.owners * span + parts.indices for parts in (self, others))
        other.sort(kind="stable")  # as a rule it is sorted, which this kind is quick to see
        at = np.searchsorted(other, own)
        return self.where(np.append(other, -1)[at] != own)

    def drawn(self, some: Remaining) -> Parts:
        """A share of each client's examples, from the seed."""
        chosen = np.zeros(len(self.indices), bool)
        for client in np.flatnonzero(self.sizes).tolist():
            start, end = self.offsets[client : client + 2]
            order = permutation(int(end - start), some.seed, "retain", client=client)
            chosen[start + order[: some.count(len(order))]] = True
        return self.where(chosen)

    def take(self, clients: Sequence[int] | IntVector) -> Parts:
        """The parts of some clients, in that order."""
        chosen = np.asarray(clients, np.int64)
        sizes = self.sizes[chosen]
        offsets = _offsets(sizes)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return Parts(self.indices[np.repeat(self.offsets[chosen], sizes) + within], offsets)

    def counts(self, labels: IntVector, classes: int) -> IntVector:
        """Each client's examples of each class [clients, classes], by the labels of all training examples."""
        cells = self.owners * classes + labels[self.indices]
        return np.bincount(cells, minlength=len(self) * classes).reshape(len(self), classes)


def _offsets(sizes: Any) -> IntVector:
    """Where parts of these sizes begin and end [parts + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


@dataclass(frozen=True)
class Loaded:
    """What the loader of a data set returns. Inputs are float32 [n, ...], or images uint8 [n, channels, height, width];
    those of training and test are of one shape."""

    train_inputs: NDArray[Any]
    train_labels: NDArray[Any]
    """Whole numbers [n], classes from 0."""
    test_inputs: NDArray[Any]
    test_labels: NDArray[Any]
    class_names: tuple[str, ...] = ()
    """What the classes are called; none where that is their number."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What else is known of each training example, such as whose it is, by name [n]; for partitions and scenarios."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was read."""


@dataclass(frozen=True)
class ImageData:
    """A data set in memory: inputs float32 [n, ...] or images uint8 [n, channels, height, width], int64 labels [n]."""

    name: str
    classes: int
    mean: tuple[float, ...]
    """Per channel, what images are normalised by, of pixel values divided by 255. Constants (of the known set, or as
    configured) and never those of the images themselves: D_u is among these, and would change the retrained model."""
    std: tuple[float, ...]
    train_images: NDArray[Any]
    train_labels: IntVector
    test_images: NDArray[Any]
    test_labels: IntVector
    class_names: tuple[str, ...] = ()
    train_rows: IntVector | None = None
    """Where the training examples stand in the whole training set, ascending int64 [n]; None: they are the whole."""
    train_total: int | None = None
    """Examples of the whole training set, before `data.limit`."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was read."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What else is known of each training example, by name [n]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input; of an image: channels, height, width."""
        return self.train_images.shape[1:]

    @cached_property
    def sha256(self) -> str:
        """Hash over all inputs and labels, training and test."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class TestView:
    """A part of the test set and the labels that count as right on it; a metric is the accuracy there."""

    indices: IntVector
    labels: IntVector


@dataclass(frozen=True)
class Forgotten:
    """What a scenario says must be forgotten."""

    retained: Sequence[IntVector]
    """Per client, those of its examples that stay (D_r)."""
    views: dict[str, TestView] = field(default_factory=dict)
    """Test views by metric name: `ra` on what stays (unsaid: the test set), `fa` on what is forgotten (unsaid: the
    forgotten examples themselves), `ca` on the overlap (exclusive)."""
    train_labels: IntVector | None = None
    """The labels [n] that clients train on; None: the data set's."""
    classes: tuple[int, ...] = ()
    """The classes that are forgotten altogether, if any."""
    poisoned: IntVector | None = None
    """The training examples whose label or image was changed; None: those whose label was."""
    trigger: int = 0
    """Side of the white square that the poisoned images carry, pixels; 0: none."""


@dataclass(frozen=True)
class Scenario:
    """Who holds what, and what of it must be forgotten.

    `train_labels` [n] are the labels that clients train on: the data set's, unless a scenario poisons them.
    """

    held: Parts
    """Per client, ascending indices of the training examples it holds (D)."""
    retained: Parts
    """Per client, those of them that stay (D_r)."""
    train_labels: IntVector
    views: dict[str, TestView]
    """Test views by metric name: `ra` on what stays, `fa` on what is forgotten, `ca` on the overlap (exclusive)."""
    partition_sha256: str
    """Hash over `held`, for the report."""
    poisoned: IntVector = field(default_factory=lambda: np.zeros(0, np.int64))
    """Ground truth: ascending indices of the training examples whose label or image was changed."""
    trigger: int = 0
    """Side of the white square that the poisoned images carry, pixels; 0: none."""
    classes: tuple[int, ...] = ()
    """The classes that are forgotten altogether, if any."""
    shown: IntVector = field(default_factory=lambda: np.zeros(0, np.int64))
    """The forgotten training examples that stand behind the test set for `fa` to be measured on, if any."""
    client_names: tuple[str, ...] = ()
    """What the clients are called in their owner's partition; none where that is their number."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was made."""

    def __post_init__(self) -> None:
        for name in ("held", "retained"):  # which may be given as a vector a client
            object.__setattr__(self, name, Parts.of(getattr(self, name)))

    @cached_property
    def gone(self) -> Parts:
        """Per client, those of its examples that must be forgotten (D_u)."""
        return self.held.without(self.retained)

    @cached_property
    def _shares(self) -> dict[Remaining, Parts]:
        """Shares of D_r that were asked for."""
        return {}

    def forgotten(self, client: int) -> IntVector:
        """The client's examples that must be forgotten (D_u), ascending indices."""
        return self.gone[client]

    def parts(self, on: On) -> Parts:
        """Every client's examples of one kind."""
        if isinstance(on, Remaining):
            if on not in self._shares:
                few = self.retained.drawn(on)
                self._shares[on] = self.held.without(self.retained.without(few)) if on.forgotten else few
            return self._shares[on]
        if on == "forgotten":
            return self.gone
        return self.held if on == "held" else self.retained

    def examples(self, on: On, client: int) -> IntVector:
        """A client's examples of one kind, ascending indices."""
        return self.parts(on)[client]

    def real(self, tests: int) -> int:
        """How many of the examples that are evaluated are the test set's own; they come first."""
        return tests // 2 if self.trigger else tests - len(self.shown)

    def clients(self, on: On) -> list[int]:
        """The clients that have examples of one kind."""
        clients: list[int] = np.flatnonzero(self.parts(on).sizes).tolist()
        return clients


@dataclass(frozen=True)
class Payload:
    """What is exchanged in a round: float32 values, and int64 buffers (BatchNorm's counters) if there are any."""

    values: FloatVector
    counters: IntVector = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class ClientReport:
    """One client's figures of one round. Times are wall seconds, sizes protocol bytes."""

    client: int
    examples: int
    train_seconds: float
    aggregate_seconds: float
    """Time that checking and adding its update took."""
    loss: float
    """Mean training loss over the round's steps."""
    update_norm: float
    """L2 norm of what training changed, buffers aside; of what was sent where that is of another kind."""
    values_changed: int
    """Number of values that training changed, or that were sent and are not zero where they are of another kind;
    buffers aside, and by no less than the exact sum can tell."""
    figures: tuple[float, ...] = ()
    """Further figures of the work; in ranking, per layer the L1 norms of its change and of its weights."""
    started_at: float = 0.0
    """When it began, seconds since 1970 by its worker's clock."""
    node: str = "local"
    """Where it was computed, as the worker's `Identity` says."""
    device: str = "cpu"
    attempt: int = 1
    """Which attempt it was that gave this; the earlier ones died with their actor."""
    worker: int = 0
    """Number of the process that computed it, on its node."""
    memory: int = 0
    """Bytes of that process that were in RAM when it was done; 0 where the system does not tell."""


@dataclass(frozen=True)
class PartialSum:
    """The exact weighted sum over some clients: int64 fixed point [P or V], and who is in it."""

    total: IntVector
    counters: IntVector
    weight: int
    """Sum of the clients' examples."""
    reports: tuple[ClientReport, ...]
    updates: dict[int, FloatVector] = field(default_factory=dict)
    """Single clients' updates, for methods that ask for them."""
    states: dict[int, FloatVector] = field(default_factory=dict)
    """What clients keep for their next round, if anything; the driver stores it for them."""
    high: IntVector = field(default_factory=lambda: np.zeros(0, np.int64))
    """The same sum of what exceeds the fixed point's range (core.aggregate) [P]; empty where nothing does."""
    low: IntVector = field(default_factory=lambda: np.zeros(0, np.int64))
    """The lower limb of the sum where it has two (core.aggregate) [P or V]; else empty."""
    fixed: Spans = ()
    """Of a model: where the values lie that no optimiser moves."""
    changed: IntVector = field(default_factory=lambda: np.zeros(0, np.int64))
    """Which of these some client changed all the same, ascending positions; only they are averaged."""


@dataclass(frozen=True)
class Identity:
    """What an actor says of itself when it has started."""

    node: str
    pid: int
    fingerprint: str
    """SHA-256 of a fixed training step: equal fingerprints promise equal bits."""
    torch: str
    device: str
    cpus: float = 0.0
    """CPU cores that it reserves on Ray."""
    gpus: float = 0.0
    """GPUs, or the fraction of one."""
    machine: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The machine that it is on, as environment.json has it; nothing where that is the driver's."""
