"""The phases of a run, and how many rounds it will make of each, known before anything starts.

Every method says how many rounds its phases have (config.parts.methods), for estimates of time. A test looks whether
it does.
"""

from __future__ import annotations

from collections.abc import Mapping

from fused_ray.config.settings import Settings

PHASES = ("pretrain", "rank", "saliency", "replay", "unlearn", "retrain")
"""Phases of this package's own methods, in their order."""
OWN = PHASES.index("unlearn")
"""Where phases that a method brings stand among these."""
_TITLES = {"pretrain": "pre-train", "rank": "rank layers", "saliency": "gradients"}

COST: Mapping[str, float] = {"audit": 4.0}
"""A guess of what a round of a phase takes, against a round of pre-training; of what is not said here, the same."""


def phases(config: Settings) -> tuple[str, ...]:
    """The names of all phases that a run's tables may have, in their order."""
    own = [name for name in config.method.phases(config) if name not in PHASES]
    return (*PHASES[:OWN], *own, *PHASES[OWN:])


def title(phase: str) -> str:
    """A phase in words."""
    return _TITLES.get(phase, phase)


def main_phase(sent: Mapping[str, Mapping[str, int]]) -> str:
    """Of the phases of a method's run, the one that makes its model: unlearning, or what sent most lately before it."""
    made = [phase for phase, size in sent.items() if phase != "pretrain" and size["up_total"]]
    return "unlearn" if "unlearn" in made or not made else made[-1]


def rounds(config: Settings) -> dict[str, int]:
    """The rounds of every phase that a run goes through, in its order; phases without any are left out.

    An audit counts as one.
    """
    counts = {
        "pretrain": config.pretrain.rounds if config.pretrain.from_ is None else 0,
        **config.method.phases(config),
        "retrain": config.retrain_rounds,
        "audit": int(config.audit.enabled),
    }
    return {phase: count for phase, count in counts.items() if count}


def anew(config: Settings, retrains: bool) -> int:
    """The rounds of training and forgetting once more, for an audit, with or without retraining."""
    times = int(retrains) + (config.unlearn.method == "retrain")
    again = times * (config.retrain_rounds or config.pretrain.rounds)
    return config.pretrain.rounds + sum(config.method.phases(config).values()) + again


def audit_rounds(config: Settings) -> dict[str, tuple[int, int]]:
    """For each audit that trains anew, how often that is, and the rounds of each time; those not asked for left out."""
    wanted = {"swap": config.audit.swap, "klom": config.audit.klom, "ruli": config.audit.ruli}
    return {name: (times, anew(config, name == "klom")) for name, times in wanted.items() if times}


def cost(config: Settings) -> dict[str, float]:
    """What a round of each phase takes against one of pre-training, as long as none of them has been measured."""
    anew = sum(times * each for times, each in audit_rounds(config).values())
    audit = {"audit": COST["audit"] + config.audit.further_rounds(config) + anew}
    return {**dict.fromkeys(rounds(config), 1.0), **COST, **audit, **config.method.cost}


def on_shared(config: Settings) -> dict[str, int]:
    """The rounds of a sweep's trial: shared models were pre-trained, ranked and retrained before; audits come later."""
    given = {"pretrain", "audit"}
    given |= {"retrain"} if config.unlearn.method != "retrain" else set()
    given |= {"rank"} if config.unlearn.selection_part[0].alone and config.unlearn.retain == 1 else set()
    return {phase: count for phase, count in rounds(config).items() if phase not in given}


def full_rounds(config: Settings, counts: Mapping[str, int] | None = None) -> float:
    """What the rounds of a whole run, or so many of each phase, cost, in rounds of pre-training."""
    each = cost(config)
    return sum(count * each[phase] for phase, count in (rounds(config) if counts is None else counts).items())
