"""The SWAP test (arXiv 2404.11577): what does an attacker gain by knowing that something was forgotten?

The forgotten examples F of a request are paired with test examples T of the same class and label, which no model saw.
Then everything is done once more with each pair's images in each other's place: T is trained on and forgotten, F is
never seen. The attacker sees one example and a model, and says "forgotten" or not. Its advantage is

    Adv = | [Pr(A | F) - Pr(A | T)] in the one  +  [Pr(A | T) - Pr(A | F)] in the other | / 2,

and the quality 1 - Adv. An attacker that merely knows F by heart gains 1 in the one and loses 1 in the other: 0. A
model that never saw either gives 0. It asks only where F and T could have been drawn the other way round: in the
scenario `sample`.

An attacker is a threshold on one feature of the model's answer. The best one on half of the pairs is tried on the
other half, and the other way round: the best on the very pairs that it is tried on would gain by chance alone.
n pairs, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fused_ray.audit.membership import Sample
from fused_ray.audit.outputs import Vector
from fused_ray.seeding import permutation
from fused_ray.types import ImageData, IntVector

THRESHOLDS = 50
"""How many thresholds a feature is tried with: evenly spaced quantiles of what the models answer."""


@dataclass(frozen=True)
class Swap:
    """The attacker's advantage, mean over splits; by chance it may be a little below 0."""

    after: float
    """Against the unlearned models."""
    before: float
    """Against the models before: what doing nothing comes to."""
    retrained: float | None
    """Against two retrained models, which is chance; None where there is no second one."""
    pairs: int
    """Of examples, in the smallest split."""
    splits: int

    @property
    def quality(self) -> float:
        """1: the attacker gains nothing."""
        return 1 - max(0.0, self.after)


@dataclass(frozen=True)
class Answers:
    """What two models answer about the pairs of a split, the features of F, then of T [2n, F]."""

    one: Vector
    """The model that forgot F, or one in its place."""
    other: Vector
    """The one that forgot T."""


def swapped(data: ImageData, sample: Sample) -> ImageData:
    """The data with each pair's inputs in each other's place; labels stay, for a pair's are the same."""
    train, test = data.train_images.copy(), data.test_images.copy()
    train[sample.members], test[sample.others] = data.test_images[sample.others], data.train_images[sample.members]
    return replace(data, train_images=train, test_images=test)


def formula(forgotten: float, unseen: float, forgotten_swapped: float, unseen_swapped: float) -> float:
    """Adv of an attacker that says "forgotten" with these probabilities, in the one split and in the swapped one."""
    return abs((forgotten - unseen) + (forgotten_swapped - unseen_swapped)) / 2


def advantage(answers: Answers, seed: int) -> float:
    """The advantage of the best threshold, found on one half of the pairs and tried on the other, both ways."""
    n = len(answers.one) // 2
    order = permutation(n, seed, "swap/halves")
    halves = order[: n // 2], order[n // 2 :]
    return float(np.mean([_tried(answers, find, tried, n) for find, tried in (halves, halves[::-1])]))


def _tried(answers: Answers, find: IntVector, tried: IntVector, n: int) -> float:
    both = np.concatenate([answers.one, answers.other])
    levels = np.quantile(both, np.linspace(0, 1, THRESHOLDS + 2)[1:-1], axis=0)  # [thresholds, F]
    found = _gains(answers, find, n, levels)
    best = np.unravel_index(np.abs(found).argmax(), found.shape)
    return float(np.sign(found[best]) * _gains(answers, tried, n, levels)[best])


def _gains(answers: Answers, rows: IntVector, n: int, levels: Vector) -> Vector:
    """Adv with its sign, for every threshold and feature [thresholds, F], on some of the pairs."""
    shares = [
        (seen[part][:, None] >= levels).mean(0)
        for seen, part in (
            (answers.one, rows), (answers.one, n + rows), (answers.other, n + rows), (answers.other, rows)
        )
    ]  # fmt: skip
    forgotten, unseen, forgotten_swapped, unseen_swapped = shares
    gains: Vector = ((forgotten - unseen) + (forgotten_swapped - unseen_swapped)) / 2
    return gains


def swap(after: Sequence[Answers], before: Sequence[Answers], retrained: Sequence[Answers], seed: int) -> Swap:
    """The test over some splits, each with pairs of its own; `retrained` may be none."""

    def mean(answers: Sequence[Answers]) -> float:
        return float(np.mean([advantage(each, seed) for each in answers]))

    return Swap(
        after=mean(after),
        before=mean(before),
        retrained=mean(retrained) if retrained else None,
        pairs=min(len(each.one) // 2 for each in after),
        splits=len(after),
    )
