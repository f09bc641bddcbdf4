"""Member or not? What an attacker who sees a model's outputs learns about who was in its training data.

Members are examples of D_u. Non-members are test examples that no model has seen, of the same distribution: those of
the view `fa` with the labels that count as right there (a flipped client's labels are flipped, a backdoor's images
triggered and labelled with the target). Where the forgotten data is clean data like all other, `fa` is measured on D_u
itself, and the view `ra`, the test set, is taken instead. Both sides have the same mix of (true class, label), so that
nothing but membership tells them apart.

Examples are paired, a member with a non-member of its (class, label), and shadow models say the same number of things
about both sides: what is usual for a pair comes from those that did not see its member, which the seed has drawn.
Averages of fewer models spread more, and whoever spreads more is found more often, member or not.

An unlearned model should answer like a retrained one: an AUC above its shows that the forgotten is remembered, one
below it that forgetting left a mark. n examples a side, C classes, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fused_ray.audit.outputs import Logits, Vector, forgotten, log_probabilities, logits
from fused_ray.audit.shadow import Shadow
from fused_ray.core.workspace import Workspace
from fused_ray.errors import DataError
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Payload

MOST = 2_000
"""Most examples a side."""
ENOUGH = 100
"""Fewest examples a side, over all shadow models, to learn from the forgotten kind alone."""
LOW_FPR = 0.01
FEWEST = 99
"""Fewest non-members among which one in LOW_FPR can be told."""


@dataclass(frozen=True)
class Sample:
    """Pairs of a member and a non-member of the same class and label."""

    members: IntVector
    """Training examples [n]."""
    member_labels: IntVector
    others: IntVector
    """Test examples [n]."""
    other_labels: IntVector


@dataclass(frozen=True)
class Attack:
    """How well a score tells members from non-members."""

    auc: float
    """0.5 is guessing."""
    tpr: float | None
    """Share of the members with a p-value of at most LOW_FPR, which is at most LOW_FPR where nobody is a member.

    The p-value of a score is (1 + non-members with at least that score) / (1 + non-members); so ties find nobody, and
    with fewer than FEWEST non-members it is None.
    """


@dataclass(frozen=True)
class Membership:
    """The attacks on one model."""

    examples: int
    """On each side."""
    loss: Attack
    """By the loss alone, the smaller the likelier a member; needs nothing (Yeom et al. 2018, arXiv 1709.01604)."""
    shadow: Attack | None
    """By logistic regression on all features, learned from shadow models."""
    gaussian: Attack | None
    """By how much more confident the model is than shadow models without the example. This is offline LiRA (Carlini
    et al. 2022, arXiv 2112.03570) with one variance for all, as befits a few shadow models."""

    @property
    def strongest(self) -> Attack:
        """The attack that the verdict rests on: with shadow models if there are any."""
        return self.shadow or self.loss


@dataclass(frozen=True)
class Adversary:
    """What an attacker knows before it sees a model."""

    sample: Sample
    classifier: Any | None
    """Fitted on features [n, F]; None without shadow models."""
    usual: Vector | None
    """Mean confidence of the shadow models that did not see the pair's member [2n]; NaN where all saw it."""

    def attack(self, space: Workspace, payload: Payload) -> Membership:
        """The attacks on a model."""
        seen = answers(space, payload, self.sample)
        n = len(self.sample.members)
        shadow = gaussian = None
        if self.classifier is not None:
            shadow = _judge(self.classifier.decision_function(seen), n)
        if self.usual is not None and not np.isnan(self.usual[:n]).all():
            gaussian = _judge(seen[:, CONFIDENCE] - self.usual, n)
        return Membership(n, _judge(-seen[:, LOSS], n), shadow, gaussian)


LOSS, CONFIDENCE = 0, 1
"""Columns of `features`."""


def features(scores: Logits, labels: IntVector) -> Vector:
    """Of each example [n, F]: loss, confidence log p_y - log(1 - p_y), largest p, entropy, margin of the logits."""
    log_p = log_probabilities(scores)
    chosen = np.arange(len(labels)), labels
    rest = scores.astype(np.float64)
    rest[chosen] = -np.inf
    # the difference of the logits itself: 1 - p_y has no digits left where p_y is nearly 1
    confidence = scores[chosen] - torch.logsumexp(torch.from_numpy(rest), 1).numpy()
    p = np.exp(log_p)
    return np.column_stack([-log_p[chosen], confidence, p.max(1), -(p * log_p).sum(1), scores[chosen] - rest.max(1)])


def prepare(space: Workspace, shadows: Sequence[Shadow] = ()) -> Adversary:
    """An attacker of the workspace's scenario who has trained these shadow models."""
    sample = draw(space)
    if not shadows:
        return Adversary(sample, None, None)
    return Adversary(sample, _learn(space, shadows), _usual(space, shadows, sample))


