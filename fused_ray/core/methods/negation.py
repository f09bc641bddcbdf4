"""NoT: federated unlearning via weight negation (Khalil et al., CVPR 2025, arXiv 2503.05657).

The first convolution's weight changes its sign, its bias does not; then FedAvg goes on, on D_r, `unlearn.rounds`
rounds. It needs no stored state and none of D_u. BN statistics fit the old weights; training averages them anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fused_ray.core import state
from fused_ray.core.layers import layer_parameters
from fused_ray.core.methods import Unlearned
from fused_ray.core.methods.fedavg import finetune
from fused_ray.core.rounds import Federation
from fused_ray.core.state import Arrays


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Negate, then recover on D_r."""
    negated = negate(base, federation.anatomy.ranked)
    return finetune(federation, state.flatten(negated), base)


def negate(model: Arrays, layers: Sequence[str]) -> Arrays:
    """The model with the weight of its first convolution times -1; without a convolution, of its first layer.

    `layers` go from the input to the output. Twice gives the bits back.
    """
    weights = [layer_parameters(model, layer)[0] for layer in layers]
    convolutions = [name for name in weights if model[name].ndim > 2]
    name = (convolutions or weights)[0]
    return {**model, name: -model[name].astype(np.float32)}
