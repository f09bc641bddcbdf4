from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.audit.outputs import logits
from fused_ray.audit.relearning import Ratio, Relearning, ratio, relearn, steps_to
from fused_ray.audit.yardstick import Yardstick
from fused_ray.core import state
from fused_ray.models import anatomy
from fused_ray.seeding import permutation


def test_steps_to_by_hand() -> None:
    curve = [0.0, 0.0, 0.2, 0.6, 0.5]
    assert steps_to(curve, 0.6) == 3
    assert steps_to(curve, 0.4) == pytest.approx(2.5)
    assert steps_to(curve, 0.1) == pytest.approx(1.5)
    assert steps_to(curve, 0.0) == 0
    assert steps_to(curve, 0.7) is None


def found(steps: float | None, limit: int = 40) -> Relearning:
    return Relearning((0.0,) * (limit + 1), 0.0, steps)


def test_ratio_by_hand() -> None:
    assert ratio(found(6.0), found(8.0)) == Ratio(0.75, 0.75)
    assert ratio(found(0.0), found(8.0)) == Ratio(0.0, 0.0)
    assert ratio(found(0.0), found(0.0)) is None  # the retrained model had half of the old FA from the start


@pytest.mark.parametrize(
    ("steps", "retrained", "bounds", "text"),
    [
        (None, 8.0, (5.0, math.inf), "at least 5.00"),
        (37.0, None, (0.0, 37 / 40), "at most 0.93"),
        (None, None, (0.0, math.inf), "not known"),
        (6.0, 8.0, (0.75, 0.75), "0.75"),
    ],
)
def test_who_did_not_get_there_gives_a_bound(
    steps: float | None, retrained: float | None, bounds: tuple[float, float], text: str
) -> None:
    speed = ratio(found(steps), found(retrained))
    assert speed == Ratio(*bounds)
    assert str(speed) == text


def test_the_control_is_shallow_and_the_retrained_deep(yardstick: Yardstick) -> None:
    """The model with the shifted bias has everything back while the retrained model has nothing."""
    before, retrained = yardstick.relearn(yardstick.before), yardstick.relearning_retrained
    control = yardstick.relearn({**yardstick.before, "fc3.bias": yardstick.before["fc3.bias"] - 10 * np.eye(10)[0]})
    assert retrained is not None
    assert before.curve[0] == pytest.approx(yardstick.seen_before.accuracy["fa"].weighted)
    assert before.steps == 0
    assert control.curve[0] == retrained.curve[0] == 0.0
    assert control.steps is not None
    assert control.steps < 10
    assert control.accuracy == control.curve[10] > 0.8
    assert retrained.accuracy == retrained.curve[10] < 0.1
    assert retrained.curve[-1] > 0.8
    speed = ratio(control, retrained)
    assert speed is not None
    assert speed.high < 0.5


def test_shuffled_labels_teach_nothing(yardstick: Yardstick) -> None:
    found = yardstick.relearn(yardstick.retrained or {}, shuffled=True)
    assert max(found.curve) < 0.1
    assert found.steps is None


def test_repeats_are_averaged_and_differ(yardstick: Yardstick) -> None:
    space, payload = yardstick.space, state.flatten(yardstick.before)
    one, two = (relearn(space, payload, 0.8, steps=4, repeats=count).curve for count in (1, 2))
    assert len(one) == len(two) == 5
    assert one[0] == two[0]
    assert one[1:] != two[1:]
    assert relearn(space, payload, 0.8, steps=4, repeats=2).curve == two


def test_every_parameter_learns(yardstick: Yardstick) -> None:
    space = yardstick.space
    with state.asking(space.model, ()):  # as in an adapter's training, which gives them back
        assert not any(parameter.requires_grad for parameter in space.model.parameters())
    relearn(space, state.flatten(yardstick.before), 0.8, steps=1, repeats=1)
    after = state.arrays(space.model)
    assert all(not np.array_equal(after[name], yardstick.before[name]) for name in after)


def test_normalisation_learns_too_and_is_judged_in_evaluation_mode(forgetting: Any) -> None:
    space = forgetting.space
    space.model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    space.stages = anatomy.stages(space.model, (1, 28, 28))
    with torch.no_grad():
        space.model[1].running_mean.fill_(0.3)
        for weight, draw in zip(space.model.parameters(), np.random.default_rng(0).normal(size=4), strict=True):
            weight.fill_(draw)
        space.model[2].weight.copy_(torch.from_numpy(np.random.default_rng(0).normal(size=(10, 784))))
    payload, view = state.read(space.model), forgetting.scenario.views["fa"]
    expected = (logits(space, payload, "test", view.indices).argmax(1) == view.labels).mean()
    curve = relearn(space, payload, 1.0, steps=30, repeats=1).curve
    assert curve[0] == pytest.approx(expected)
    assert curve[-1] > 0.7
    assert int(space.model[1].num_batches_tracked) == 30
    assert not (space.model[1].running_mean == 0.3).any()


def test_few_examples_are_used_again(world: Any) -> None:
    """The forgotten client holds 10 examples, fewer than half a batch."""
    space = world("data.limit=200", "federation.clients=20", "forget.scenario=client", "forget.clients=[1]").space
    assert len(space.scenario.held[1]) == 10
    assert len(relearn(space, state.read(space.model), 1.0, steps=3, repeats=1).curve) == 4


def test_it_is_plain_sgd_on_half_forgotten_and_half_retained_examples(yardstick: Yardstick) -> None:
    """A rate of 0.005, momentum 0.9, no weight decay; 32 of D_u and 32 of D_r a step, drawn anew after a pass."""
    space, steps = yardstick.space, 8
    scenario, seed, payload = space.scenario, space.config.seed, state.flatten(yardstick.before)
    curve = relearn(space, payload, 0.8, steps=steps, repeats=1).curve
    found = state.read(space.model).values
    gone = np.flatnonzero(space.data.train_labels == 0)
    kept = np.setdiff1d(np.concatenate(scenario.held), gone)
    assert len(gone) < steps * 32 < 2 * len(gone)
    passes = [permutation(len(gone), seed, "relearn/forgotten/0", number) for number in (0, 1)]
    old = gone[np.concatenate(passes)][: steps * 32].reshape(steps, 32)
    others = kept[permutation(len(kept), seed, "relearn/retained/0", 0)][: steps * 32].reshape(steps, 32)
    space.load(payload)
    parameters = list(space.model.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    view, accuracies = scenario.views["fa"], []
    for rows in [None, *np.concatenate([old, others], axis=1)]:
        if rows is not None:
            space.model.train()
            loss = F.cross_entropy(space.model(space.images("train", rows)), space.labels(rows))
            with torch.no_grad():
                gradients = torch.autograd.grad(loss, parameters)
                for parameter, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                    velocity.mul_(0.9).add_(gradient)
                    parameter.sub_(velocity, alpha=0.005)
        predicted = logits(space, state.read(space.model), "test", view.indices).argmax(1)
        accuracies.append((predicted == view.labels).mean())
    assert found.tobytes() == state.read(space.model).values.tobytes()
    assert curve == pytest.approx(accuracies)
