"""FedQUIT: a target imitates a teacher that does not know its labels (Mora et al., arXiv 2408.07587).

1. The virtual teacher is the received model, frozen and in evaluation mode, with the logit of each example's true class
   replaced by a lower one. A target trains a copy of the model, the student, on what must go: KL(teacher || student) at
   temperature 1, by Adam, without augmentation. It works on its own device and uploads once.
2. The student replaces the model. The others recover by FedAvg, `unlearn.rounds` rounds. The paper stops them when the
   retrained model's accuracy is reached, which asks for that model; here the rounds are a budget.

The paper has one target. Ours: several train from the same M_r, and their students are averaged by examples. In
`sample` a target trains on its D_u alone.

Where the true class has the lowest logit already, as with flipped labels that were never learned, the teacher is the
model and the loss 0. With two classes, a right answer's teacher says half and half. Running statistics of BatchNorm
move in training, and see D_u alone until others recover. It cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fused_ray import models
from fused_ray.config import FedQuitConfig, TrainConfig
from fused_ray.core import state
from fused_ray.core.methods import Unlearned, whole_model
from fused_ray.core.methods.fedavg import FullTraining, recover
from fused_ray.core.methods.shared import with_all
from fused_ray.core.rounds import Federation, Phase
from fused_ray.core.state import Arrays
from fused_ray.core.training import batches
from fused_ray.core.work import ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.seeding import derive
from fused_ray.types import IntVector, Payload


@dataclass(frozen=True)
class Quitting(FullTraining):
    """A target trains its student, from the model that it receives."""

    teacher: str

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.load(payload)
        indices = self.indices(space.scenario, client)
        order = batches(len(indices), self.train, self.seed, self.phase, self.round, client)
        with models.seeded(derive(self.seed, f"dropout/{self.phase}", self.round, client), space.device):
            loss = imitate(space, self.train, self.teacher, indices, order)
        after = state.read(space.model)
        return Update(after, loss, moved=state.trained_change(space.model, payload, after), fixed=space.fixed)


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    """Each target trains its student; then the others recover."""
    config, start = federation.config, state.flatten(base)
    train = student_training(config.train, config.fedquit)
    targets = federation.scenario.clients("forgotten")
    quitting = Phase(
        name="unlearn",
        rounds=1,
        clients=targets,
        work=lambda number: Quitting(
            *("unlearn", number, config.seed, train, "forgotten", config.fedquit.teacher),
            frozen=federation.anatomy.frozen_values,
        ),
        evaluation=ModelEvaluation(),
        server=with_all(targets, "unlearn"),
        unchanged="the targets' teacher is the model itself, which knows nothing of their labels; or raise fedquit.lr",
    )
    start_metrics = federation.evaluate(ModelEvaluation(), start)
    student = federation.run(quitting, start)
    end = recover(federation, student.payload, first=1)
    return whole_model(end.payload, base, end.metrics, start_metrics)


def student_training(train: TrainConfig, fedquit: FedQuitConfig) -> TrainConfig:
    """How a student is trained: plain Adam."""
    own = {"optimiser": "adam", "optimiser_args": {}, "weight_decay": 0.0, "proximal": 0.0}
    return train.in_epochs(fedquit.epochs, batch_size=fedquit.batch_size, lr=fedquit.lr, **own)


def imitate(
    space: Workspace, train: TrainConfig, teacher: str, indices: IntVector, order: Iterator[IntVector]
) -> float:
    """Steps of the working model, the student, towards the virtual teacher that it is at first; the mean loss."""
    steps = [indices[positions] for positions in order]
    space.model.eval()
    with torch.no_grad():  # of all batches, before the student moves
        said = [virtual_teacher(_logits(space, rows), space.labels(rows), teacher) for rows in steps]
    free = [parameter for parameter in space.model.parameters() if parameter.requires_grad]
    part, settings = train.optimiser_part
    optimiser = part.function(free, train, settings)
    total, seen = torch.zeros((), device=space.device), 0
    for rows, wanted in zip(steps, said, strict=True):
        space.model.train(len(rows) > 1)  # one example has no statistics that BatchNorm could normalise by
        loss = divergence(_logits(space, rows), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(rows)
        seen += len(rows)
    return total.item() / seen


def virtual_teacher(logits: torch.Tensor, labels: torch.Tensor, kind: str) -> torch.Tensor:
    """The model's logits [n, C], of which the true class's is replaced.

    lowest: by the example's lowest logit. max-entropy: by the mean of the others' logits under their own softmax, which
    makes the entropy largest. flat: by the lowest, and all others become their log-mean-exp, so that their mass stays.
    """
    true = F.one_hot(labels, logits.shape[1]).bool()
    others = logits.masked_fill(true, -torch.inf)
    low = logits.amin(1, keepdim=True)
    if kind == "max-entropy":
        # -inf * 0 would be no number
        low = (others.softmax(1) * logits.masked_fill(true, 0.0)).sum(1, keepdim=True)
    if kind == "flat":
        mass = others.logsumexp(1, keepdim=True) - torch.tensor(logits.shape[1] - 1.0).log()
        logits = mass.expand_as(logits)
    return torch.where(true, low, logits)


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The mean over examples of KL(teacher || student), from logits [n, C]."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


def _logits(space: Workspace, rows: IntVector) -> torch.Tensor:
    return space.suffix(0, space.images("train", rows))
