"""FedUP: a bottleneck before the output layer, trained by the server on a few feature vectors (arXiv 2606.24113).

1. Each client sends once, of each class that it holds, k-means centroids of M_r's features: ceil(s n) of n examples, s
   by the scenario .8 (client), .1 (class), .5 (sample).
2. The server trains a bottleneck a, d to 32 and back, two maps without bias with a ReLU behind each, on the centroids z
   with their labels y: 1/2 CE(h(a(z)), y) + 1/2 mean (a(z) - z)^2, by SGD. Base and head h stay as they are.
   Of a class to be forgotten each client's centroids get another label, drawn for each client and class.

M_f is M_r with the bottleneck open. Closing it gives M_r back, bit for bit. The model must have the place for it
(models.bottleneck). In `client` and `exclusive` whoever is forgotten is left out, nothing else.

The paper erases the trigger in `sample` and takes the right labels, which asks for what the poisoned examples were
before: here all clients take part with what stays (ours). How the maps and the centroids begin was not found: the maps
as PyTorch begins them, the centroids from the seed among the examples (ours). Its noise is 0 by default, and left out.

At s = .8 the message is nearly the features themselves, and a class with one example sends that example's. The outer
ReLU cannot give back negative features, nor 32 units those of a higher rank. What lies below the head still knows D_u,
so an audit says head only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fused_ray.config.parts.methods import FedUpConfig
from fused_ray.core import herding, state, wire
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.shared import blank_model
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation, Saved
from fused_ray.core.server import check_messages
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays
from fused_ray.core.wire import Delivery
from fused_ray.core.work import ModelEvaluation, OnExamples, Update
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError
from fused_ray.models.bottleneck import Head, passed
from fused_ray.seeding import bits, derive, permutation
from fused_ray.types import FloatVector, IntVector, On, PartialSum, Payload, Remaining, Scenario

STARTS, STEPS, TOLERANCE = 5, 100, 1e-4
"""Of k-means. It ends when the squares by which centroids moved sum to at most the tolerance x the mean variance."""
Examples = tuple[FloatVector, IntVector]
"""Features [n, d] and labels [n]."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Ask for centroids, and train the bottleneck on them."""
    config, layer, start = federation.config, place(federation), state.flatten(base)
    work, nothing = asking(federation, base, layer), Payload(np.zeros(0, np.float32))
    clients = federation.participants(work.phase, work.on)
    delivery = Delivery(wire.model_bytes(start, federation.anatomy.frozen_values))
    check_messages(config, len(federation.scenario.clients(work.on)), work.most * work.features)

    def conclude(total: PartialSum) -> Saved:
        sent = [work.read(report.client, total.updates[report.client], report.figures) for report in total.reports]
        examples = np.concatenate([z for z, _ in sent]), np.concatenate([y for _, y in sent])
        opened = with_bottleneck(base, layer, *trained(base, layer, examples, config.fedup, config.seed))
        figures = {"centroids": len(examples[1])}
        return Saved(round=1, payload=state.flatten(opened), metrics={}, figures=figures)

    end = federation.ask(work, nothing, clients, conclude, once=delivery.to, keep_updates=True)
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    metrics = federation.evaluate(ModelEvaluation(), end.payload)
    return replace(whole_model(end.payload, base, metrics, start_metrics), figures=end.figures)


def place(federation: Federation) -> str:
    """The name of the output layer behind the place. Raises ConfigError where the model has none."""
    name = federation.anatomy.layers[-1]
    if isinstance(blank_model(federation).get_submodule(name), Head):
        return name
    raise ConfigError(
        f"unlearn.method: fedup puts a module before the output layer, and {federation.config.model.label} has no "
        "place for it; set model.factory=fused_ray.models.bottleneck:build and model.args={name: lenet}"
    )


# -- 1. centroids


@dataclass(frozen=True)
class Centroids(OnExamples):
    """A client sends centroids of its features, class after class. All updates are as long as the longest one."""

    phase: str
    on: On
    seed: int
    layer: str
    features: int
    """d."""
    classes: int
    share: float
    sent: int
    """Centroids that a client sends in the mean: so many are counted."""
    most: int
    """Of the client that sends most."""
    relabelled: tuple[int, ...]
    """The classes whose centroids get another label."""
    round: int = 1

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        rows = self.rows(space, client)
        space.use_base()
        z, labels = herding.features(space, self.layer, rows), space.scenario.train_labels[rows]
        found, numbers, at = np.zeros((self.most, self.features), np.float32), [0] * self.classes, 0
        for label in np.unique(labels).tolist():
            own = z[labels == label]
            numbers[label] = number = math.ceil(self.share * len(own))
            orders = [permutation(len(own), self.seed, f"fedup/{label}/{i}", 1, client) for i in range(STARTS)]
            found[at : at + number] = kmeans(own, [order[:number] for order in orders])
            at += number
        return Update(Payload(found.ravel()), 0.0, tuple(numbers))

    def read(self, client: int, update: FloatVector, numbers: Sequence[float]) -> Examples:
        """The centroids that a client sent, so many of each class, and the labels that they are trained with."""
        counts = [int(number) for number in numbers]
        labels = [self.label(label, client) for label in range(self.classes)]
        return update.reshape(self.most, self.features)[: sum(counts)], np.repeat(labels, counts)

    def label(self, label: int, client: int) -> int:
        """The label of a class's centroids: where it must be forgotten another, drawn for each client and class."""
        if label not in self.relabelled:
            return label
        others = [other for other in range(self.classes) if other not in self.relabelled]
        return others[derive(self.seed, f"fedup/label/{label}", 1, client) % len(others)]

    def upload_bytes(self, payload: Payload) -> int:
        return wire.values_bytes(self.sent * self.features)

    def download_bytes(self, payload: Payload) -> int:
        return 0  # but for M_r, which is sent once


