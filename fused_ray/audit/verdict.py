"""The verdict: one word for what the figures say about an unlearning, the worst that holds, and findings beside it.

A retrained model, which never saw the forgotten data, is the standard. *Floor* is how far retrained models differ by
themselves: the standard deviation over three or more of them, else that of guessing on as many examples. Every
sentence gives the figures and the threshold that it rests on. Whoever changes a threshold raises rules.RULES.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from fused_ray.audit.information import Index
from fused_ray.audit.margins import FA_MARGIN, FLOORS
from fused_ray.audit.relearning import Ratio, Relearning, ratio
from fused_ray.core.simulation import VACUOUS_MARGIN, vacuous

Word = Literal["unjudged", "vacuous", "damaged", "not forgotten", "shallow", "forgotten"]
WORDS: tuple[Word, ...] = get_args(Word)
"""Worst first."""

RA_MARGIN = 0.05
"""RA may be this much below the retrained model's before the model counts as damaged."""
RA_NEAR = 0.01
"""RA is level with the retrained model's if it is at most this much below."""
AUC_MARGIN = 0.05
RELEARNING_RATIO = 0.7
"""Retrained models are further apart only rarely; so for the next two (docs/decisions/0010)."""
INDEX = 0.5
RECOVERY_MARGIN = 0.1
"""Head recovery tells only where the model before is further than this above the retrained one, too."""
TRAINED = 0.2
"""A retrained model's RA should be this much above guessing."""
HALF_FORGOTTEN = 0.5
"""Without a retrained model: the share of FA before that may be left."""
BLIND_AUC = 0.5
"""Where so large a difference of AUCs may be chance, none can be told from it."""
HEAD_ONLY = "head only"
"""The finding that nothing below the output layer changed."""
UNDERTRAINED = "undertrained"
"""The finding that the retrained model learned little, so that being like it says little."""


@dataclass(frozen=True)
class Finding:
    """Something that the figures show beside the verdict."""

    name: str
    sentence: str
    """With the figures and the threshold."""


@dataclass(frozen=True)
class Verdict:
    """The word, why in one sentence, and what else there is to say, gravest first."""

    word: Word
    sentence: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the verdict rests on. None: not measured."""

    classes: int
    ra_before: float
    fa_before: float
    ra: float
    fa: float
    ra_retrained: float | None = None
    fa_retrained: float | None = None
    fa_floor: float = 0.0
    """Of FA."""
    auc: float | None = None
    auc_retrained: float | None = None
    auc_floor: float = 0.0
    """Of the membership attack's AUC."""
    membership_possible: bool = True
    """Whether there are test images like the forgotten ones, to tell members from."""
    relearning: Relearning | None = None
    relearning_retrained: Relearning | None = None
    index: Index | None = None
    recovery: float | None = None
    """FA of a new output layer on the model's features."""
    recovery_before: float | None = None
    recovery_retrained: float | None = None
    head_only: bool = False
    """Whether nothing below the output layer changed."""
    restored: bool | None = None
    """Whether taking the unlearning back gave the very bits of the model before; None: it was not promised."""
    trivial: bool = False
    comparable: bool = True
    """Whether all workers compute the same bits."""


def judge(figures: Figures) -> Verdict:
    """The worst that holds, and everything else that holds as findings."""
    holding = [*_conditions(figures)]
    word, sentence = holding[0] if holding else ("forgotten", _forgotten(figures))
    others = [Finding(name, said) for name, said in holding[1:]]
    tests = (
        _against_before,
        _depth,
        _below_retraining,
        _over_forgotten,
        _leaky,
        _trivial,
        _undertrained,
        _proofs,
        _blind,
    )
    return Verdict(word, sentence, (*others, *(finding for test in tests for finding in test(figures))))


