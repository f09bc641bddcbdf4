"""How many rounds a run will make of each phase, known before anything starts.

Every method says how many rounds its phases have (config.methods), for estimates of time. A test looks whether it does.
"""

from __future__ import annotations

from collections.abc import Mapping

from fused_ray.config.settings import Settings

COST: Mapping[str, float] = {"audit": 4.0}
"""A guess of what a round of a phase takes, against a round of pre-training; of what is not said here, the same."""


def rounds(config: Settings) -> dict[str, int]:
    """The rounds of every phase that a run goes through, in its order; phases without any are left out.

    An audit counts as one.
    """
    found = {
        "pretrain": config.pretrain.rounds if config.pretrain.from_ is None else 0,
        **config.method.phases(config),
        "retrain": config.retrain_rounds,
        "audit": int(config.audit.enabled),
    }
    return {phase: count for phase, count in found.items() if count}


def cost(config: Settings) -> dict[str, float]:
    """What a round of each phase takes against one of pre-training, as long as none of them has been measured."""
    return {**dict.fromkeys(rounds(config), 1.0), **COST, **config.method.cost}


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
