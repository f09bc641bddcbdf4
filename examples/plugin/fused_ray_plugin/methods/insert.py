"""Insert: a linear module before the output layer, trained by each retained client, uploaded once and averaged.

After FedUP's idea of a small module that is uploaded a single time. I + M is folded into the layer: W (I + M) h + b.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fused_ray.api import (
    Arrays,
    Federation,
    Message,
    Method,
    Payload,
    Unlearned,
    Update,
    Workspace,
    ask_once,
    generator,
)


@dataclass(frozen=True)
class TrainModule(Message):
    layer: str = ""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        """M [d, d] after `unlearn.rounds` epochs on D_r, everything else frozen."""
        space.use_base()
        config, rows, cut = space.config, self.indices(space.scenario, client), space.cut([self.layer])
        h, y = space.activations("train", rows, cut).flatten(1), space.labels(rows)
        module = torch.tensor(payload.values.reshape(h.shape[1], -1), device=space.device, requires_grad=True)
        for epoch in range(config.unlearn.rounds):
            order = generator(config.seed, f"insert/{epoch}", 1, client).permutation(len(rows))
            for part in torch.from_numpy(order).split(64):
                loss = F.cross_entropy(space.suffix(cut, h[part] + h[part] @ module.T), y[part])
                module.data -= config.train.lr * torch.autograd.grad(loss, [module])[0]
        return Update(Payload(module.detach().cpu().numpy().ravel()), loss.item())


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    layer = federation.anatomy.ranked[-1]
    weight, d = f"{layer}.weight", base[f"{layer}.weight"].shape[1]

    def folded(module: np.ndarray) -> Arrays:
        return {**base, weight: (base[weight] @ (np.eye(d) + module.reshape(d, d))).astype(np.float32)}

    return ask_once(federation, base, TrainModule("insert", layer=layer), np.zeros(d * d, np.float32), folded)


METHOD = Method(unlearn, rounds=None, phases=lambda settings: {"insert": 1})