def _conditions(f: Figures) -> Iterator[tuple[Word, str]]:
    """Every verdict but the best that holds, worst first."""
    if f.ra_retrained is None or f.fa_retrained is None:
        yield (
            "unjudged",
            f"there is no retrained model to compare with: RA {f.ra:.3f} (before {f.ra_before:.3f}), FA {f.fa:.3f} "
            f"(before {f.fa_before:.3f})",
        )
        return
    if vacuous(f.fa_before, f.fa_retrained):
        young = f"; the model before had learned little (RA {f.ra_before:.3f}): pre-train longer"
        yield (
            "vacuous",
            f"there was nothing to forget: FA before, {f.fa_before:.3f}, is not more than {VACUOUS_MARGIN} above the "
            f"retrained model's {f.fa_retrained:.3f}" + (young if f.ra_before < _enough(f) else ""),
        )
    if f.ra < f.ra_retrained - RA_MARGIN:
        yield (
            "damaged",
            f"what should stay was damaged: RA {f.ra:.3f} is more than {RA_MARGIN} below the retrained model's "
            f"{f.ra_retrained:.3f}",
        )
    margin = max(FA_MARGIN, FLOORS * f.fa_floor)
    if f.fa > f.fa_retrained + margin:
        yield (
            "not forgotten",
            f"it still knows: FA {f.fa:.3f} is more than {margin:.3f} above the retrained model's {f.fa_retrained:.3f}",
        )
    elif reasons := [finding.name for finding in _depth(f)]:
        yield (
            "shallow",
            f"its outputs forgot (FA {f.fa:.3f}, retrained {f.fa_retrained:.3f}), the model did not: "
            + ", ".join(reasons),
        )


def _forgotten(f: Figures) -> str:
    speed = relearning_ratio(f)
    looked = []
    if speed is not None and speed.low >= RELEARNING_RATIO:
        looked.append(f"relearning (ratio {speed})")
    if _recovery_tells(f):
        looked.append(f"head recovery ({f.recovery:.3f}, retrained {f.recovery_retrained:.3f})")
    if f.index is not None and f.index.value is not None:
        looked.append(f"index ({f.index.value:.2f})")
    inside = f"; inside, {', '.join(looked)}: within what retrained models differ by" if looked else ""
    return (
        f"RA {f.ra:.3f} and FA {f.fa:.3f} are at most a margin worse than retraining's "
        f"{f.ra_retrained:.3f} and {f.fa_retrained:.3f}" + (inside or "; of its inside nothing can be told")
    )


def _recovery_tells(f: Figures) -> bool:
    """Whether head recovery sees what the model before knew above the retrained one."""
    if f.recovery is None or f.recovery_before is None or f.recovery_retrained is None:
        return False
    return f.recovery_before > f.recovery_retrained + RECOVERY_MARGIN


def _against_before(f: Figures) -> Iterator[Finding]:
    """What can be said without a retrained model, or with one that learned little."""
    if f.ra_retrained is not None and f.ra_retrained >= _enough(f):
        return
    if f.ra < f.ra_before - RA_MARGIN:
        yield Finding("worse than before", f"RA {f.ra:.3f} is more than {RA_MARGIN} below the {f.ra_before:.3f} before")
    if f.ra_retrained is None and f.fa > HALF_FORGOTTEN * f.fa_before:
        yield Finding("still known", f"FA {f.fa:.3f} is more than {HALF_FORGOTTEN} times the {f.fa_before:.3f} before")


def _depth(f: Figures) -> Iterator[Finding]:
    """What tells that the knowledge is still inside; of no interest where there was none.

    That the output layer alone changed is seen without a retrained model.
    """
    if f.fa_retrained is not None and vacuous(f.fa_before, f.fa_retrained):
        return
    if f.head_only:
        yield Finding(HEAD_ONLY, "nothing below the output layer changed, so whatever the features knew is there still")
    speed = relearning_ratio(f)
    if speed is not None and speed.high < RELEARNING_RATIO:
        assert f.relearning is not None
        assert f.relearning_retrained is not None
        yield Finding(
            "relearns fast",
            f"half of the old FA is back after {f.relearning.in_words} steps, retrained: "
            f"{f.relearning_retrained.in_words}; the ratio is {speed}, less than {RELEARNING_RATIO}",
        )
    if f.index is not None and f.index.value is not None and f.index.value > INDEX:
        yield Finding(
            "known inside",
            f"{f.index.value:.2f} of the information that the features had about it is left (index, 0 as retrained, "
            f"1 as before), more than {INDEX}",
        )
    if not _recovery_tells(f):
        return
    assert f.recovery is not None
    assert f.recovery_retrained is not None
    if f.recovery > f.recovery_retrained + RECOVERY_MARGIN:
        yield Finding(
            "head recovers",
            f"a new output layer on its features has FA {f.recovery:.3f}, on the retrained model's "
            f"{f.recovery_retrained:.3f}: more than {RECOVERY_MARGIN} apart",
        )


