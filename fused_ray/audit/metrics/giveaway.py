"""What a reversible unlearning gives away: of the models before and after, and of the gradients that targets send.

Whoever can take an adapter off has both M_r and M_f. An attacker is asked which examples were forgotten, and of what
class. And the server of `fused` sees a gradient of each client that forgets, at a model that it knows.

Which examples (AUC, .5 is guessing; an AUC below tells as much as one above):

- `before`, `after`: a member of D_u or an unseen example of its class and label, by the loss of M_r, and of M_f.
- `both`: the same by how much the loss rose from M_r to M_f (Chen et al. 2021, arXiv 2005.02205).
- `both_kept`: D_u or D_r, of the same class and label, by that rise: which of the training data was forgotten?
- `retrained`, `retrained_kept`: these two from M_r to the retrained model: what perfect forgetting gives away as well
  to whoever keeps M_r.

Which class, where one label is that of more than half of D_u (1 found, 0 not; guessing finds it in 1 of C):

- `class_outputs`: the one that loses most mean probability on test images from M_r to M_f.
- `class_weights`: the one whose row of the output layer changed most, without any data.

Gradients, of the mean loss on a client's D_u at M_r, over the entries of the layers that M_f changed. The attacker fits
them by the gradients of public images (here: test images) of each class, with weights that are not negative; the
weights are the labels' shares as inferred. A client's error is half of the sum of the absolute differences:

- `gradient_error`: its mean over clients; 0 is known exactly, 1 is all wrong.
- `gradient_guess`: the same where the attacker says of everybody what all clients hold together.
- `gradient_label`: share of the clients whose most frequent label is the one with the largest weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.audit.evidence import Evidence
from fused_ray.audit.membership import LOSS, answers, attack, draw, features, pairs
from fused_ray.audit.outputs import Vector, forgotten, log_probabilities, logits, retained
from fused_ray.audit.probes import output_layer
from fused_ray.core.gradient import mean_gradient
from fused_ray.core.layers import layer_parameters
from fused_ray.core.numerics import dot
from fused_ray.core.state import Arrays, asking, flatten
from fused_ray.core.workspace import Workspace
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Payload

PUBLIC = 100
"""Most test images of each class that the attacker has."""
CLIENTS = 20
"""Most clients whose gradients are looked at."""
MOST = 2_000
"""Most examples a side of D_u and D_r."""


def measure(evidence: Evidence) -> Mapping[str, float]:
    """All that the data and the models allow. Raises DataError where no test image is like the forgotten ones."""
    space, before, after = evidence.space, evidence.before.weights, evidence.after.weights
    found = {**_examples(evidence), **_class(space, before, after)}
    changed = [name for name in after if not np.array_equal(after[name], before[name])]
    return found | (_gradients(space, before, changed) if changed else {})


# --- which examples --------------------------------------------------------------------------------------


def _examples(evidence: Evidence) -> dict[str, float]:
    space, sample = evidence.space, draw(evidence.space)
    trained_on = _alike(space)
    models = {"before": evidence.before, "after": evidence.after, "retrained": evidence.retrained}
    losses: dict[str, tuple[Vector, Vector]] = {}
    for name, known in models.items():
        if known is not None:
            payload = flatten(known.weights)
            losses[name] = answers(space, payload, sample)[:, LOSS], _losses(space, payload, trained_on)
    before = losses["before"]
    found = {name: _auc(-losses[name][0]) for name in ("before", "after")}
    for name, model in (("both", "after"), ("retrained", "retrained")):
        if model in losses:
            unseen, trained = (now - then for now, then in zip(losses[model], before, strict=True))
            found[name] = _auc(unseen)
            if len(trained):
                found[f"{name}_kept"] = _auc(trained)
    return found


def _losses(space: Workspace, payload: Payload, indices: IntVector) -> Vector:
    """Of training examples [n]."""
    if not len(indices):
        return np.zeros(0)
    return features(logits(space, payload, "train", indices), space.scenario.train_labels[indices])[:, LOSS]


def _alike(space: Workspace) -> IntVector:
    """Examples of D_u, then as many of D_r of the same classes and labels; none where there are none."""
    scenario, seed = space.scenario, space.config.seed
    sides = forgotten(scenario), retained(scenario)
    kinds = [space.data.train_labels[rows] * space.data.classes + scenario.train_labels[rows] for rows in sides]
    found = pairs(kinds[0], kinds[1], seed)
    found = found[np.sort(permutation(len(found), seed, "giveaway/kept")[:MOST])]
    return np.concatenate([rows[part] for rows, part in zip(sides, found.T, strict=True)])


def _auc(scores: Vector) -> float:
    """Of scores, of which the first half belongs to members."""
    return attack(scores, np.arange(len(scores)) < len(scores) // 2).auc


# --- which class -----------------------------------------------------------------------------------------


def _class(space: Workspace, before: Arrays, after: Arrays) -> dict[str, float]:
    labels = space.scenario.train_labels[forgotten(space.scenario)]
    counts = np.bincount(labels, minlength=space.data.classes)
    if 2 * counts.max() <= len(labels):
        return {}
    truth = counts.argmax()
    images = np.arange(space.scenario.real(len(space.data.test_labels)))
    then, now = (np.exp(log_probabilities(logits(space, flatten(m), "test", images))) for m in (before, after))
    found = {"class_outputs": float((then - now).mean(0).argmax() == truth)}
    names = layer_parameters(before, output_layer(space))
    changes = (np.subtract(after[name], before[name], dtype=np.float64) for name in names)
    rows = [np.abs(change).reshape(space.data.classes, -1) for change in changes]
    moved = np.concatenate(rows, axis=1).sum(1)
    if np.any(moved):
        found["class_weights"] = float(np.argmax(moved) == truth)
    return found


# --- gradients -------------------------------------------------------------------------------------------


def _gradients(space: Workspace, before: Arrays, changed: Sequence[str]) -> dict[str, float]:
    scenario, classes, seed = space.scenario, space.data.classes, space.config.seed
    clients = np.array(scenario.clients("forgotten"))
    clients = clients[np.sort(permutation(len(clients), seed, "giveaway/clients")[:CLIENTS])]
    space.load(flatten(before))
    wanted = [parameter for name, parameter in space.model.named_parameters() if name in set(changed)]
    if not wanted:
        return {}
    public = public_gradients(space, wanted)
    everybody = shares(scenario.train_labels[scenario.held.indices], classes)
    errors, guesses, hits = [], [], []
    for client in clients.tolist():
        indices = scenario.forgotten(client)
        truth = shares(scenario.train_labels[indices], classes)
        sent = flat(mean_gradient(space, wanted, indices)[0])
        inferred = mixture(public, sent)
        errors.append(np.abs(inferred - truth).sum() / 2)
        guesses.append(np.abs(everybody - truth).sum() / 2)
        hits.append(inferred.argmax() == truth.argmax())
    return {
        "gradient_error": float(np.mean(errors)),
        "gradient_guess": float(np.mean(guesses)),
        "gradient_label": float(np.mean(hits)),
    }


def public_gradients(space: Workspace, wanted: Sequence[nn.Parameter]) -> list[Vector]:
    """The gradient of the working model's mean loss on test images of each class, laid end to end; 0 without images."""
    real = space.data.test_labels[: space.scenario.real(len(space.data.test_labels))]
    found = []
    for label in range(space.data.classes):
        rows = np.flatnonzero(real == label)
        rows = np.sort(rows[permutation(len(rows), space.config.seed, "giveaway/public", client=label)[:PUBLIC]])
        found.append(_on_test(space, wanted, rows))
    return found


