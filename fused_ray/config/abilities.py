"""What must hold between a method and what is asked of it: its scenario, how much it uses, its rounds."""

from __future__ import annotations

from fused_ray.config.parts.methods import WHOLE_CLIENTS
from fused_ray.config.settings import Settings
from fused_ray.errors import in_one_line


def check_method(config: Settings) -> None:
    """Raises ValueError where the method cannot do what is asked of it."""
    method, scenario = config.unlearn.method, config.forget.scenario
    able = config.method.scenarios
    if config.kind not in able:
        of_kind = "" if config.kind == scenario else f", which is like {config.kind!r}"
        raise ValueError(
            f"unlearn.method: {method} {'forgets whole clients and ' if able == WHOLE_CLIENTS else ''}cannot do the "
            f"scenario {scenario!r}{of_kind}; it can do {', '.join(able)}"
            + (f": {config.method.reason}" if config.method.reason else "")
        )
    if config.unlearn.retain < 1 and not config.method.little:
        raise ValueError(f"unlearn.retain: {method} makes no use of a part of what stays; leave it at 1")
    if method == "retrain" and config.retrain_rounds == 0:
        raise ValueError("retrain.rounds: the method retrain needs at least 1")
    _phases(config)


def _phases(config: Settings) -> None:
    """What a method says of its rounds is asked for in many places later, which rely on it."""
    name = config.unlearn.method
    try:
        counts = dict(config.method.phases(config))
    except Exception as error:  # it may be another package's
        raise ValueError(f"unlearn.method: {name} cannot tell its phases: {in_one_line(error)}") from None
    for phase, count in counts.items():
        if not isinstance(phase, str) or type(count) is not int or count < 0:
            raise ValueError(
                f"unlearn.method: {name} says that its phase {phase!r} has {count!r} rounds; its `phases` must map "
                "names to whole numbers from 0"
            )
