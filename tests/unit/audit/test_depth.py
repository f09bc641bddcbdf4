"""How deep the forgetting goes: the index, and a new head, where the answer is known."""

from __future__ import annotations

import math
import sys
import types
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.audit.information import Information, inapplicable, index, information
from fused_ray.audit.outputs import forgotten
from fused_ray.audit.probes import NARROW, below, head_recovery, penultimate, stage_outputs, two_percent
from fused_ray.audit.yardstick import Yardstick
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Saved
from fused_ray.core.state import Arrays, arrays, flatten, read, unflatten
from fused_ray.core.workspace import Workspace
from fused_ray.errors import NumericsError
from fused_ray.models import Stage
from fused_ray.types import Payload

# --- a backdoor that is known to be there --------------------------------------------------------------------


@dataclass(frozen=True)
class Backdoor:
    """Models of one scenario: one that knows the trigger, and two that never met it."""

    space: Workspace
    layers: Arrays
    """Of the model before."""
    never: Payload
    """The first of the two."""
    before: Information
    retrained: Information
    again: Information


def measured(space: Workspace, payload: Payload) -> Information:
    found = information(space, payload, draws=2)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def backdoor(world: Any) -> Backdoor:
    made = world("forget.scenario=sample", "forget.clients=[0,1]", "pretrain.rounds=3")
    federation, space = made.federation, made.space

    def trained(name: str, on: Literal["held", "retained"]) -> Saved:
        return fedavg.fedavg(federation, flatten(fedavg.initial(federation, name)), name, on, 3)

    before, retrained, again = trained("pretrain", "held"), trained("retrain", "retained"), trained("again", "retained")
    assert before.metrics is not None
    assert before.metrics["fa"] > 0.9
    layers = unflatten(before.payload, arrays(space.model))
    found = [measured(space, saved.payload) for saved in (before, retrained, again)]
    return Backdoor(space, layers, retrained.payload, *found)


def test_the_trigger_is_known_before_and_another_retrained_model_knows_no_more_than_the_first(
    backdoor: Backdoor,
) -> None:
    known = index(backdoor.before, [backdoor.retrained], backdoor.before)
    assert (known.told, known.value) == (True, 1.0)
    never = index(backdoor.before, [backdoor.retrained, backdoor.again], backdoor.again)
    assert never.value == pytest.approx(0, abs=0.3)


def test_forgetting_in_the_output_layer_leaves_the_index_at_one(backdoor: Backdoor) -> None:
    after = flatten({**backdoor.layers, "fc3.weight": -backdoor.layers["fc3.weight"]})
    found = measured(backdoor.space, after)
    assert found == backdoor.before
    assert index(backdoor.before, [backdoor.retrained], found).value == 1.0


def test_what_is_damaged_inside_is_seen(backdoor: Backdoor) -> None:
    """All that is above a dead layer knows nothing; what is below it knows what it knew."""
    after = flatten({**backdoor.layers, "conv2.weight": 0 * backdoor.layers["conv2.weight"]})
    found = measured(backdoor.space, after)
    assert [row[0] for row in found.stages] == [row[0] for row in backdoor.before.stages]
    assert np.abs(np.array(found.stages)[:, 1:]).max() < 0.001


def test_probes_of_shuffled_truth_find_nothing(backdoor: Backdoor) -> None:
    for found in (backdoor.before, backdoor.retrained):
        assert found.names == ("conv1", "conv2", "fc1", "fc2")
        assert np.max(found.shuffled) < 0.03 < np.min(np.array(backdoor.before.stages))
        assert found.entropy == pytest.approx(math.log(2))


def test_a_diverged_model_is_refused(backdoor: Backdoor) -> None:
    after = flatten({**backdoor.layers, "conv1.bias": backdoor.layers["conv1.bias"] + np.inf})
    with pytest.raises(NumericsError, match="activations that are not finite"):
        information(backdoor.space, after)
    with pytest.raises(NumericsError, match="activations that are not finite"):
        head_recovery(backdoor.space, after)


# --- a new head ----------------------------------------------------------------------------------------------


def test_two_percent_of_every_kind(world: Any) -> None:
    """Every label's examples that go, and those that stay, are there with 2%, rounded up; each draw has its own."""
    made = world("forget.scenario=sample")
    scenario, gone = made.scenario, forgotten(made.scenario)
    rows = two_percent(made.space, 0)
    assert len(np.unique(rows)) == len(rows)
    held = np.concatenate(scenario.held)
    for part, chosen in ((np.intersect1d(held, gone), True), (np.setdiff1d(held, gone), False)):
        given = np.bincount(scenario.train_labels[part], minlength=10)
        drawn = np.bincount(scenario.train_labels[rows[np.isin(rows, gone) == chosen]], minlength=10)
        assert drawn.tolist() == np.ceil(0.02 * given).tolist()
    assert not np.array_equal(rows, two_percent(made.space, 1))


