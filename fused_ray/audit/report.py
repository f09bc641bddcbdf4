"""The audit of one unlearning: all figures, the verdict and findings, as plain values for JSON.

Whoever changes what is measured raises rules.RULES.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fused_ray.audit import oracles, relearning, verdict
from fused_ray.audit.accuracy import client_accuracies
from fused_ray.audit.control import is_trivial
from fused_ray.audit.distance import Distance
from fused_ray.audit.evidence import NO_MEANS, Means, measured
from fused_ray.audit.information import Index, Information, inapplicable
from fused_ray.audit.membership import Membership
from fused_ray.audit.relearning import Ratio, Relearning
from fused_ray.audit.verdict import Figures
from fused_ray.audit.yardstick import Seen, Yardstick
from fused_ray.config import AuditConfig
from fused_ray.config.parts.metrics import Metric
from fused_ray.core.adapter import Masks
from fused_ray.core.standard import standard
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
    before: Mapping[str, float] | None = None
    """`ra` and `fa` of the model that the method forgot from, where that is one of its own (exactfun); None: M_r's."""
    masks: Masks | None = None
    """The coordinates of its adapter if that is a sparse one: gradient opposition is measured there too."""
    restored: Restored | None = None
    """None where the method does not promise to be reversible."""
    comparable: bool = True
    """Whether all workers compute the same bits."""
    metrics: Sequence[Metric] = ()
    """Further figures to take, which change no verdict."""
    means: Means = NO_MEANS
    """What these may use."""
    settings: AuditConfig = field(default_factory=AuditConfig)
    """How often all was trained anew, for what `oracles` keep."""
    oracles: oracles.Kept = field(default_factory=dict)


def audit(subject: Subject) -> dict[str, Any]:
    """Everything that is to be said about an unlearning. The same subject gives the same report.

    Raises NumericsError where a model's outputs are not finite.
    """
    with standard():
        report = _report(subject)
    plain: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return plain


def _report(subject: Subject) -> dict[str, Any]:
    yardstick = subject.yardstick
    after = yardstick.see(subject.after)
    relearned = yardstick.relearn(subject.after)
    membership = yardstick.attack(subject.after)
    recovery = yardstick.recover(subject.after)
    inside = yardstick.index(subject.after)
    figures = _figures(subject, after, relearned, membership, recovery.accuracy, inside and inside[0])
    judged = verdict.judge(figures)
    found = oracles.concluded(yardstick, subject.after, subject.settings, subject.oracles)
    further = measured(subject.metrics, yardstick, subject.after, after, subject.means)
    further["audit_metrics"] += [
        {"name": n, "value": v, "better": "none", "meaning": oracles.MEANINGS[n]}
        for n, v in oracles.figures(found).items()
    ]
    return {
        "method": subject.method,
        "scenario": yardstick.space.config.forget.scenario,
        "fa_is_asr": yardstick.space.scenario.trigger > 0,
        "verdict": judged.word,
        "sentence": judged.sentence,
        "findings": [asdict(finding) for finding in judged.findings],
        "accuracy": {
            "before": _accuracy(yardstick.seen_before),
            "after": _accuracy(after),
            "retrained": _accuracy(yardstick.seen_retrained),
            "control": _accuracy(yardstick.seen_control),
            "fa_floor": yardstick.fa_floor,
        },
        "worst_client_ra": {
            "before": _worst(yardstick, yardstick.seen_before),
            "after": _worst(yardstick, after),
            "retrained": _worst(yardstick, yardstick.seen_retrained),
        },
        "relearning": _relearning(subject, relearned),
        "head_recovery": {
            "before": asdict(yardstick.recovery_before),
            "after": asdict(recovery),
            "retrained": yardstick.recovery_retrained and asdict(yardstick.recovery_retrained),
        },
        "index": _index(yardstick, inside) if yardstick.probes else None,
        "membership": _membership(membership, yardstick),
        "distance": _distance(yardstick.distances(after), yardstick.floor),
        "opposition": _opposition(subject),
        "head_only": figures.head_only,
        "restored": figures.restored,
        "trivial": figures.trivial,
        **asdict(found),
        **further,
    }


