"""How many rounds a run will make of each phase, known before anything starts.

Every method's file says what its phases do; here they are counted, for estimates of time. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

from fused_ray.config.settings import Settings

COST: Mapping[str, float] = {
    "pretrain": 1.0,
    "rank": 1.0,
    "saliency": 0.5,
    "replay": 1.0,
    "unlearn": 1.0,
    "retrain": 1.0,
    "audit": 4.0,
}
"""A guess of what a round of each phase takes, against a round of pre-training."""
ADAPTER_COST = 0.3
"""The same of a round of an adapter above frozen layers."""


def rounds(config: Settings) -> dict[str, int]:
    """The rounds of every phase that a run goes through, in its order; phases without any are left out.

    An audit counts as one.
    """
    found = {
        "pretrain": config.pretrain.rounds if config.pretrain.from_ is None else 0,
        **_of_method(config),
        "retrain": config.retrain_rounds,
        "audit": int(config.audit.enabled),
    }
    return {phase: count for phase, count in found.items() if count}


def cost(config: Settings) -> dict[str, float]:
    """What a round of each phase takes against one of pre-training, as long as none of them has been measured."""
    return {**COST, "unlearn": ADAPTER_COST if config.unlearn.method == "fused" else COST["unlearn"]}


def on_shared(config: Settings) -> dict[str, int]:
    """The rounds of a sweep's trial: shared models were pre-trained, ranked and retrained before; audits come later."""
    given = {"pretrain", "audit"}
    given |= {"retrain"} if config.unlearn.method != "retrain" else set()
    given |= {"rank"} if config.unlearn.selection == "critical" else set()
    return {phase: count for phase, count in rounds(config).items() if phase not in given}


def full_rounds(config: Settings, found: Mapping[str, int] | None = None) -> float:
    """What the rounds of a whole run, or those found, cost, in rounds of pre-training."""
    each = cost(config)
    return sum(count * each[phase] for phase, count in (rounds(config) if found is None else found).items())


def _of_method(config: Settings) -> dict[str, int]:
    unlearn, stored = config.unlearn, len(range(1, config.pretrain.rounds + 1, config.federaser.interval))
    match unlearn.method:
        case "fused":
            ranks = isinstance(unlearn.layers, int) and unlearn.selection in ("critical", "budget")
            gradients = 2 if unlearn.saliency == "difference" else 1
            salient = config.adapter_mask == "saliency"
            return {"rank": int(ranks), "saliency": gradients * salient, "unlearn": unlearn.rounds}
        case "retrain":
            return {}
        case "federaser":
            return {"replay": stored, "unlearn": stored - 1}
        case "eraseclient":
            return {"replay": 1, "unlearn": 1 + unlearn.rounds}
        case "exactfun":
            return {"replay": config.exactfun_rounds, "unlearn": config.exactfun_rounds}
        case "puf":
            return {"unlearn": 1 + unlearn.rounds}
        case _:
            return {"unlearn": unlearn.rounds}
