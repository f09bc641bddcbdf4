"""Expected calibration error on what stays: how far the model's confidence is from its accuracy (Guo et al., 2017)."""

import numpy as np

from fused_ray.api import Evidence, Metric

BINS = 15


def error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over equal bins of confidence, weighted by images, of |accuracy - confidence|; logits [n, C], labels [n]."""
    scores = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
    confidence = (scores / scores.sum(1, keepdims=True)).max(1)
    right = logits.argmax(1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(np.sum(right[bins == b]) - np.sum(confidence[bins == b])) for b in range(BINS)]
    return float(sum(gaps) / len(labels))


def measure(evidence: Evidence) -> dict[str, float]:
    """Of M_f, and of the retrained model where there is one."""
    models = {"after": evidence.after, "retrained": evidence.retrained}
    return {name: error(known.outputs["ra"], evidence.labels["ra"]) for name, known in models.items() if known}


METRIC = Metric(
    name="ece",
    measure=measure,
    better="lower",
    meaning="expected calibration error on the data that stay, of the model that forgot and of the retrained one",
)
