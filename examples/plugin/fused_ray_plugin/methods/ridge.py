"""Ridge head: the output layer is solved for, in closed form, from one message of each retained client: X'X and X'Y."""

from dataclasses import dataclass

import numpy as np

from fused_ray.api import Arrays, Federation, Message, Method, Payload, Section, Unlearned, Update, Workspace, ask_once


class Ridge(Section):
    strength: float = 1e-2
    """Added to the diagonal of X'X / n."""


@dataclass(frozen=True)
class Moments(Message):
    layer: str = ""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        """X'X / n and X'Y / n of the activations X [n, d + 1] below the layer, a column of ones in them."""
        space.use_base()
        rows = self.indices(space.scenario, client)
        x = space.activations("train", rows, space.cut([self.layer])).flatten(1).double().cpu().numpy()
        x, y = np.c_[x, np.ones(len(x))], np.eye(space.data.classes)[space.scenario.train_labels[rows]]
        return Update(Payload(np.concatenate([(x.T @ x).ravel(), (x.T @ y).ravel()]).astype(np.float32) / len(x)), 0.0)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    layer, classes = federation.anatomy.ranked[-1], federation.data.classes
    d = base[f"{layer}.weight"].shape[1] + 1

    def solved(means: np.ndarray) -> Arrays:
        gram, moments = np.split(means.astype(np.float64).reshape(-1, 1), [d * d])
        ridge = gram.reshape(d, d) + federation.config.method_options.strength * np.eye(d)
        head = np.linalg.solve(ridge, moments.reshape(d, classes)).T.astype(np.float32)
        return {**base, f"{layer}.weight": head[:, :-1], f"{layer}.bias": head[:, -1]}

    return ask_once(federation, base, Moments("gram", layer=layer), np.zeros(d * (d + classes), np.float32), solved)


METHOD = Method(unlearn, rounds=None, phases=lambda settings: {"gram": 1}, cost={"gram": 0.3}, section=Ridge)
