"""Which setting a sweep recommends: the best candidate whose verdict is `forgotten`, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fused_ray.audit.verdict import HEAD_ONLY, UNDERTRAINED, recommended
from fused_ray.studies.sweeps.front import NOTHING, Audited, Candidate, Case


def choose(case: Case, judge: Callable[[Candidate], Audited], most: int) -> Case:
    """Audit a case's candidates, best first and at most so many, until one may be recommended.

    What an earlier verdict rules out is passed over: other changes of one layer that turned out to be the output layer,
    and other candidates on models that had nothing to forget.
    """
    audited: list[Audited] = []
    heads: set[str] = set()
    vacuous: set[tuple[int, ...]] = set()

    def left(candidates: Sequence[Candidate]) -> list[Candidate]:
        settings = ((each, each.setting) for each in candidates)
        return [each for each, setting in settings if setting.layers not in heads and setting.seeds not in vacuous]

    waiting = left(case.candidates)
    while waiting and len(audited) < most:
        candidate, layers = waiting[0], waiting[0].setting.layers
        judged = judge(candidate)
        audited.append(judged)
        if recommended(judged.verdict, [finding["name"] for finding in judged.findings]):
            reason = f"{case.best} that is {judged.verdict}: {candidate.why}; {judged.sentence}"
            return replace(case, audited=audited, recommended=judged.setting, reason=reason)
        if len(layers.split()) == 1 and any(finding["name"] == HEAD_ONLY for finding in judged.findings):
            heads.add(layers)
        if judged.verdict == "vacuous":
            vacuous.add(judged.setting.seeds)
        waiting = left(waiting[1:])
    if not audited:
        return case
    more = f"; {len(waiting)} more were not audited (audits: at most {most})" if waiting else ""
    return replace(case, audited=audited, reason=_none(case, audited) + more)


def unaudited(case: Case) -> Case:
    """Recommend the best candidate without a verdict, where audits are not wanted."""
    if not case.candidates:
        return case
    best = case.candidates[0]
    return replace(case, recommended=best.setting, reason=f"{case.best}, not audited: {best.why}")


def _none(case: Case, audited: Sequence[Audited]) -> str:
    best, first = case.candidates[0], audited[0]
    among = f"{NOTHING}: of {len(audited)} audited candidate(s) none is forgotten"
    for each in audited:
        if each.verdict == "forgotten":  # and yet not recommended
            learned = next(finding["sentence"] for finding in each.findings if finding["name"] == UNDERTRAINED)
            among = f"{NOTHING}: {each.setting.title} is forgotten as a model that learned little says ({learned})"
    return f"{among}; the best, {best.setting.title} ({best.why}), is {first.verdict}: {first.sentence}"