def draw(space: Workspace, number: int = 0) -> Sample:
    """The examples to attack: as many as there are on both sides of each class and label, MOST at the most.

    Every number draws other ones. Raises DataError if there are none.
    """
    scenario, data, seed = space.scenario, space.data, space.config.seed
    view = scenario.views["ra" if len(scenario.shown) else "fa"]
    gone = forgotten(scenario)
    kinds = data.train_labels[gone] * data.classes + scenario.train_labels[gone]
    other_kinds = data.test_labels[view.indices] * data.classes + view.labels
    found = pairs(kinds, other_kinds, seed, number)
    if not len(found):
        raise DataError("no test image is like the forgotten ones, so membership cannot be audited; raise data.limit")
    found = found[np.sort(permutation(len(found), seed, "membership/sample", number)[:MOST])]
    members, others = gone[found[:, 0]], view.indices[found[:, 1]]
    return Sample(members, scenario.train_labels[members], others, view.labels[found[:, 1]])


def attack(scores: Vector, member: NDArray[np.bool_]) -> Attack:
    """AUC and TPR of scores [k], the larger the likelier a member, against the truth, bool [k]."""
    # scikit-learn takes longer to import than PyTorch; a run that audits nothing does without
    from sklearn.metrics import roc_auc_score

    others = np.sort(scores[~member])
    alarms = len(others) - np.searchsorted(others, scores[member])  # non-members with at least a member's score
    hits = (1 + alarms) / (1 + len(others)) <= LOW_FPR
    return Attack(float(roc_auc_score(member, scores)), float(hits.mean()) if len(others) >= FEWEST else None)


def _judge(scores: Vector, n: int) -> Attack:
    known = ~np.isnan(scores)
    return attack(scores[known], (np.arange(2 * n) < n)[known])


def pairs(left: IntVector, right: IntVector, seed: int, number: int = 0) -> IntVector:
    """Positions [k, 2] of random pairs of the same kind, each used once, as many as there are."""
    found = [np.zeros((0, 2), np.int64)]
    for kind in np.intersect1d(left, right).tolist():
        a, b = np.flatnonzero(left == kind), np.flatnonzero(right == kind)
        count = min(len(a), len(b))
        a = a[permutation(len(a), seed, "membership/members", number, kind)[:count]]
        b = b[permutation(len(b), seed, "membership/others", number, kind)[:count]]
        found.append(np.column_stack([a, b]))
    return np.concatenate(found)


def answers(space: Workspace, payload: Payload, sample: Sample) -> Vector:
    """Features [2n, F] of a model's answers about the members, then about the others."""
    inside = features(logits(space, payload, "train", sample.members), sample.member_labels)
    return np.concatenate([inside, features(logits(space, payload, "test", sample.others), sample.other_labels)])


def _learn(space: Workspace, shadows: Sequence[Shadow]) -> Any:
    """A classifier of features, from what shadow models say about examples that they have seen and have not.

    It learns from examples of D_u where there are enough, else from all; from each shadow model as many of the one kind
    as of the other, so that telling the models apart does not help. None where there is nothing to learn from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    gone = forgotten(space.scenario)
    sides = [(np.intersect1d(s.members, gone), np.intersect1d(s.non_members, gone)) for s in shadows]
    if sum(min(map(len, side)) for side in sides) < ENOUGH:
        sides = [(s.members, s.non_members) for s in shadows]
    rows, truth = [], []
    for number, (shadow, side) in enumerate(zip(shadows, sides, strict=True)):
        count = min(MOST, *map(len, side))
        if not count:
            continue
        for member, indices in zip((True, False), side, strict=True):
            order = permutation(len(indices), space.config.seed, f"membership/shadow/{member}", number)
            chosen = np.sort(indices[order[:count]])
            answers = logits(space, shadow.payload, "train", chosen)
            rows.append(features(answers, space.scenario.train_labels[chosen]))
            truth.append(np.full(count, member))
    if not rows:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    with threadpool_limits(1):  # BLAS adds up in another order with another number of threads
        return model.fit(np.concatenate(rows), np.concatenate(truth))


def _usual(space: Workspace, shadows: Sequence[Shadow], sample: Sample) -> Vector:
    said = np.stack([answers(space, shadow.payload, sample)[:, CONFIDENCE] for shadow in shadows])
    return usual(said, np.stack([np.isin(sample.members, shadow.members) for shadow in shadows]))


def usual(said: Vector, seen: NDArray[np.bool_]) -> Vector:
    """Mean confidence [2n] over the shadow models that did not see a pair's member, for both of the pair.

    `said` [S, 2n] is what S shadow models say about the members, then about the others; `seen` [S, n] whether a model
    saw the member. NaN where all did.
    """
    without = np.tile(~seen, 2)
    count = without.sum(0)
    return np.where(count > 0, np.where(without, said, 0.0).sum(0) / np.maximum(count, 1), np.nan)
