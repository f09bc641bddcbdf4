"""Worst client: RA of the client that is served worst, and how unevenly forgetting falls on the clients.

A client's RA is that of the test images, each class weighing what it weighs among what the client keeps: RA over all
hides a client whose few classes suffer. Fairness is the mean over clients of |d - mean d|, d = RA after - RA before
(arXiv 2605.24545): 0 where all lose or gain alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fused_ray.audit.accuracy import client_accuracies
from fused_ray.audit.evidence import Evidence, Known
from fused_ray.config.parts.metrics import Answer
from fused_ray.errors import DataError
from fused_ray.types import IntVector

LOST = 0.05
"""Of RA; a client may lose as much against the retrained model, as all of them together may (verdict.RA_MARGIN)."""


def measure(evidence: Evidence) -> Answer:
    """Against the retrained model, with another one as the control. Raises DataError where no client keeps anything."""
    after, before = by_client(evidence, evidence.after), by_client(evidence, evidence.before)
    if not after:
        raise DataError("no client keeps an example of a class that a test image has")
    worst = min(after, key=after.__getitem__)
    figures = {
        "ra": after[worst],
        "ra_before": min(before.values()),
        "fairness": fairness([after[client] - before[client] for client in after]),
    }
    details: dict[str, Any] = {"client": worst, "after": _listed(after), "before": _listed(before)}
    said = f"client {worst} is served worst: RA {after[worst]:.3f}, before {before[worst]:.3f}"
    if evidence.retrained is None:
        return Answer(figures, None, f"cannot tell without a retrained model: {said}", details)
    retrained = by_client(evidence, evidence.retrained)
    who, lost = most_lost(after, retrained)
    control = max([0.0, *(most_lost(by_client(evidence, other), retrained)[1] for other in evidence.others)])
    figures |= {"ra_retrained": min(retrained.values()), "lost": lost}
    figures |= {"lost_control": control} if evidence.others else {}
    allowed = LOST + control
    said += (
        f", retrained {retrained[worst]:.3f}; client {who} lost most against the retrained model, {lost:.3f}"
        + (f" (another retrained model {control:.3f})" if evidence.others else "")
        + f"; {allowed:.3f} are allowed"
    )
    passes: bool | None = lost <= allowed
    word = "nobody is left behind" if passes else "a client pays for it"
    if not passes and not evidence.others:  # of many clients one may differ by so much by chance
        passes, word = None, "cannot tell without another retrained model"
    return Answer(figures, passes, f"{word}: {said}", details | {"retrained": _listed(retrained)})


def by_client(evidence: Evidence, model: Known) -> dict[int, float]:
    """RA by client."""
    scenario, data = evidence.space.scenario, evidence.space.data
    predictions: IntVector = np.full(len(data.test_labels), -1, np.int64)
    predictions[scenario.views["ra"].indices] = model.outputs["ra"].argmax(1)
    return client_accuracies(data, scenario, predictions)


def most_lost(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[int, float]:
    """The client that one model serves worst against another, and by how much."""
    who = max(ours, key=lambda client: theirs[client] - ours[client])
    return who, theirs[who] - ours[who]


def fairness(changes: list[float]) -> float:
    """Mean distance of the clients' changes from their mean; less is fairer."""
    d = np.array(changes)
    return float(np.mean(np.abs(d - d.mean())))


def _listed(accuracies: Mapping[int, float]) -> dict[str, float]:
    return {str(client): value for client, value in accuracies.items()}
