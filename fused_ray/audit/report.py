"""The audit of one unlearning: all figures, findings and the verdict, as plain values for JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from fused_ray.audit import relearning
from fused_ray.audit.control import is_trivial
from fused_ray.audit.diagnosis import Figures, diagnose, passed
from fused_ray.audit.distance import Distance
from fused_ray.audit.membership import Attack, Membership
from fused_ray.audit.relearning import Relearning
from fused_ray.audit.yardstick import Seen, Yardstick
from fused_ray.core.adapter import Masks
from fused_ray.core.rounds import one_thread
from fused_ray.core.state import Arrays

ATTACKS = ("loss", "shadow", "gaussian")


@dataclass(frozen=True)
class Restored:
    """Hashes of M_r and of the model that is left when the unlearning is taken back."""

    expected: str
    found: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One unlearning."""

    yardstick: Yardstick
    method: str
    after: Arrays
    """M_f."""
    masks: Masks | None = None
    """The coordinates of its adapter if that is a sparse one: gradient opposition is measured there too."""
    restored: Restored | None = None
    """None where the method does not promise to be reversible."""


def audit(subject: Subject) -> dict[str, Any]:
    """Everything that is to be said about an unlearning. The same subject gives the same report.

    Raises NumericsError where a model's outputs are not finite.
    """
    with one_thread():
        report = _report(subject)
    plain: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return plain


def _report(subject: Subject) -> dict[str, Any]:
    yardstick = subject.yardstick
    after = yardstick.see(subject.after)
    relearned = yardstick.relearn(subject.after)
    membership = yardstick.attack(subject.after)
    figures = _figures(subject, after, relearned, membership)
    findings = diagnose(figures)
    return {
        "method": subject.method,
        "scenario": yardstick.space.config.forget.scenario,
        "fa_is_asr": yardstick.space.scenario.trigger > 0,
        "accuracy": {
            "before": _accuracy(yardstick.seen_before),
            "after": _accuracy(after),
            "retrained": _accuracy(yardstick.seen_retrained),
            "control": _accuracy(yardstick.seen_control),
        },
        "relearning": _relearning(subject, relearned),
        "membership": _membership(membership, yardstick.membership_retrained),
        "distance": _distance(yardstick.distances(after), yardstick.floor),
        "opposition": {
            "everywhere": asdict(yardstick.opposition_everywhere),
            "adapter": None if subject.masks is None else asdict(yardstick.opposition(subject.masks)),
        },
        "restored": figures.restored,
        "trivial": figures.trivial,
        "findings": [asdict(finding) for finding in findings],
        "passed": passed(findings),
    }


def _figures(subject: Subject, after: Seen, relearned: Relearning, membership: Membership) -> Figures:
    yardstick, restored = subject.yardstick, subject.restored
    before, control, retrained = yardstick.seen_before, yardstick.seen_control, yardstick.seen_retrained
    standard = yardstick.membership_retrained
    fa, ra = _weighted(after, "fa"), _weighted(after, "ra")
    return Figures(
        ra_before=_weighted(before, "ra"),
        fa_before=_weighted(before, "fa"),
        ra=ra,
        fa=fa,
        ra_retrained=None if retrained is None else _weighted(retrained, "ra"),
        fa_retrained=None if retrained is None else _weighted(retrained, "fa"),
        auc=_strongest(membership).auc,
        auc_retrained=None if standard is None else _strongest(standard).auc,
        auc_examples=membership.examples,
        relearning=relearned,
        relearning_retrained=yardstick.relearning_retrained,
        restored=None if restored is None else restored.expected == restored.found,
        trivial=is_trivial(_weighted(before, "fa"), fa, ra, _weighted(control, "fa"), _weighted(control, "ra")),
    )


def _weighted(seen: Seen, view: str) -> float:
    return seen.accuracy[view].weighted


def _strongest(membership: Membership) -> Attack:
    """The attack that the verdict rests on: with shadow models if there are any."""
    return membership.shadow or membership.loss


def _accuracy(seen: Seen | None) -> dict[str, Any] | None:
    return None if seen is None else {view: asdict(found) for view, found in seen.accuracy.items()}


def _relearning(subject: Subject, relearned: Relearning) -> dict[str, Any]:
    retrained = subject.yardstick.relearning_retrained
    return {
        "after": asdict(relearned),
        "retrained": None if retrained is None else asdict(retrained),
        "shuffled": asdict(subject.yardstick.relearn(subject.after, shuffled=True)),
        "ratio": None if retrained is None else relearning.ratio(relearned, retrained),
    }


def _membership(after: Membership, retrained: Membership | None) -> dict[str, Any]:
    """The attacks on both models, and how far apart their AUCs are, either way."""
    gaps = {}
    for name in ATTACKS:
        found, standard = getattr(after, name), getattr(retrained, name, None)
        gaps[name] = None if found is None or standard is None else abs(found.auc - standard.auc)
    return {"after": asdict(after), "retrained": None if retrained is None else asdict(retrained), "gap": gaps}


def _distance(after: dict[str, Distance] | None, floor: dict[str, Distance] | None) -> dict[str, Any] | None:
    """Distances to the retrained model, the floor, and the Jensen-Shannon divergence in units of the floor's."""
    if after is None:
        return None
    return {
        **{name: asdict(found) for name, found in after.items()},
        "floor": None if floor is None else {name: asdict(found) for name, found in floor.items()},
        "ratio": None if floor is None else {n: after[n].js / floor[n].js if floor[n].js else None for n in after},
    }
