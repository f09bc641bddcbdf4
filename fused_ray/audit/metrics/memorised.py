"""Memorised: whether the forgotten examples that M_r knew by heart are known still (arXiv 2605.24545).

mem(x) = max(0, p_y(x | M_r) - mean over retrained models of p_y(x)): what only training on x explains. D_u is sorted
into fifths by it. In the lowest fifth any method passes: there M_r and the retrained model agree. In the highest one
the retrained model is wrong by construction, and another retrained model is right more often than it: so that one,
put through the same, is the control. It takes no part in that mean: else it would be wrong there by construction too,
and a model that never saw D_u would be held against less than it can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray.audit.evidence import Evidence, Known
from fused_ray.audit.margins import FA_MARGIN, of_share
from fused_ray.audit.outputs import Logits, Vector, forgotten, log_probabilities, logits
from fused_ray.config.parts.metrics import Answer
from fused_ray.core.state import flatten
from fused_ray.errors import DataError
from fused_ray.types import IntVector

GROUPS = 5
Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Forgotten examples that are memorised about as much; shares of them."""

    examples: int
    memorisation: float
    """Mean."""
    after: float
    """Right by the model that is audited."""
    retrained: float
    """Right by the retrained model."""
    agree: float
    """Both right or both wrong."""
    not_unlearned: float
    """Right by the one that is audited alone."""
    lost: float
    """Right by the retrained model alone."""

    @property
    def gap(self) -> float:
        """How much more of them the audited model knows."""
        return self.after - self.retrained


def measure(evidence: Evidence) -> Answer:
    """Of the highest fifth, with the lowest beside. Raises DataError without a retrained model."""
    if evidence.retrained is None:
        raise DataError("there is no retrained model to tell what was memorised")
    rows = forgotten(evidence.space.scenario)
    y = evidence.space.scenario.train_labels[rows]
    memories, standard, other = evidence.remembered("groups", lambda: _standard(evidence, rows, y))
    groups = grouped(memories, _right(evidence, evidence.after, rows, y), standard)
    control = None if other is None else grouped(memories, other, standard)
    top, bottom = _highest(groups), next(group for group in groups if group)
    usual = max(top.retrained, _highest(control).after) if control else top.retrained
    expected, margin = usual - top.retrained, of_share(usual, top.examples)
    passes, word = judge(top, expected + margin, control is not None)
    said = (
        f"{word}: {top.after:.3f} of {top.examples} right, retrained {top.retrained:.3f}, "
        f"{margin:.3f} above that and another retrained model's {expected:+.3f} are allowed; in the least memorised "
        f"fifth {bottom.gap:+.3f}"
    )
    figures = {"gap_most": top.gap, "gap_least": bottom.gap, "not_unlearned": top.not_unlearned}
    figures |= {"gap_control": expected} if control else {}
    return Answer(figures, passes, said, {"groups": _plain(groups), "control": control and _plain(control)})


def _highest(groups: Sequence[Group | None]) -> Group:
    return next(group for group in reversed(groups) if group)


def _plain(groups: Sequence[Group | None]) -> list[dict[str, Any] | None]:
    return [asdict(group) if group else None for group in groups]


def judge(top: Group, allowed: float, controlled: bool) -> tuple[bool | None, str]:
    """Whether the model passes by the most memorised fifth, and in words."""
    if top.memorisation <= FA_MARGIN:
        return None, f"cannot tell: nothing was memorised (at most {top.memorisation:.3f})"
    if top.gap > allowed:
        known = "the most memorised fifth is known still"
        return (False, known) if controlled else (None, "cannot tell without another retrained model")
    if top.retrained + allowed >= 1:
        return None, "cannot tell: who knows all of so few examples would pass too"
    return True, "the most memorised fifth is forgotten"


def memorisation(with_it: Vector, without: Vector) -> Vector:
    """mem(x) [n] from p_y of the model trained with x [n], and of models trained without it [models, n]."""
    found: Vector = np.maximum(0.0, with_it - without.mean(0))
    return found


def fifths(values: Vector) -> IntVector:
    """Which group each value is in [n], from the lowest: between two percentiles, the upper one included."""
    edges = np.percentile(values, np.linspace(0, 100, GROUPS + 1)[1:-1])
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def grouped(memories: Vector, after: Right, retrained: Right) -> list[Group | None]:
    """The groups, least memorised first; None for one that equal values left empty."""
    group = fifths(memories)
    found: list[Group | None] = []
    for number in range(GROUPS):
        inside = group == number
        if not inside.any():
            found.append(None)
            continue
        ours, theirs = after[inside], retrained[inside]
        shares = (ours, theirs, ours == theirs, ours & ~theirs, theirs & ~ours)
        found.append(Group(int(inside.sum()), float(memories[inside].mean()), *(float(x.mean()) for x in shares)))
    return found


def _standard(evidence: Evidence, rows: IntVector, y: IntVector) -> tuple[Vector, Right, Right | None]:
    """mem of D_u, and where the retrained model and the control are right there."""
    assert evidence.retrained is not None
    said = [_logits(evidence, model, rows) for model in (evidence.retrained, *evidence.others)]
    without = [said[0], *said[2:]]  # the second one is the control

    def p(scores: Logits) -> Vector:
        found: Vector = np.exp(log_probabilities(scores))[np.arange(len(y)), y]
        return found

    memories = memorisation(p(_logits(evidence, evidence.before, rows)), np.array([p(scores) for scores in without]))
    right = [scores.argmax(1) == y for scores in said]
    return memories, right[0], right[1] if evidence.others else None


def _right(evidence: Evidence, model: Known, rows: IntVector, y: IntVector) -> Right:
    return np.asarray(_logits(evidence, model, rows).argmax(1) == y)


def _logits(evidence: Evidence, model: Known, rows: IntVector) -> Logits:
    return logits(evidence.space, flatten(model.weights), "train", rows)
