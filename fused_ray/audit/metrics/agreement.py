"""Agreement: how often the model that forgot and the retrained one name the same class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fused_ray.audit.evidence import Evidence
from fused_ray.errors import DataError


def measure(evidence: Evidence) -> Mapping[str, float]:
    """By view. Raises DataError without a retrained model."""
    if evidence.retrained is None:
        raise DataError("there is no retrained model to agree with")
    ours, theirs = evidence.after.outputs, evidence.retrained.outputs
    return {view: float(np.mean(ours[view].argmax(1) == theirs[view].argmax(1))) for view in ours}
