"""The one-number control: what no method at all achieves, by changing the output layer's bias.

On outputs, forgetting a whole class is trivial: its logit is lowered, which takes one number. So every result stands
beside this control, and one that the control matches is called trivial; relearning and membership then decide.
Where the same inputs are both remembered and forgotten (`client`), no bias helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fused_ray.core.state import Arrays
from fused_ray.core.workspace import Workspace

SHIFT = 10.0
"""How much the control takes off a forgotten class's logit."""
MATCH = 0.02
"""The control does as well as a method if FA is at most this much above, and RA at most this much below it."""
FORGOT = 0.05
"""A method has forgotten something if its FA is more than this below FA before."""


def output_bias(state: Iterable[str], layers: Sequence[str]) -> str:
    """The name of the output layer's bias: of the last of `layers` (in the model's order) that has one."""
    names = set(state)
    return next(f"{layer}.bias" for layer in reversed(layers) if f"{layer}.bias" in names)


def control(space: Workspace, before: Arrays, layers: Sequence[str]) -> Arrays:
    """The control of a scenario: M_r with another output bias.

    SHIFT less for every label that counts as right in the view `fa`, where these are few: the forgotten classes, the
    class that the owner alone held, the trigger's target. In `client`, and in `sample` without a trigger, they are
    all, and the bias is zeroed.
    """
    name = output_bias(before, layers)
    bias = np.array(before[name], np.float32)
    if space.config.forget.scenario in ("class", "exclusive") or space.scenario.trigger:
        bias[np.unique(space.scenario.views["fa"].labels)] -= SHIFT
    else:
        bias[:] = 0
    return {**before, name: bias}


def is_trivial(fa_before: float, fa: float, ra: float, fa_control: float, ra_control: float) -> bool:
    """Whether a method forgot something that the control forgets as well, at no greater loss."""
    return fa < fa_before - FORGOT and fa_control <= fa + MATCH and ra_control >= ra - MATCH
