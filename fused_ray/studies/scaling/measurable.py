"""What a scaling study can measure, told before anything runs. Each function raises ConfigError: key, why, what to do.

The cost model knows rounds of one kind, in which every client takes part and only sums travel.
"""

from __future__ import annotations

from fused_ray.config import RunConfig
from fused_ray.config.parts.methods import WHOLE_CLIENTS, Method
from fused_ray.errors import ConfigError

_INSTEAD = "measure fused, finetune, not or fedquit, or phase=pretrain"


def check_method(name: str, method: Method, warmup: int) -> None:
    """Whether rounds of a method's unlearning can be measured."""
    if method.rounds != "unlearn.rounds":
        raise ConfigError(f"phase: unlearn cannot measure {name}, whose rounds are not unlearn.rounds; {_INSTEAD}")
    if method.every_update:
        raise ConfigError(
            f"phase: unlearn cannot measure {name}, to whose server single updates travel, which the cost model does "
            f"not count; {_INSTEAD}"
        )
    if warmup < method.first:
        raise ConfigError(
            f"warmup: the first {method.first} round(s) of {name} are of another kind than those that count; raise "
            f"warmup to at least {method.first}"
        )


def check_run(config: RunConfig, phase: str, rounds: int) -> None:
    """Whether a run's rounds of a phase, of which so many are needed, can be measured."""
    if config.federation.aggregate != "mean":
        raise ConfigError(
            f"base.federation.aggregate: with {config.federation.aggregate} single updates travel, which the cost "
            "model does not count; leave it at mean"
        )
    if config.deployment.decides:
        raise ConfigError(
            "base.deployment.participation: with available not everybody takes part in a round; leave it at everybody"
        )
    if phase == "pretrain":
        return
    if config.kind in WHOLE_CLIENTS:
        raise ConfigError(
            f"phase: unlearn cannot measure the scenario {config.forget.scenario!r}, whose clients take no part any "
            "more; forget a class or samples (base.forget.scenario), or measure phase=pretrain"
        )
    if config.unlearn.wire == "int8":
        raise ConfigError(
            "base.unlearn.wire: with int8 what each client kept back travels, too, which the cost model does not "
            "count; take float32 or another one"
        )
    if (there := config.method.phases(config).get("unlearn", 0)) < rounds:
        raise ConfigError(
            f"phase: unlearn needs {rounds} rounds (warmup, rounds, and one that ends the last), but "
            f"{config.unlearn.method} has {there}; {_INSTEAD}"
        )
