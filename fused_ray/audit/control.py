"""The one-number control: what no method at all achieves, by changing the output layer's bias.

On outputs, forgetting a whole class is trivial: its logit is lowered, which takes one number. So every result stands
beside this control, and one that the control matches is called trivial; relearning and membership then decide.
Where the same inputs are both remembered and forgotten (`client`), no bias helps.
"""

from __future__ import annotations

import numpy as np

from fused_ray.audit.outputs import Logits
from fused_ray.core.state import Arrays
from fused_ray.core.workspace import Workspace
from fused_ray.types import FloatVector

SHIFT = 10.0
"""How much the control takes off a forgotten class's logit."""
MATCH = 0.02
"""The control does as well as a method if FA is at most this much above, and RA at most this much below it."""
FORGOT = 0.05
"""A method has forgotten something if its FA is more than this below FA before."""


def output_bias(state: Arrays, layer: str) -> FloatVector | None:
    """The bias [C] of the output layer, whose name is given; None if it has none."""
    bias = state.get(f"{layer}.bias")
    return None if bias is None else np.array(bias, np.float32)


def control(space: Workspace, outputs: Logits, bias: FloatVector | None) -> Logits:
    """What the control says [m, C]: M_r's outputs with another output bias, which is `bias` in M_r.

    SHIFT less for every label that counts as right in the view `fa`, where these are few: the forgotten classes, the
    class that the owner alone held, the trigger's target. In `client`, and in `sample` without a trigger, they are
    all, and the bias is taken away.
    """
    changed = outputs.copy()
    if space.scenario.classes or space.scenario.trigger:
        changed[:, np.unique(space.scenario.views["fa"].labels)] -= SHIFT
    elif bias is not None:
        changed -= bias
    return changed


def is_trivial(fa_before: float, fa: float, ra: float, fa_control: float, ra_control: float) -> bool:
    """Whether a method forgot something that the control forgets as well, at no greater loss."""
    return fa < fa_before - FORGOT and fa_control <= fa + MATCH and ra_control >= ra - MATCH
