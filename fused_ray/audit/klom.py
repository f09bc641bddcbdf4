"""KLoM (arXiv 2410.23232): does an unlearned model answer, example by example, like one drawn from retrained ones?

Training and forgetting are done N times with other initial models and other batches, and so is retraining without the
forgotten data. For each example the margin m = z_y - logsumexp of the other logits then has two distributions over
models. They are clipped to +-CLIP, put into BINS equal bins over their joint range, and compared by
KL(unlearned || retrained), where a retrained bin counts at least FEWEST if the other has something there: at most
ln(1 / FEWEST) = 11.5 nats. The figure of a set of examples is its 95th percentile, and its mean.

With few models chance alone gives much, so each figure stands beside its floor: one half of the retrained models in
the place of the unlearned ones, against the other half. What is compared with the floor is as many unlearned models,
against the same half. N models, n examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fused_ray.audit.membership import CONFIDENCE, features
from fused_ray.audit.outputs import Vector, forgotten, logits, retained
from fused_ray.core.workspace import Workspace
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Payload

CLIP = 100.0
BINS = 20
FEWEST = 1e-5
MOST = 500
"""Most examples of each set."""
SETS = ("forget", "retain", "test")
"""D_u, D_r, and the test set; with the labels that clients train on."""


@dataclass(frozen=True)
class Klom:
    """Of one set of examples, in nats."""

    all: float
    """95th percentile, all unlearned models against all retrained ones."""
    after: float
    """95th percentile, as many unlearned models as half of the retrained ones, against the other half."""
    floor: float
    """95th percentile, half of the retrained models against the other half."""
    before: float
    """95th percentile, as many models from before in the place of the unlearned ones: what doing nothing comes to."""
    mean: float
    """Mean, otherwise like `after`."""
    mean_floor: float
    """Mean, otherwise like `floor`."""
    mean_before: float
    """Mean, otherwise like `before`."""
    models: int
    """N."""


def margins(space: Workspace, payload: Payload) -> dict[str, Vector]:
    """A model's margin for examples of every set [n]."""
    data, scenario = space.data, space.scenario
    found = {}
    for name, indices in _examples(space).items():
        labels = data.test_labels if name == "test" else scenario.train_labels
        answers = logits(space, payload, "test" if name == "test" else "train", indices)
        found[name] = features(answers, labels[indices])[:, CONFIDENCE]
    return found


def _examples(space: Workspace) -> dict[str, IntVector]:
    everything = {
        "forget": forgotten(space.scenario),
        "retain": retained(space.scenario),
        "test": np.arange(space.scenario.real(len(space.data.test_labels))),
    }
    seed = space.config.seed
    return {n: rows[np.sort(permutation(len(rows), seed, f"klom/{n}")[:MOST])] for n, rows in everything.items()}


def divergence(unlearned: Vector, retrained: Vector, bins: int = BINS) -> Vector:
    """KLoM of each example [n] from margins of models [N, n], which may be of different numbers."""
    ours, theirs = (np.clip(part, -CLIP, CLIP) for part in (unlearned, retrained))
    low, high = np.minimum(ours.min(0), theirs.min(0)), np.maximum(ours.max(0), theirs.max(0))
    width = np.where(high > low, high - low, 1.0)

    def shares(part: Vector) -> Vector:
        which = np.minimum(((part - low) / width * bins).astype(int), bins - 1)  # the last bin has both its ends
        return np.stack([(which == each).mean(0) for each in range(bins)])

    p, q = shares(ours), np.maximum(shares(theirs), FEWEST)
    result: Vector = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0) / q), 0.0).sum(0)
    return result


def klom(unlearned: Vector, retrained: Vector, before: Vector) -> Klom:
    """The figures of a set from margins [N, n]; each row of the three is of one training."""
    half = len(retrained) // 2
    standard = retrained[half:]
    after, floor, undone = (divergence(part[:half], standard) for part in (unlearned, retrained, before))
    return Klom(
        all=_high(divergence(unlearned, retrained)),
        after=_high(after),
        floor=_high(floor),
        before=_high(undone),
        mean=float(after.mean()),
        mean_floor=float(floor.mean()),
        mean_before=float(undone.mean()),
        models=len(retrained),
    )


def by_set(models: Mapping[str, list[dict[str, Vector]]]) -> dict[str, Klom]:
    """The figures of every set; `models` has the margins of the models `after`, `retrained` and `before`."""

    def stacked(kind: str, name: str) -> Vector:
        return np.stack([each[name] for each in models[kind]])

    return {name: klom(*(stacked(kind, name) for kind in ("after", "retrained", "before"))) for name in SETS}


def _high(values: Vector) -> float:
    return float(np.percentile(values, 95))
