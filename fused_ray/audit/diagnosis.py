"""The verdict in words: which known failures the figures show, and by which thresholds.

A finding fails the audit, but for `trivial`: that the control does as well says something about the scenario, and
relearning and membership, which the control does not pass, decide. `vacuous` fails: where there was nothing to forget,
nothing has been shown. Without a retrained model the figures before unlearning are the standard, and less can be told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fused_ray.audit import relearning
from fused_ray.audit.relearning import Relearning
from fused_ray.core.simulation import VACUOUS_MARGIN

RA_MARGIN = 0.05
FA_MARGIN = 0.05
AUC_MARGIN = 0.05
RELEARNING_RATIO = 0.9
HALF_FORGOTTEN = 0.5
"""Without a retrained model: the share of FA before that may be left."""
FLAGS = frozenset({"trivial"})
"""Findings that do not fail the audit."""


@dataclass(frozen=True)
class Finding:
    """A failure signature that the figures show."""

    name: str
    sentence: str
    """With the figures and the threshold."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the verdict rests on. None: not measured."""

    ra_before: float
    fa_before: float
    ra: float
    fa: float
    ra_retrained: float | None = None
    fa_retrained: float | None = None
    auc: float | None = None
    auc_retrained: float | None = None
    auc_examples: int = 0
    """Members, and as many non-members, behind each AUC."""
    relearning: Relearning | None = None
    relearning_retrained: Relearning | None = None
    restored: bool | None = None
    """Whether taking the unlearning back gave the very bits of the model before; None: it was not promised."""
    trivial: bool = False


def diagnose(figures: Figures) -> list[Finding]:
    """Every finding, gravest first."""
    tests = (_indiscriminate, _incomplete, _not_reversible, _membership_leaks, _knowledge_leaks, _vacuous, _trivial)
    return [finding for test in tests for finding in test(figures)]


def passed(findings: Sequence[Finding]) -> bool:
    """Whether an audit with these findings is passed."""
    return all(finding.name in FLAGS for finding in findings)


def auc_margin(examples: int) -> float:
    """By how much two AUCs must differ: AUC_MARGIN, or two standard errors of a difference of guesses on few examples.

    The variance of a guessing AUC is (2n + 1) / (12 n^2) with n examples a side (Hanley and McNeil 1982).
    """
    return max(AUC_MARGIN, 2 * math.sqrt(2 * (2 * examples + 1) / 12) / examples)


def _indiscriminate(f: Figures) -> Iterator[Finding]:
    standard = f.ra_before if f.ra_retrained is None else min(f.ra_before, f.ra_retrained)
    if f.ra < standard - RA_MARGIN:
        retrained = "" if f.ra_retrained is None else f" and the retrained model's {f.ra_retrained:.3f}"
        yield Finding(
            "indiscriminate unlearning",
            f"RA is {f.ra:.3f}, more than {RA_MARGIN} below the {f.ra_before:.3f} before{retrained}: "
            "what should stay was damaged",
        )


def _incomplete(f: Figures) -> Iterator[Finding]:
    if f.fa_retrained is not None:
        if f.fa > f.fa_retrained + FA_MARGIN:
            yield Finding(
                "incomplete forgetting",
                f"FA is {f.fa:.3f}, more than {FA_MARGIN} above the retrained model's {f.fa_retrained:.3f}",
            )
    elif f.fa > HALF_FORGOTTEN * f.fa_before:
        yield Finding(
            "incomplete forgetting", f"FA is {f.fa:.3f}, more than {HALF_FORGOTTEN} times the {f.fa_before:.3f} before"
        )


def _not_reversible(f: Figures) -> Iterator[Finding]:
    if f.restored is False:
        yield Finding(
            "not reversible", "the hash of the restored model is not that of the model before, as the method promises"
        )


def _membership_leaks(f: Figures) -> Iterator[Finding]:
    if f.auc is None or f.auc_retrained is None:
        return
    margin = auc_margin(f.auc_examples)
    if abs(f.auc - f.auc_retrained) > margin:
        why = "the forgotten is remembered" if f.auc > f.auc_retrained else "forgetting left a mark"
        yield Finding(
            "leaky",
            f"membership is told with AUC {f.auc:.3f}, more than {margin:.3f} away from the retrained model's "
            f"{f.auc_retrained:.3f}: {why}",
        )


def _knowledge_leaks(f: Figures) -> Iterator[Finding]:
    if f.relearning is None or f.relearning_retrained is None:
        return
    ratio = relearning.ratio(f.relearning, f.relearning_retrained)
    if ratio is not None and ratio < RELEARNING_RATIO:
        yield Finding(
            "leaky",
            f"half of the old FA is relearned after {_steps(f.relearning)} steps, the retrained model takes "
            f"{_steps(f.relearning_retrained)}: less than {RELEARNING_RATIO} times as many",
        )


def _vacuous(f: Figures) -> Iterator[Finding]:
    if f.fa_retrained is not None and f.fa_before - f.fa_retrained <= VACUOUS_MARGIN:
        yield Finding(
            "vacuous",
            f"there was nothing to forget: FA before, {f.fa_before:.3f}, is not more than {VACUOUS_MARGIN} above the "
            f"retrained model's {f.fa_retrained:.3f}",
        )


def _trivial(f: Figures) -> Iterator[Finding]:
    if f.trivial:
        yield Finding("trivial", "changing one output bias does as well on FA and RA; judge by relearning and MIA")


def _steps(found: Relearning) -> str:
    return f"more than {len(found.curve) - 1}" if found.steps is None else f"{found.steps:.1f}"
