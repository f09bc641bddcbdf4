"""FedQUIT: the virtual teacher by hand, and what a target and the server make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray.core import state
from fused_ray.core.methods import fedquit
from fused_ray.core.rounds import Federation
from fused_ray.errors import FusedRayError
from fused_ray.types import Payload

Z, Y = torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0])


def probabilities(kind: str, logits: torch.Tensor = Z) -> list[float]:
    found: list[float] = fedquit.virtual_teacher(logits, Y, kind).softmax(1)[0].tolist()
    return found


def test_the_true_class_becomes_the_lowest() -> None:
    assert fedquit.virtual_teacher(Z, Y, "lowest").tolist() == [[-1, 1, 0, -1]]
    assert probabilities("lowest") == pytest.approx([0.0826, 0.6103, 0.2245, 0.0826], abs=5e-5)


def test_the_first_gradient_is_what_the_student_has_more_than_the_teacher() -> None:
    student = Z.clone().requires_grad_()
    loss = fedquit.divergence(student, fedquit.virtual_teacher(Z, Y, "lowest"))
    loss.backward()
    assert loss.item() == pytest.approx(1.3610, abs=5e-5)
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([0.7484, -0.4978, -0.1831, -0.0674], abs=5e-5)


def test_the_loss_is_a_mean_over_examples() -> None:
    two, labels = torch.cat([Z, torch.tensor([[-1.0, 1.0, 0.0, 0.0]])]), torch.tensor([0, 0])
    assert fedquit.divergence(two, fedquit.virtual_teacher(two, labels, "lowest")).item() == pytest.approx(
        1.3610 / 2, abs=5e-5
    )


def test_the_logit_of_most_entropy() -> None:
    assert fedquit.virtual_teacher(Z, Y, "max-entropy")[0].tolist() == pytest.approx([0.5752, 1, 0, -1], abs=5e-5)
    assert probabilities("max-entropy") == pytest.approx([0.3031, 0.4636, 0.1705, 0.0627], abs=5e-5)

    def entropy(v: float) -> float:
        p = torch.tensor([v, 1.0, 0.0, -1.0]).softmax(0)
        return float(-(p * p.log()).sum())

    assert entropy(0.5752) > max(entropy(0.55), entropy(0.60))


def test_the_others_alike_at_their_mass() -> None:
    found = fedquit.virtual_teacher(Z, Y, "flat")[0].tolist()
    assert found == pytest.approx([-1, 0.3090, 0.3090, 0.3090], abs=5e-5)
    assert sum(np.exp(found[1:])) == pytest.approx(np.e + 1 + 1 / np.e, rel=1e-6)


def test_two_classes_and_a_right_answer_are_half_and_half() -> None:
    assert probabilities("lowest", torch.tensor([[2.0, 0.0]])) == [0.5, 0.5]


def test_where_the_true_class_is_the_lowest_there_is_nothing_to_imitate() -> None:
    logits = torch.tensor([[-1.0, 1.0, 0.0]])
    teacher = fedquit.virtual_teacher(logits, Y, "lowest")
    assert torch.equal(teacher, logits)
    assert fedquit.divergence(logits, teacher).item() == 0


@pytest.fixture(scope="module")
def ended(federate: Callable[..., Federation], pretrained: Any) -> tuple[Federation, Any, Any]:
    federation = federate("unlearn.method=fedquit", "fedquit.lr=0.01", "unlearn.rounds=1", "train.momentum=0.5")
    base = pretrained(federation)
    return federation, base, fedquit.unlearn(federation, base)


def test_the_targets_students_are_averaged_by_examples(
    ended: Any, targets: Any, gone: Any, space_of: Any, mean: Any
) -> None:
    federation, base, _ = ended
    config, space, payload = federation.config, space_of(federation), state.flatten(base)
    train = fedquit.student_training(config.train, config.fedquit)
    assert (train.optimiser, train.lr, train.batch_size, train.steps(65)) == ("adam", 0.01, 32, 3)
    students = [
        fedquit.Quitting("unlearn", 1, 0, train, "forgotten", "lowest").update(space, payload, client).payload
        for client in targets
    ]
    sizes = [len(gone.held[client]) for client in targets]
    found = federation.recorder.rounds["unlearn", 1].payload
    inside = state.parameters(space.model)
    assert np.array_equal(found.values[inside], mean(students, sizes, sum(sizes)).values[inside])
    assert not np.array_equal(found.values, payload.values)


def test_a_student_says_less_of_its_labels_than_its_model(ended: Any, targets: Any, space_of: Any) -> None:
    federation, base, _ = ended
    space = space_of(federation)

    def confidence(payload: Payload) -> float:
        space.load(payload)
        space.model.eval()
        rows = space.scenario.forgotten(targets[1])
        with torch.no_grad():
            said = space.suffix(0, space.images("train", rows)).softmax(1)
        return float(said.gather(1, space.labels(rows)[:, None]).mean())

    student = federation.recorder.rounds["unlearn", 1].payload
    assert confidence(student) < confidence(state.flatten(base)) - 0.05


def test_it_refuses_classes_and_says_why(make_config: Any) -> None:
    with pytest.raises(
        FusedRayError, match=r"cannot do the scenario 'class'; it can do .*: only the device of a target"
    ):
        make_config("unlearn.method=fedquit", "forget.scenario=class")
