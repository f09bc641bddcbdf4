"""Where an adapter's masked entries start, from the weights that they have in M_r, float32 [n]."""

from __future__ import annotations

import numpy as np

from fused_ray.types import FloatVector


def zero(weights: FloatVector, settings: None) -> FloatVector:
    """The model is as before."""
    return np.zeros_like(weights)


def reset(weights: FloatVector, settings: None) -> FloatVector:
    """Masked entries read 0."""
    return -weights


def negate(weights: FloatVector, settings: None) -> FloatVector:
    """Masked entries change their sign."""
    return weights * np.float32(-2.0)