def _on_test(space: Workspace, wanted: Sequence[nn.Parameter], rows: IntVector) -> Vector:
    if not len(rows):
        return np.zeros(sum(parameter.numel() for parameter in wanted))
    space.model.eval()
    with asking(space.model, wanted):
        target = torch.from_numpy(space.data.test_labels[rows]).to(space.device)
        loss = F.cross_entropy(space.suffix(0, space.images("test", rows)), target)
        return flat(torch.autograd.grad(loss, wanted, materialize_grads=True))


def flat(gradients: Sequence[torch.Tensor]) -> Vector:
    """Gradients laid end to end."""
    return torch.cat([g.contiguous().reshape(-1) for g in gradients]).double().cpu().numpy()


def mixture(public: Sequence[Vector], sent: Vector) -> Vector:
    """Shares of the classes [C], not negative and of sum 1, that explain a gradient best by those of each class.

    Each class's gradient counts with its length: well-known classes have short ones. Equal shares where none explains
    anything.
    """
    from sklearn.linear_model import LinearRegression

    products = np.array([[dot(a, b) for b in public] for a in public])
    scale = np.trace(products) / len(public) or 1.0
    root = np.linalg.cholesky(products + 1e-9 * scale * np.eye(len(public))).T
    target = np.linalg.solve(root.T, np.array([dot(a, sent) for a in public]))
    weights = LinearRegression(positive=True, fit_intercept=False).fit(root, target).coef_
    total = weights.sum()
    return np.asarray(weights / total if total > 0 else np.full(len(public), 1 / len(public)), np.float64)


def shares(labels: IntVector, classes: int) -> Vector:
    """The share of each class [C]."""
    return np.bincount(labels, minlength=classes) / len(labels)
