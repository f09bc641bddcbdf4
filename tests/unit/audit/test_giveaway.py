"""What models and gradients give away: labels by hand, and of a model that forgot nothing, and one that never knew."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.evidence import measured
from fused_ray.audit.metrics.giveaway import flat, mixture, public_gradients, shares
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.gradient import mean_gradient
from fused_ray.core.methods import fedavg
from fused_ray.core.state import flatten, unflatten


def test_shares_by_hand() -> None:
    assert shares(np.array([0, 2, 2, 2]), 4).tolist() == [0.25, 0, 0.75, 0]


def test_a_mixture_of_gradients_gives_its_shares_away() -> None:
    public = [np.array([1.0, 0, 0, 1]), np.array([0, 1.0, 0, 1]), np.array([0, 0, 1.0, 1])]
    sent = 0.75 * public[0] + 0.25 * public[2]
    assert mixture(public, sent) == pytest.approx([0.75, 0, 0.25], abs=1e-6)
    assert mixture(public, 8 * sent) == pytest.approx([0.75, 0, 0.25], abs=1e-6)  # a longer one means the same


def test_shares_are_never_negative_and_equal_where_nothing_is_explained() -> None:
    public = [np.array([1.0, 0]), np.array([0, 1.0])]
    assert mixture(public, np.array([1.0, -1.0])) == pytest.approx([1, 0], abs=1e-6)
    assert mixture(public, np.array([-1.0, -1.0])).tolist() == [0.5, 0.5]


def figures_of(yardstick: Any, model: Any) -> dict[str, float]:
    """Of a model as if it had unlearned."""
    found = measured([METRICS["giveaway"]], yardstick, model, yardstick.see(model))
    assert not found["audit_metrics_failed"]
    return {figure["name"].removeprefix("giveaway_"): figure["value"] for figure in found["audit_metrics"]}


@pytest.fixture(scope="module")
def of(yardstick: Any) -> Any:
    """`of(model)`: its figures; each model is looked at once."""
    return cache(
        lambda name: figures_of(yardstick, {"other": yardstick.others[0]}.get(name) or getattr(yardstick, name))
    )


def test_doing_nothing_gives_nothing_more_away(of: Any) -> None:
    found = of("before")
    assert found["both"] == 0.5  # no loss rose
    assert found["before"] == found["after"]
    assert "class_weights" not in found
    assert "gradient_error" not in found  # no layer changed, so that no gradient was sent


def test_a_retrained_model_gives_as_much_away_as_the_control(of: Any) -> None:
    found = of("retrained")
    assert found["both"] == found["retrained"]
    assert found["class_outputs"] == 1  # a whole class is gone
    other = of("other")
    assert other["retrained"] == found["retrained"]
    assert abs(other["both"] - found["both"]) < 0.1


def test_a_class_to_forget_is_read_from_a_gradient(of: Any) -> None:
    found = of("retrained")
    assert found["gradient_label"] == 1
    assert found["gradient_error"] < 0.6 < 0.8 < found["gradient_guess"]


def test_two_models_tell_which_of_the_training_data_was_forgotten(yardstick: Any, world: Any) -> None:
    """Half of 300 examples, of every class: M_r knows them by heart, and the retrained model does not."""
    how = ("data.limit=300", "train.local_epochs=30", "pretrain.rounds=1", "federation.clients=1")
    made = world("forget.scenario=sample", "forget.poison=false", "forget.share=1", "forget.examples_share=0.5", *how)
    federation = made.federation
    start = fedavg.initial(federation, "pretrain")
    before, without = (
        unflatten(fedavg.fedavg(federation, flatten(start), on, on, 1).payload, start) for on in ("held", "retained")
    )
    there = replace(yardstick, space=made.space, before=before, retrained=without)
    found = figures_of(there, without)
    assert found["before"] > 0.6
    assert found["after"] == pytest.approx(0.5, abs=0.1)
    assert min(found["both"], found["both_kept"]) > 0.6
    assert found["both_kept"] == found["retrained_kept"]
    assert "class_outputs" not in found  # D_u has examples of every class


def test_public_gradients_are_those_of_a_class_alone(yardstick: Any) -> None:
    """The gradient of D_u, all of class 0, is nearest to that of public images of class 0."""
    space = yardstick.space
    space.load(flatten(yardstick.retrained))
    wanted = list(space.model.parameters())
    public = public_gradients(space, wanted)
    sent = flat(mean_gradient(space, wanted, space.scenario.gone.indices)[0])
    likeness = [float(each @ sent / np.linalg.norm(each) / np.linalg.norm(sent)) for each in public]
    assert np.argmax(likeness) == 0
    assert likeness[0] > 0.9
