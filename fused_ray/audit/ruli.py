"""RULI (arXiv 2506.13009) in a cheap form: can canaries that were forgotten be told from ones that never were there?

Canaries are examples of D_r with a wrong label, which only memory can explain. In each of N shadow trainings a third of
them is IN, a third OUT (no client holds it), and a third UNLEARN: trained on, then forgotten by the run's own method
as one request. D_u of the run itself takes no part. Each shadow in turn is attacked with what the others say of the
same canary: of scores s = log p_y - log(1 - p_y), over their standard deviation, kernel densities (Gaussian, bandwidth
1) of the UNLEARN and the OUT shadows give the attacker's score L_unlearn / (L_unlearn + L_out).

- privacy: UNLEARN against OUT, all scored after forgetting.
- efficacy: UNLEARN after forgetting, against OUT before it: there OUT is what retraining would give.
- before: both before forgetting: what the attack finds where nothing was forgotten. Near .5 it can find nothing.
- floor: OUT against OUT before forgetting, at random: one oracle against another; its spread over draws.

Only AUCs: a TPR at 1% needs hundreds of non-members a shadow. N shadows, k canaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fused_ray.audit.membership import CONFIDENCE, attack, features
from fused_ray.audit.outputs import Vector, logits, retained
from fused_ray.core.workspace import Workspace
from fused_ray.errors import DataError
from fused_ray.seeding import bits, permutation
from fused_ray.types import ImageData, IntVector, Parts, Payload, Scenario

CANARIES = 90
"""At most; and at most a tenth of D_r."""
IN, OUT, UNLEARN = range(3)
DRAWS = 20
"""Of the floor."""


@dataclass(frozen=True)
class Ruli:
    """AUCs; .5 is guessing."""

    privacy: float
    efficacy: float
    before: float
    floor: float
    """Mean over draws."""
    spread: float
    """Standard deviation over draws."""
    shadows: int
    canaries: int


@dataclass(frozen=True)
class Canaries:
    """Training examples and the wrong labels that they get [k]."""

    indices: IntVector
    labels: IntVector


def canaries(data: ImageData, scenario: Scenario, seed: int) -> Canaries:
    """The canaries of a seed. Raises DataError where D_r is too small for three."""
    kept = retained(scenario)
    count = min(CANARIES, len(kept) // 10) // 3 * 3
    if count == 0:
        raise DataError(f"audit.ruli: {len(kept)} examples stay, and canaries are a tenth of them; take more data")
    indices = np.sort(kept[permutation(len(kept), seed, "ruli/canaries")[:count]])
    shift = 1 + (bits(count, seed, "ruli/labels") % np.uint64(data.classes - 1)).astype(np.int64)
    return Canaries(indices, (scenario.train_labels[indices] + shift) % data.classes)


def roles(count: int, shadows: int, seed: int) -> IntVector:
    """The role of every canary in every shadow [N, k]: each a third of a shadow's, and a third of a canary's."""
    rows = []
    for block in range(shadows // 3):
        turn = np.empty(count, np.int64)
        turn[permutation(count, seed, "ruli/roles", block)] = np.arange(count) % 3
        rows += [(turn + step) % 3 for step in range(3)]
    return np.stack(rows)


def request(scenario: Scenario, chosen: Canaries, role: IntVector) -> Scenario:
    """What a shadow trains on and forgets: D_r with its canaries of these roles [k]."""
    labels = scenario.train_labels.copy()
    labels[chosen.indices] = chosen.labels
    parts = scenario.retained

    def without(*gone: int) -> Parts:
        return parts.where(~np.isin(parts.indices, chosen.indices[np.isin(role, gone)]))

    forgotten = chosen.indices[role == UNLEARN]
    return replace(
        scenario, held=without(OUT), retained=without(OUT, UNLEARN), train_labels=labels, poisoned=forgotten, classes=()
    )


def scores(space: Workspace, payload: Payload, chosen: Canaries) -> Vector:
    """What a model says of every canary's wrong label [k]."""
    return features(logits(space, payload, "train", chosen.indices), chosen.labels)[:, CONFIDENCE]


def likelihood(scores: Vector, unlearned: Vector, out: Vector, kinds: Sequence[NDArray[np.bool_]]) -> Vector:
    """L_unlearn / (L_unlearn + L_out) of scores [N, k] by kernel densities of bandwidth 1 around other shadows' scores.

    `unlearned` and `out` are what is compared with [N, k], and `kinds` where it is of the one kind and of the other.
    A shadow is left out of its own kind, and one of the other kind with it: a density of fewer centres is lower as a
    rule, so that chance would look like something. NaN where nothing is left.
    """
    rank = np.where(kinds[0] | kinds[1], np.where(kinds[0], *(np.cumsum(kind, axis=0) for kind in kinds)), -1)
    ours, theirs = (_density(scores, *part, rank) for part in zip((unlearned, out), kinds, strict=True))
    # far from all centres neither density has digits left; then either is as likely
    total = ours + theirs
    result: Vector = np.where(total == 0, 0.5, ours / np.where(total == 0, 1.0, total))
    return result


def _density(scores: Vector, centres: Vector, kind: NDArray[np.bool_], rank: IntVector) -> Vector:
    """Mean kernel [N, k] over the shadows of a kind with another rank in it; NaN where there are none."""
    counted = kind[None] & (rank[:, None] != rank[None])  # [own, other, canary]
    kernels = np.exp(-((scores[:, None] - centres[None]) ** 2) / 2)
    count = counted.sum(1)
    return np.where(count > 0, (kernels * counted).sum(1) / np.maximum(count, 1), np.nan)


def ruli(before: Vector, after: Vector, role: IntVector, seed: int) -> Ruli:
    """The attack from all shadows' scores of all canaries, before and after forgetting, and their roles [N, k]."""
    unlearn, out = role == UNLEARN, role == OUT
    chance = [_auc(before, before, *_parted(out, seed, draw)) for draw in range(DRAWS)]
    return Ruli(
        privacy=_auc(after, after, unlearn, out),
        efficacy=_auc(after, before, unlearn, out),
        before=_auc(before, before, unlearn, out),
        floor=float(np.mean(chance)),
        spread=float(np.std(chance, ddof=1)),
        shadows=len(role),
        canaries=role.shape[1],
    )


def _parted(out: NDArray[np.bool_], seed: int, draw: int) -> Sequence[NDArray[np.bool_]]:
    """Two random halves of the OUT shadows of every canary [N, k]: one stands for UNLEARN."""
    drawn = np.where(out, bits(out.size, seed, "ruli/floor", draw).reshape(out.shape) >> np.uint64(1), 2**63)
    rank, half = drawn.argsort(0).argsort(0), out.sum(0) // 2
    return rank < half, (rank >= half) & (rank < 2 * half)


def _auc(of_unlearn: Vector, of_out: Vector, unlearn: NDArray[np.bool_], out: NDArray[np.bool_]) -> float:
    """AUC over all shadows and canaries, each shadow attacked with what the others say; [N, k] each."""
    scale = float(np.concatenate([of_unlearn[unlearn], of_out[out]]).std()) or 1.0
    own = np.where(unlearn, of_unlearn, of_out) / scale
    found = likelihood(own, of_unlearn / scale, of_out / scale, (unlearn, out))
    known = (unlearn | out) & ~np.isnan(found)
    return attack(found[known], unlearn[known]).auc