def asking(federation: Federation, base: Arrays, layer: str) -> Centroids:
    """What clients are asked for: of all that they hold where classes are forgotten, else of what stays."""
    config, scenario, classes = federation.config, federation.scenario, federation.data.classes
    by_class = config.kind == "class"
    on, share = used(config, "held" if by_class else "retained"), config.fedup_share
    sent = numbers(scenario, on, classes, share)
    gone = np.unique(scenario.train_labels[scenario.gone.indices]).tolist() if by_class else ()
    return Centroids(
        *("centroids", on, config.seed, layer, base[f"{layer}.weight"].shape[1], classes, share),
        *(round(float(sent.mean())), int(sent.max()), tuple(gone)),
    )


def numbers(scenario: Scenario, on: On, classes: int, share: float) -> IntVector:
    """How many centroids each client sends that has any examples."""
    if isinstance(on, Remaining) and on.herding:
        counts = herding.counts(scenario, on, classes)
    else:
        counts = scenario.parts(on).counts(scenario.train_labels, classes)
    sent: IntVector = np.ceil(share * counts).astype(np.int64).sum(1)
    return sent[sent > 0]


def kmeans(points: NDArray[np.float64], starts: Sequence[IntVector]) -> NDArray[np.float64]:
    """The centroids [k, d] of points [n, d], by Lloyd's algorithm: of several starts, k points each, the nearest."""
    x = torch.from_numpy(points)
    enough = TOLERANCE * float(x.var(0, correction=0).mean())
    best, least = x, math.inf
    for start in starts:
        centroids = x[torch.from_numpy(start)]
        for _ in range(STEPS):
            moved = _means(x, centroids)
            shift, centroids = float((moved - centroids).square().sum()), moved
            if shift <= enough:
                break
        spread = float(torch.cdist(x, centroids).amin(1).square().sum())
        if spread < least:
            best, least = centroids, spread
    return best.numpy()


def _means(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The means of the points that are nearest to each centroid; one without points stays."""
    nearest = torch.cdist(x, centroids).argmin(1)
    sizes = nearest.bincount(minlength=len(centroids))[:, None]
    sums = torch.zeros_like(centroids).index_add_(0, nearest, x)
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), centroids)


# -- 2. the bottleneck


def trained(
    base: Arrays, layer: str, examples: Examples, fedup: FedUpConfig, seed: int
) -> tuple[FloatVector, FloatVector]:
    """The maps [width, d] and [d, width] after SGD on centroids; the last part batch of an epoch is left out."""
    z, y = (torch.from_numpy(np.array(part)) for part in examples)
    head = [torch.tensor(np.asarray(base[name])) for name in (f"{layer}.weight", f"{layer}.bias") if name in base]
    width, d = base[f"{layer}.bottleneck.down"].shape
    maps = [begun((width, d), seed, "down").requires_grad_(), begun((d, width), seed, "up").requires_grad_()]
    size = min(fedup.batch_size, len(y))
    with standard():  # on one thread, as a client would
        for epoch in range(1, fedup.epochs + 1):
            order = torch.from_numpy(permutation(len(y), seed, "fedup/order", epoch))
            for rows in order[: len(y) // size * size].split(size):
                gradients = torch.autograd.grad(objective(z[rows], y[rows], maps, head), maps)
                with torch.no_grad():
                    for values, gradient in zip(maps, gradients, strict=True):
                        values.sub_(gradient, alpha=fedup.lr)
    down, up = (values.detach().numpy() for values in maps)
    return down, up


def objective(
    z: torch.Tensor, y: torch.Tensor, maps: Sequence[torch.Tensor], head: Sequence[torch.Tensor]
) -> torch.Tensor:
    """1/2 CE(h(a(z)), y) + 1/2 mean (a(z) - z)^2 of features [n, d] and labels [n]; the head's weight, and its bias."""
    a = passed(z, *maps)
    return (F.cross_entropy(F.linear(a, *head), y) + (a - z).square().mean()) / 2


def begun(shape: tuple[int, int], seed: int, name: str) -> torch.Tensor:
    """A map as it begins: uniform within 1 / sqrt(inputs)."""
    uniform = (bits(math.prod(shape), seed, f"fedup/{name}") >> np.uint64(11)) * 2.0**-53
    return torch.from_numpy(((2 * uniform - 1) / math.sqrt(shape[1])).astype(np.float32)).reshape(shape)


def with_bottleneck(base: Arrays, layer: str, down: FloatVector, up: FloatVector) -> Arrays:
    """M_r with the bottleneck open."""
    own = f"{layer}.bottleneck"
    return {**base, f"{own}.down": down, f"{own}.up": up, f"{own}.open": np.ones(1, np.int64)}