def _below_retraining(f: Figures) -> Iterator[Finding]:
    if f.ra_retrained is not None and f.ra_retrained - RA_MARGIN <= f.ra < f.ra_retrained - RA_NEAR:
        yield Finding("below retraining", f"RA {f.ra:.3f} is a little below the retrained model's {f.ra_retrained:.3f}")


def _over_forgotten(f: Figures) -> Iterator[Finding]:
    if f.fa_retrained is not None and f.fa < f.fa_retrained - FA_MARGIN:
        yield Finding(
            "over-forgotten",
            f"FA {f.fa:.3f} is more than {FA_MARGIN} below the retrained model's {f.fa_retrained:.3f}: that marks what "
            "was forgotten",
        )


def _leaky(f: Figures) -> Iterator[Finding]:
    if f.auc is None or f.auc_retrained is None:
        return
    margin = max(AUC_MARGIN, FLOORS * f.auc_floor)
    if abs(f.auc - f.auc_retrained) > margin:
        why = "the forgotten is remembered" if f.auc > f.auc_retrained else "forgetting left a mark"
        yield Finding(
            "leaky",
            f"membership is told with AUC {f.auc:.3f}, more than {margin:.3f} away from the retrained model's "
            f"{f.auc_retrained:.3f}: {why}",
        )


def _trivial(f: Figures) -> Iterator[Finding]:
    if f.trivial:
        yield Finding("trivial", "changing one output bias does as well on RA and FA, so these two show little here")


def _undertrained(f: Figures) -> Iterator[Finding]:
    if f.ra_retrained is not None and f.ra_retrained < _enough(f):
        yield Finding(
            UNDERTRAINED,
            f"the retrained model's RA is {f.ra_retrained:.3f}, below {_enough(f):.3f}: train longer to learn more",
        )


def _enough(f: Figures) -> float:
    """The RA from which on a retrained model has learned something."""
    return 1 / f.classes + TRAINED


def _proofs(f: Figures) -> Iterator[Finding]:
    if f.restored is False:
        yield Finding("not reversible", "taking the unlearning back does not give the bits of the model before")
    if not f.comparable:
        yield Finding("not comparable", "the workers' floating point differs, so the same run may give other bits")


def _blind(f: Figures) -> Iterator[Finding]:
    """Checks that were made and cannot tell."""
    if f.fa_retrained is None or vacuous(f.fa_before, f.fa_retrained):
        return
    if f.relearning is not None and f.relearning_retrained is not None:
        speed = ratio(f.relearning, f.relearning_retrained)
        if speed is None:
            yield Finding(
                "blind",
                f"relearning: the retrained model has more than half of the old FA from the start "
                f"({f.relearning_retrained.curve[0]:.3f}), so its steps say nothing",
            )
        elif speed.low < RELEARNING_RATIO <= speed.high and speed.low != speed.high:
            yield Finding(
                "blind",
                f"relearning: half of the old FA is back after {f.relearning.in_words} steps, retrained: "
                f"{f.relearning_retrained.in_words}; more steps (audit.relearn_steps) would tell which is faster",
            )
    if f.recovery_before is not None and f.recovery_retrained is not None and not _recovery_tells(f):
        yield Finding(
            "blind",
            f"head recovery: on the model before it is {f.recovery_before:.3f}, no more than {RECOVERY_MARGIN} above "
            f"the retrained model's {f.recovery_retrained:.3f}",
        )
    if f.index is not None and not f.index.told:
        yield Finding("blind", f"index: {f.index.why}")
    if not f.membership_possible:
        yield Finding("blind", "membership: no test image is like the forgotten ones")
    elif f.auc is not None and f.auc_retrained is not None and FLOORS * f.auc_floor >= BLIND_AUC:
        yield Finding("blind", "membership: there are too few examples to attack")


def relearning_ratio(f: Figures) -> Ratio | None:
    """Steps to half of the old FA against the retrained model's; None where not measured, or the check is blind."""
    if f.relearning is None or f.relearning_retrained is None:
        return None
    return ratio(f.relearning, f.relearning_retrained)


def recommended(word: str, findings: Collection[str]) -> bool:
    """Whether a sweep may recommend a setting with this verdict and findings of these names."""
    return word == "forgotten" and UNDERTRAINED not in findings
