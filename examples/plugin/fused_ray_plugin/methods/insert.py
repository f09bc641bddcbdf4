"""Insert: a new linear module before the output layer, trained by the retained clients, uploaded once and averaged.

After FedUP's idea of a small module that is uploaded a single time. The module I + M is folded into the output layer,
so that what comes out is a model like any other: W (I + M) h + b.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fused_ray.api import (
    Arrays,
    Federation,
    Method,
    ModelEvaluation,
    PartialSum,
    Payload,
    Saved,
    Scenario,
    Unlearned,
    Update,
    Workspace,
    flatten,
    generator,
    whole_model,
)  # fmt: skip


@dataclass(frozen=True)
class TrainModule:
    """A client trains M [d, d] on its D_r for some epochs, everything else frozen, and sends it."""

    layer: str
    seed: int
    lr: float
    epochs: int
    phase: str = "insert"
    round: int = 1

    def indices(self, scenario: Scenario, client: int) -> Any:
        return scenario.examples("retained", client)

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        rows, cut = self.indices(space.scenario, client), space.cut([self.layer])
        h, y = space.activations("train", rows, cut).flatten(1), space.labels(rows)
        module = torch.tensor(payload.values.reshape(h.shape[1], -1), device=space.device, requires_grad=True)
        for epoch in range(self.epochs):
            order = generator(self.seed, f"insert/{epoch}", 1, client).permutation(len(rows))
            for part in torch.from_numpy(order).split(64):
                loss = F.cross_entropy(space.suffix(cut, h[part] + h[part] @ module.T), y[part])
                (gradient,) = torch.autograd.grad(loss, [module])
                module.data -= self.lr * gradient
        return Update(Payload(module.detach().cpu().numpy().ravel()), loss.item())

    def upload_bytes(self, payload: Payload) -> int:
        return payload.values.nbytes

    def download_bytes(self, payload: Payload) -> int:
        return 0


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    config, name = federation.config, f"{federation.anatomy.ranked[-1]}.weight"
    width = base[name].shape[1]
    work = TrainModule(name.removesuffix(".weight"), config.seed, config.train.lr, config.unlearn.rounds)
    nothing = Payload(np.zeros(width * width, np.float32))

    def conclude(total: PartialSum) -> Saved:
        module = np.eye(width) + federation.mean(work, nothing, total).values.reshape(width, width)
        model = flatten({**base, name: (base[name] @ module).astype(np.float32)})
        return Saved(round=1, payload=model, metrics=federation.evaluate(ModelEvaluation(), model))

    before = federation.evaluate(ModelEvaluation(), flatten(base))
    end = federation.ask(work, nothing, federation.scenario.clients("retained"), conclude)
    return whole_model(end.payload, base, end.metrics, before)


METHOD = Method(unlearn, rounds=None, phases=lambda settings: {"insert": 1})
