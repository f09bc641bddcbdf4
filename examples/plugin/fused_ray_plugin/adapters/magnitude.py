"""The entries with the largest weights, as in pruning turned round. M_r tells them, so nobody sends a mask."""

import numpy as np

from fused_ray.api import Making, MaskRule, Masks, layer_vector


def magnitude(making: Making, settings: None) -> Masks:
    return making.largest({layer: np.abs(layer_vector(making.base, layer)) for layer in making.names})


MASK = MaskRule(magnitude)
