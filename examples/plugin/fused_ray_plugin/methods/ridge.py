"""Ridge head: the output layer is solved for, in closed form, from what the retained clients know.

A client runs the frozen layers below the output layer once and sends X'X and X'Y; their sums say what one machine with
all of D_r would have solved. One message, no steps, nothing of D_u.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fused_ray.api import (
    Arrays,
    Federation,
    Method,
    ModelEvaluation,
    PartialSum,
    Payload,
    Saved,
    Scenario,
    Section,
    Unlearned,
    Update,
    Workspace,
    flatten,
    whole_model,
)  # fmt: skip


class Ridge(Section):
    strength: float = 1e-2
    """Added to the diagonal of X'X / n."""


@dataclass(frozen=True)
class Moments:
    """A client sends X'X / n and X'Y / n of the activations X [n, d + 1], a column of ones in them, and labels Y."""

    layer: str
    phase: str = "gram"
    round: int = 1

    def indices(self, scenario: Scenario, client: int) -> Any:
        return scenario.examples("retained", client)

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        rows = self.indices(space.scenario, client)
        x = space.activations("train", rows, space.cut([self.layer])).flatten(1).double().cpu().numpy()
        x, y = np.c_[x, np.ones(len(x))], np.eye(space.data.classes)[space.scenario.train_labels[rows]]
        return Update(Payload(np.concatenate([(x.T @ x).ravel(), (x.T @ y).ravel()]).astype(np.float32) / len(x)), 0.0)

    def upload_bytes(self, payload: Payload) -> int:
        return payload.values.nbytes

    def download_bytes(self, payload: Payload) -> int:
        return 0


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    layer, classes = federation.anatomy.ranked[-1], federation.data.classes
    width = base[f"{layer}.weight"].shape[1] + 1
    nothing = Payload(np.zeros(width * (width + classes), np.float32))
    work = Moments(layer)

    def conclude(total: PartialSum) -> Saved:
        sums = federation.mean(work, nothing, total).values.astype(np.float64)
        gram, moments = sums[: width * width].reshape(width, width), sums[width * width :].reshape(width, classes)
        solved = np.linalg.solve(gram + federation.config.method_options.strength * np.eye(width), moments).T
        head = {f"{layer}.weight": solved[:, :-1], f"{layer}.bias": solved[:, -1]}
        model = flatten({**base, **{name: array.astype(np.float32) for name, array in head.items()}})
        return Saved(round=1, payload=model, metrics=federation.evaluate(ModelEvaluation(), model))

    before = federation.evaluate(ModelEvaluation(), flatten(base))
    end = federation.ask(work, nothing, federation.scenario.clients("retained"), conclude)
    return whole_model(end.payload, base, end.metrics, before)


METHOD = Method(unlearn, rounds=None, phases=lambda settings: {"gram": 1}, cost={"gram": 0.3}, section=Ridge)
