"""How far a model's outputs are from those of a model that was trained without the forgotten data.

Two trainings with different initial weights differ as well: that distance is the floor, and a distance that does not
exceed it says that the unlearned model could be one more retrained one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fused_ray.audit.outputs import Logits, Vector, log_probabilities


@dataclass(frozen=True)
class Distance:
    """Means over examples, between a model's output p and the reference's q. In nats, but for the last."""

    js: float
    """Jensen-Shannon divergence, KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2; at most ln 2."""
    kl: float
    """KL(q || p): what the model misses of the reference."""
    disagreement: float
    """Share of examples that the two put into different classes."""


def distance(model: Logits, reference: Logits) -> Distance:
    """The distance between two models' logits [n, C] on the same examples."""
    p, q = log_probabilities(model), log_probabilities(reference)
    middle = np.logaddexp(p, q) - np.log(2.0)
    return Distance(
        js=(_kl(p, middle) + _kl(q, middle)) / 2,
        kl=_kl(q, p),
        disagreement=float(np.mean(model.argmax(1) != reference.argmax(1))),
    )


def _kl(p: Vector, q: Vector) -> float:
    """KL(p || q), mean over examples, from log probabilities [n, C]; never below 0 by rounding."""
    return max(0.0, float(np.mean((np.exp(p) * (p - q)).sum(1))))
