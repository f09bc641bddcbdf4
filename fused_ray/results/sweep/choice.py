"""Which setting a sweep recommends: the best candidate whose verdict is `forgotten`, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fused_ray.audit.verdict import HEAD_ONLY, recommended
from fused_ray.results.sweep.front import NOTHING, Audited, Candidate, Case


def choose(case: Case, judge: Callable[[Candidate], Audited], most: int) -> Case:
    """Audit a case's candidates, best first and at most so many, until one may be recommended.

    Where a change of one layer turned out to leave everything below the output layer as it was, other changes of that
    layer are passed over: they do, too.
    """
    audited: list[Audited] = []
    hopeless: set[str] = set()
    for number, candidate in enumerate(case.candidates):
        layers = candidate.setting.layers
        if layers in hopeless:
            continue
        if len(audited) == most:
            left = sum(later.setting.layers not in hopeless for later in case.candidates[number:])
            more = f"; {left} more were not audited (audits: at most {most})"
            return replace(case, audited=audited, reason=_none(case, audited) + more)
        found = judge(candidate)
        audited.append(found)
        if recommended(found.verdict):
            reason = f"{case.best} that is {found.verdict}: {candidate.why}; {found.sentence}"
            return replace(case, audited=audited, recommended=found.setting, reason=reason)
        if len(layers.split()) == 1 and any(finding["name"] == HEAD_ONLY for finding in found.findings):
            hopeless.add(layers)
    return replace(case, audited=audited, reason=_none(case, audited)) if audited else case


def unaudited(case: Case) -> Case:
    """Recommend the best candidate without a verdict, where audits are not wanted."""
    if not case.candidates:
        return case
    best = case.candidates[0]
    return replace(case, recommended=best.setting, reason=f"{case.best}, not audited: {best.why}")


def _none(case: Case, audited: Sequence[Audited]) -> str:
    best, first = case.candidates[0], audited[0]
    return (
        f"{NOTHING}: none of {len(audited)} audited candidate(s) is forgotten; the best, {best.setting.title} "
        f"({best.why}), is {first.verdict}: {first.sentence}"
    )
