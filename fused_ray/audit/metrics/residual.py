"""Residual knowledge: whether a forgotten example is still recognised a little beside itself (arXiv 2601.22359).

r(x, y) = Pr[M_f(x') = y] / Pr[retrained(x') = y], x' in a small ball around x. Above 1, the model that forgot knows
more of x's surroundings than one that never saw x. Estimated from DRAWS uniform draws of the L-infinity ball of radius
TAU, the same for every model, as (a + 1/2) / (b + 1/2) of the counts. Retrained models differ among themselves, so the
share of examples with r > 1 counts beyond that of another retrained model.

n examples.
"""

from __future__ import annotations

import numpy as np
import torch

from fused_ray.audit.evidence import Evidence, Known
from fused_ray.audit.margins import FA_MARGIN, FLOORS
from fused_ray.audit.outputs import Vector, forgotten
from fused_ray.config.parts.metrics import Answer
from fused_ray.core.state import flatten
from fused_ray.core.workspace import BLOCK
from fused_ray.errors import DataError
from fused_ray.seeding import generator, permutation
from fused_ray.types import IntVector

DRAWS = 100
TAU = 0.03
"""Of a pixel's range from 0 to 1; of inputs that are not images, in their own unit."""
EXAMPLES = BLOCK
"""Most that are looked at."""


def measure(evidence: Evidence, draws: int = DRAWS) -> Answer:
    """The share of D_u with residual knowledge. Raises DataError without a retrained model."""
    if evidence.retrained is None:
        raise DataError("there is no retrained model to compare with")
    rows, known = chosen(evidence), (evidence.retrained, evidence.before, *evidence.others)
    reference, before, *others = evidence.remembered(
        "counts", lambda: [counts(evidence, model, rows, draws) for model in known]
    )
    found = share(ratios(counts(evidence, evidence.after, rows, draws), reference))
    remembers = share(ratios(before, reference))
    null = [share(ratios(other, reference)) for other in others]
    figures = {"share": found, "share_before": remembers}
    details = {"examples": len(rows), "draws": draws, "tau": TAU, "null": null}
    told = (
        f"{found:.3f} of {len(rows)} forgotten examples are recognised near by more often than by the retrained model"
    )
    if not null:
        return Answer(figures, None, f"cannot tell without another retrained model: {told}", details)
    expected = float(np.mean(null))
    margin = max(FA_MARGIN, FLOORS * (2 * expected * (1 - expected) / len(rows)) ** 0.5)
    figures |= {"null": expected, "excess": found - expected}
    passes = found - expected <= margin
    said = (
        f"{'no more than chance' if passes else 'known near by'}: {told}, of another retrained model {expected:.3f}, "
        f"of the model before {remembers:.3f}; {margin:.3f} more are allowed"
    )
    return Answer(figures, passes, said, details)


def ratios(a: IntVector, b: IntVector) -> Vector:
    """r [n] from how often one model and the other named the label [n]."""
    found: Vector = (a + 0.5) / (b + 0.5)
    return found


def share(r: Vector) -> float:
    """Of examples with residual knowledge."""
    return float(np.mean(r > 1))


def chosen(evidence: Evidence) -> IntVector:
    """The forgotten examples that are looked at, ascending."""
    rows = forgotten(evidence.space.scenario)
    return np.sort(rows[permutation(len(rows), evidence.space.config.seed, "residual/examples")[:EXAMPLES]])


def counts(evidence: Evidence, model: Known, rows: IntVector, draws: int) -> IntVector:
    """How often a model names the label that the example was trained on, of so many draws around each [n]."""
    space = evidence.space
    space.load(flatten(model.weights))
    space.model.eval()
    x, y = space.images("train", rows), space.labels(rows)
    radius = (TAU / torch.tensor(space.data.std, device=space.device)).reshape(
        1, -1, *(1 for _ in space.data.shape[1:])
    )
    hits = torch.zeros(len(rows), dtype=torch.int64)
    with torch.inference_mode():
        for draw in range(draws):
            rng = generator(space.config.seed, "residual/noise", draw)
            noise = torch.from_numpy(rng.uniform(-1, 1, x.shape).astype(np.float32)).to(space.device)
            hits += (space.suffix(0, x + radius * noise).argmax(1) == y).cpu()
    return hits.numpy()