def _figures(
    subject: Subject,
    after: Seen,
    relearned: Relearning,
    membership: Membership | None,
    recovery: float,
    index: Index | None,
) -> Figures:
    yardstick, restored = subject.yardstick, subject.restored
    control, retrained = yardstick.seen_control, yardstick.seen_retrained
    before = subject.before or {view: _weighted(yardstick.seen_before, view) for view in ("ra", "fa")}
    standard, recovered = yardstick.membership_retrained, yardstick.recovery_retrained
    fa, ra = _weighted(after, "fa"), _weighted(after, "ra")
    return Figures(
        classes=yardstick.space.data.classes,
        ra_before=before["ra"],
        fa_before=before["fa"],
        ra=ra,
        fa=fa,
        ra_retrained=None if retrained is None else _weighted(retrained, "ra"),
        fa_retrained=None if retrained is None else _weighted(retrained, "fa"),
        fa_floor=yardstick.fa_floor,
        auc=None if membership is None else membership.strongest.auc,
        auc_retrained=None if standard is None else standard.strongest.auc,
        auc_floor=yardstick.auc_floor,
        relearning=relearned,
        relearning_retrained=yardstick.relearning_retrained,
        index=index,
        recovery=recovery,
        recovery_before=yardstick.recovery_before.accuracy,
        recovery_retrained=None if recovered is None else recovered.accuracy,
        head_only=yardstick.changed_head_alone(subject.after),
        restored=None if restored is None else restored.expected == restored.found,
        trivial=is_trivial(before["fa"], fa, ra, _weighted(control, "fa"), _weighted(control, "ra")),
        membership_possible=membership is not None,
        comparable=subject.comparable,
    )


def _weighted(seen: Seen, view: str) -> float:
    return seen.accuracy[view].weighted


def _accuracy(seen: Seen | None) -> dict[str, Any] | None:
    return None if seen is None else {view: asdict(accuracy) for view, accuracy in seen.accuracy.items()}


def _worst(yardstick: Yardstick, seen: Seen | None) -> float | None:
    """RA of the client that is served worst; None where there is no model, or nobody that has one."""
    if seen is None:
        return None
    found = client_accuracies(yardstick.space.data, yardstick.space.scenario, seen.outputs.argmax(1))
    return min(found.values(), default=None)


def _relearning(subject: Subject, relearned: Relearning) -> dict[str, Any]:
    yardstick, retrained = subject.yardstick, subject.yardstick.relearning_retrained
    ratio = None if retrained is None else relearning.ratio(relearned, retrained)
    return {
        "after": asdict(relearned),
        "retrained": None if retrained is None else asdict(retrained),
        "shuffled": asdict(yardstick.relearn(subject.after, shuffled=True)) if yardstick.probes else None,
        "ratio": ratio and _ratio(ratio),
    }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    """Bounds as they are, None for one that there is not, and how to write them."""
    return {"low": ratio.low, "high": None if math.isinf(ratio.high) else ratio.high, "text": str(ratio)}


def _index(yardstick: Yardstick, inside: tuple[Index, Information] | None) -> dict[str, Any]:
    """The index and what it comes from; where it does not apply, why."""
    if inside is None:
        why = inapplicable(yardstick.space) or "cannot be told: there is no retrained model"
        return {"value": None, "told": False, "why": why}
    figures, after = inside
    before, retrained = yardstick.information_before, yardstick.information_retrained
    return {
        **asdict(figures),
        "before": before and asdict(before),
        "after": asdict(after),
        "retrained": [asdict(each) for each in retrained],
    }


def _membership(after: Membership | None, yardstick: Yardstick) -> dict[str, Any] | None:
    """The attacks on both models, and how far apart their AUCs are, either way."""
    if after is None:
        return None
    retrained = yardstick.membership_retrained
    gaps = {}
    for name in ATTACKS:
        ours, standard = getattr(after, name), getattr(retrained, name, None)
        gaps[name] = None if ours is None or standard is None else abs(ours.auc - standard.auc)
    return {
        "after": asdict(after),
        "retrained": None if retrained is None else asdict(retrained),
        "gap": gaps,
        "auc_floor": yardstick.auc_floor,
    }


def _opposition(subject: Subject) -> dict[str, Any] | None:
    yardstick = subject.yardstick
    if not yardstick.probes:
        return None
    return {
        "everywhere": asdict(yardstick.opposition_everywhere),
        "adapter": None if subject.masks is None else asdict(yardstick.opposition(subject.masks)),
    }


def _distance(after: dict[str, Distance] | None, floor: dict[str, Distance] | None) -> dict[str, Any] | None:
    """Distances to the retrained model, the floor, and the Jensen-Shannon divergence in units of the floor's."""
    if after is None:
        return None
    return {
        **{name: asdict(distance) for name, distance in after.items()},
        "floor": None if floor is None else {name: asdict(distance) for name, distance in floor.items()},
        "ratio": None if floor is None else {n: after[n].js / floor[n].js if floor[n].js else None for n in after},
    }
