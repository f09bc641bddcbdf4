"""Quantised: whether rounding the merged weights brings back what was forgotten (arXiv 2410.16454).

A change smaller than half a step of the rounding is rounded away, so that the rounded M_f has M_r's weight there. The
weights are those of M_r + A_f together: rounded apart, an adapter would keep its values and show nothing.

To nearest, half to even, symmetric. int8: a step of max|W| / 127 per tensor; int4: max|row| / 7 per output row, codes
from -8 to 7. Tensors of two axes and more are rounded; biases, norms and buffers stay, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fused_ray.audit.evidence import Evidence, Known
from fused_ray.audit.margins import FA_MARGIN
from fused_ray.config.parts.metrics import Answer
from fused_ray.core.state import Arrays

Bits = Literal[8, 4]
ALL_BITS: tuple[Bits, ...] = (8, 4)
RA_LOST = 0.02
"""A model that loses more of RA by the rounding is broken, and what it then says of D_u means nothing."""
Word = Literal["held", "recovered", "broken", "cannot tell"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rounded:
    """A model's accuracies once it is rounded, and how much FA rose by that."""

    ra: float
    fa: float
    ra_lost: float
    fa_rise: float


def measure(evidence: Evidence) -> Answer:
    """Of Q(M_f), beside Q(M_r), Q(retrained) and, as the control, another retrained model's."""
    words: dict[str, Word] = {}
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    said = []
    for bits in ALL_BITS:
        after, width = rounded(evidence, evidence.after, bits), f"int{bits}"
        before, retrained, others = evidence.remembered(width, partial(_standard, evidence, bits))
        standards = [retrained, *others] if retrained else []
        words[width] = word(after, standards)
        share = rounded_back(evidence.after.weights, evidence.before.weights, bits)
        details[width] = {
            "word": words[width],
            "after": asdict(after),
            "before": asdict(before),
            "retrained": retrained and asdict(retrained),
            "others": [asdict(other) for other in others],
            "others_words": [word(other, standards[:1]) for other in others],
            "rounded_back": share,
        }
        figures |= {f"{width}_fa": after.fa, f"{width}_ra": after.ra, f"{width}_fa_rise": after.fa_rise}
        figures |= {} if share is None else {f"{width}_rounded_back": share}
        said.append(_sentence(width, words[width], after, retrained, share))
    return Answer(figures, _passes(words), "; ".join(said), details)


def _standard(evidence: Evidence, bits: Bits) -> tuple[Rounded, Rounded | None, list[Rounded]]:
    """The same of M_r, of the retrained model, and of other retrained ones."""
    retrained = None if evidence.retrained is None else rounded(evidence, evidence.retrained, bits)
    others = [rounded(evidence, other, bits) for other in evidence.others]
    return rounded(evidence, evidence.before, bits), retrained, others


def word(after: Rounded, retrained: Sequence[Rounded]) -> Word:
    """What a rounding did: `recovered` is what was forgotten where no retrained model gains anything by it."""
    if after.ra_lost > RA_LOST:
        return "broken"
    if after.fa_rise <= FA_MARGIN:
        return "held"
    rises = [each.fa_rise for each in retrained]
    return "recovered" if rises and max(rises) <= FA_MARGIN else "cannot tell"


def rounded(evidence: Evidence, model: Known, bits: Bits) -> Rounded:
    """A model's accuracies with rounded weights."""
    as_it_is = evidence.accuracy(model)
    then = evidence.accuracy(evidence.known(quantised(model.weights, bits)))
    return Rounded(then["ra"], then["fa"], as_it_is["ra"] - then["ra"], then["fa"] - as_it_is["fa"])


def quantised(weights: Arrays, bits: Bits) -> Arrays:
    """A model with rounded weights."""
    result = dict(weights)
    for name in _names(weights):
        whole, step = codes(weights[name], bits)
        result[name] = (whole * step).astype(weights[name].dtype)
    return result


def codes(weight: NDArray[Any], bits: Bits) -> tuple[Floats, Floats]:
    """Whole numbers of a weight's shape, and the step that each counts."""
    exact = weight.astype(np.float64)
    axes = None if bits == 8 else tuple(range(1, weight.ndim))
    step = np.abs(exact).max(axes, keepdims=True) / (127 if bits == 8 else 7)
    whole = np.rint(exact / np.where(step > 0, step, 1.0)).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return whole, step


def rounded_back(after: Arrays, before: Arrays, bits: Bits) -> float | None:
    """Of the weights that unlearning changed, the share that has M_r's code; None where it changed none."""
    changed = same = 0
    for name in _names(after):
        moved = after[name] != before[name]
        changed += int(moved.sum())
        same += int((moved & (codes(after[name], bits)[0] == codes(before[name], bits)[0])).sum())
    return same / changed if changed else None


def _names(weights: Arrays) -> list[str]:
    """Of what is rounded."""
    return [name for name, w in weights.items() if w.ndim > 1 and w.size and np.issubdtype(w.dtype, np.floating)]


def _passes(words: dict[str, Word]) -> bool | None:
    found = set(words.values())
    return False if "recovered" in found else True if "held" in found else None


def _sentence(width: str, found: Word, after: Rounded, retrained: Rounded | None, share: float | None) -> str:
    than = "" if retrained is None else f" (the retrained model's {retrained.fa_rise:+.3f})"
    back = "" if share is None else f", {share:.0%} of the changed weights have M_r's code"
    if found == "broken":
        return f"{width} broken: RA lost {after.ra_lost:.3f}, more than {RA_LOST}{back}"
    return f"{width} {found}: FA {after.fa_rise:+.3f}{than} to {after.fa:.3f}, RA {-after.ra_lost:+.3f}{back}"
