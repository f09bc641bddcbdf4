"""Memorised: whether the forgotten examples that M_r knew by heart are known still (arXiv 2605.24545).

mem(x) = max(0, p_y(x | M_r) - mean over retrained models of p_y(x)): what only training on x explains. D_u is sorted
into fifths by it. In the lowest fifth any method passes: there M_r and the retrained model agree. In the highest one
the retrained model is wrong by construction, and another retrained model is right more often than it: so that one,
put through the same, is the control.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

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
    memories, standard, others = evidence.remembered("groups", lambda: _standard(evidence, rows, y))
    groups = grouped(memories, _right(evidence, evidence.after, rows, y), standard)
    controls = [grouped(memories, other, standard) for other in others]
    top = next(group for group in reversed(groups) if group)
    bottom = next(group for group in groups if group)
    expected = max([0.0, *(next(g for g in reversed(each) if g).gap for each in controls)])
    margin = of_share(top.retrained, top.examples)
    if top.memorisation <= FA_MARGIN:
        passes, why = None, f"cannot tell: nothing was memorised (at most {top.memorisation:.3f})"
    elif top.gap > expected + margin and not controls:
        passes, why = None, "cannot tell without another retrained model"
    else:
        passes, why = top.gap <= expected + margin, ""
    said = why or ("the most memorised fifth is forgotten" if passes else "the most memorised fifth is known still")
    said += (
        f": {top.after:.3f} of {top.examples} right, retrained {top.retrained:.3f}, "
        f"{margin:.3f} above that and another retrained model's {expected:+.3f} are allowed; in the least memorised "
        f"fifth {bottom.gap:+.3f}"
    )
    figures = {"gap_most": top.gap, "gap_least": bottom.gap, "not_unlearned": top.not_unlearned}
    figures |= {"gap_control": expected} if controls else {}
    plain = [[group and asdict(group) for group in each] for each in (groups, *controls)]
    return Answer(figures, passes, said, {"groups": plain[0], "others": plain[1:]})


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


def _standard(evidence: Evidence, rows: IntVector, y: IntVector) -> tuple[Vector, Right, list[Right]]:
    """mem of D_u, and where each retrained model is right there."""
    assert evidence.retrained is not None
    without = [_logits(evidence, model, rows) for model in (evidence.retrained, *evidence.others)]

    def p(scores: Logits) -> Vector:
        found: Vector = np.exp(log_probabilities(scores))[np.arange(len(y)), y]
        return found

    memories = memorisation(p(_logits(evidence, evidence.before, rows)), np.array([p(scores) for scores in without]))
    right = [scores.argmax(1) == y for scores in without]
    return memories, right[0], right[1:]


def _right(evidence: Evidence, model: Known, rows: IntVector, y: IntVector) -> Right:
    return np.asarray(_logits(evidence, model, rows).argmax(1) == y)


def _logits(evidence: Evidence, model: Known, rows: IntVector) -> Logits:
    return logits(evidence.space, flatten(model.weights), "train", rows)