def test_a_new_head_brings_back_what_only_the_old_one_forgot(yardstick: Yardstick) -> None:
    space = yardstick.space
    assert yardstick.retrained is not None
    before = head_recovery(space, flatten(yardstick.before))
    silent = yardstick.before["fc3.bias"] - 100 * (np.arange(10) == 0)
    after = {**yardstick.before, "fc3.bias": silent.astype(np.float32)}
    assert yardstick.see(after).accuracy["fa"].weighted == 0
    assert head_recovery(space, flatten(after)) == before
    assert before.accuracy == pytest.approx(np.mean(before.draws))
    assert len(set(before.draws)) > 1
    assert before.accuracy > 0.5
    noise = {name: np.zeros_like(value) for name, value in yardstick.before.items()}
    assert head_recovery(space, flatten(noise)).accuracy in (0, 1)


def test_a_new_head_brings_back_less_of_what_was_never_known(backdoor: Backdoor) -> None:
    before, never = (head_recovery(backdoor.space, m).accuracy for m in (flatten(backdoor.layers), backdoor.never))
    assert before > 0.9
    assert never < before - 0.1


# --- other models ------------------------------------------------------------------------------------------


class Wide(nn.Module):
    """8 x 28 x 28 = 6,272 entries behind its first layer, and nothing but a scale behind the output layer."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 8, 3, padding=1)
        self.out = nn.Linear(6_272, classes)

    def stages(self) -> list[Stage]:
        return [
            Stage((), lambda x: x * 0.5),
            Stage(("conv",), lambda x: F.relu(self.conv(x)).flatten(1)),
            Stage(("out",), self.out),
            Stage((), lambda x: x * 2),
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages():
            x = stage.forward(x)
        return x


class Reading(nn.Module):
    """Calls its output layer by its weight, in a part that is called, and last a layer that nothing depends on."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(784, 30)
        self.part = Part(classes)
        self.idle = nn.Linear(classes, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.part(x=F.relu(self.first(x.flatten(1))))
        self.idle(found)
        return found


class Part(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(30, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.out.weight)


class Tokens(nn.Module):
    """Its course depends on its input, so it cannot be cut; the output layer has a row for each of four tokens."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(196, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(len(x), 4, 196).transpose(0, 1)
        if x.sum() == 0:
            return self.out(tokens).sum(0)
        return self.out(tokens).mean(0)


@pytest.fixture
def built(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = types.ModuleType("probed_models")
    module.__dict__.update(Wide=Wide, Reading=Reading, Tokens=Tokens)
    monkeypatch.setitem(sys.modules, "probed_models", module)
    return lambda name: world("forget.scenario=class", "data.limit=500", f"model.factory=probed_models:{name}").space


def test_wide_stages_are_reduced_and_keep_their_distances(built: Any) -> None:
    space = built("Wide")
    space.model.eval()
    pixels = space.data.test_images[:20]
    _, found = stage_outputs(space, pixels)
    assert found.shape == (20, NARROW)
    assert found.dtype == np.float32
    with torch.no_grad():
        whole = space.stages[1].forward(space.normalised(pixels) * 0.5).numpy()
    ratio = np.linalg.norm(found[1:] - found[:-1], axis=1) / np.linalg.norm(whole[1:] - whole[:-1], axis=1)
    assert np.abs(ratio - 1).max() < 0.15
    assert np.array_equal(found, stage_outputs(space, pixels)[1])
    with penultimate(space) as features:
        assert np.array_equal(features(pixels), found)


def test_stages_without_a_layer_have_a_number_and_those_behind_the_output_layer_do_not_count(built: Any) -> None:
    space = built("Wide")
    assert [stage.layers for stage in below(space)] == [(), ("conv",)]
    found = information(space, read(space.model), draws=2)
    assert found is not None
    assert found.names == ("0", "conv")
    assert np.shape(found.stages) == np.shape(found.shuffled) == (2, 2)


def test_the_input_of_the_output_layer(built: Any, forgetting: Any) -> None:
    space = forgetting.space
    pixels = space.data.test_images[:300]
    with penultimate(space) as features:
        assert np.array_equal(features(pixels), stage_outputs(space, pixels)[-1])
    space = built("Reading")
    with penultimate(space) as features, torch.no_grad():
        expected = F.relu(space.model.first(space.normalised(pixels).flatten(1))).numpy()
        assert features(pixels) == pytest.approx(expected, abs=1e-5)


def test_the_layer_that_the_model_ends_with_is_not_the_output_layer_if_nothing_depends_on_it(built: Any) -> None:
    space = built("Reading")
    before = arrays(space.model)
    yardstick = Yardstick(space=space, before=before)

    def changed(*names: str) -> Arrays:
        return {name: array + 1 if name in names else array for name, array in before.items()}

    assert yardstick.changed_head_alone(changed("part.out.weight"))
    assert not yardstick.changed_head_alone(changed("idle.weight"))
    assert not yardstick.changed_head_alone(changed("part.out.weight", "first.bias"))


def test_a_model_that_cannot_be_cut(built: Any) -> None:
    space = built("Tokens")
    assert inapplicable(space) == "does not apply: the model cannot be cut below its output layer"
    assert information(space, read(space.model)) is None
    with penultimate(space) as features:
        assert features(space.data.test_images[:7]).shape == (7, 784)
    assert 0 <= head_recovery(space, read(space.model)).accuracy <= 1
