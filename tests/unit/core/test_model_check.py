"""Adapters that could not learn are refused before anything is trained, or other layers are chosen."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fused_ray import RunConfig, models, run
from fused_ray.core import state
from fused_ray.core.methods import fused
from fused_ray.core.model_check import check_model
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.errors import ConfigError

SHAPE = (1, 28, 28)
RESET = ("unlearn.start=reset", "unlearn.sparsity=0")
NET = "model.factory=checked_models:Net"


class Half(nn.Linear):
    """Uses its weight alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)


class Net(nn.Module):
    """A hidden layer before a ReLU, whose bias nobody uses, and a layer for training only."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.enter, self.hidden, self.extra = nn.Linear(784, 6), Half(6, 12), nn.Linear(12, 12)
        self.head = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.hidden(torch.tanh(self.enter(x.flatten(1)))).relu()
        return self.head(self.extra(h).relu() if self.training else h)


class Closed(nn.Module):
    """Every layer but the first stands before a ReLU."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(784, 6), nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.enter(x.flatten(1)).relu()).relu()


@pytest.fixture(autouse=True, scope="module")
def _module() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        module = types.ModuleType("checked_models")
        module.__dict__.update(Net=Net, Closed=Closed)
        patch.setitem(sys.modules, "checked_models", module)
        yield


def refusal(*fields: str) -> str:
    config = RunConfig.from_dict({}, fields)
    with pytest.raises(ConfigError) as caught:
        check_model(config, SHAPE, 10)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([NET, "unlearn.layers=[extra]"], "unlearn.layers: no gradient reaches extra of checked_models:Net"),
        ([NET, "unlearn.layers=[head, extra]", "unlearn.adapter=lora"], "name others of enter, hidden, head"),
        ([NET, "unlearn.layers=4"], "4 is more than the 3 layers of checked_models:Net (enter, hidden, head)"),
        ([NET, *RESET, "unlearn.layers=[hidden]"], "set all of hidden to zero, and no gradient passes the ReLU"),
        ([NET, *RESET, "unlearn.layers=[enter, hidden]"], "adapt head instead, or use a sparsity of 0.5 or more"),
        (["model.factory=checked_models:Closed", *RESET, "unlearn.layers=1"], "set all of out to zero"),
        (["model.factory=checked_models:Closed", *RESET, "unlearn.layers=2"], "set all of out to zero"),
        # what masks are bound to cover, of a registered model too
        (["unlearn.start=reset", "unlearn.layers=[fc2]", "unlearn.budget=10164"], "would set fc2 wholly to zero"),
        (
            ["unlearn.start=reset", "unlearn.layers=[conv2]", "unlearn.sparsity=1e-4"],
            "reset with this unlearn.sparsity would set conv2 wholly to zero",
        ),
        (["unlearn.start=reset", "unlearn.selection=budget", "unlearn.budget=50000"], "conv2 and fc1 and fc2 and fc3"),
        ([NET, "unlearn.start=reset", "unlearn.layers=[hidden]", "unlearn.budget=84"], "where no gradient reaches it"),
    ],
)
def test_what_could_not_learn_is_refused(fields: list[str], said: str) -> None:
    assert said in refusal(*fields)


@pytest.mark.parametrize(
    "fields",
    [
        [NET, *RESET, "unlearn.layers=[enter, head]"],
        [NET, *RESET, "unlearn.layers=1"],
        [NET, "unlearn.start=negate", "unlearn.sparsity=0", "unlearn.layers=[hidden]"],
        [NET, "unlearn.adapter=lora", "unlearn.layers=[hidden]"],
        [NET, "unlearn.start=reset", "unlearn.layers=[hidden]", "unlearn.budget=83"],
        ["unlearn.start=reset", "unlearn.layers=[fc2]", "unlearn.budget=10163"],
        ["unlearn.start=reset", "unlearn.layers=[fc3]", "unlearn.budget=10000"],
        ["unlearn.start=reset", "unlearn.layers=[conv1, fc3]", "unlearn.sparsity=1e-4"],
        ["unlearn.start=reset", "unlearn.selection=budget", "unlearn.budget=40000"],
    ],
)
def test_what_can_learn_is_taken(fields: list[str]) -> None:
    check_model(RunConfig.from_dict({}, fields), SHAPE, 10)


@pytest.fixture
def on(make_config, data, scenario, recorder):
    """A federation with an installed base, and that base."""

    def make(*overrides):
        config = make_config(*overrides)
        federation = Federation(config, data, scenario, LocalPool(config, data, scenario), recorder())
        base = state.arrays(models.initialise(config.model, SHAPE, data.classes, 0, "init"))
        federation.pool.install(state.flatten(base))
        return federation, base

    return make


@pytest.mark.parametrize("selection", ["critical", "random", "last"])
def test_a_whole_reset_chooses_a_layer_that_learns(on, selection):
    """By the sum, LeNet's most sensitive layer is fc1, from where a reset would not come back."""
    federation, base = on(*RESET, "unlearn.layers=1", "unlearn.ranking=sum", f"unlearn.selection={selection}")
    found = fused.unlearn(federation, base)
    assert found.adapter.names == ("fc3",)
    assert [item.layer for item in found.ranking][:1] == (["fc1"] if selection == "critical" else [])
    assert all(record.loss < 1.38 for record in federation.recorder.records if record.phase == "unlearn")  # ln 4


def test_masks_that_turn_out_to_cover_a_hidden_layer_are_refused(on):
    for mask in ("random", "saliency"):
        fields = ("unlearn.layers=1", "unlearn.ranking=sum", "unlearn.start=reset", "unlearn.budget=40000")
        federation, base = on(*fields, f"unlearn.mask={mask}")
        with pytest.raises(ConfigError, match=r"reset with this unlearn\.budget would set fc1 wholly to zero"):
            fused.unlearn(federation, base)


@pytest.mark.parametrize("mask", ["random", "saliency"])
@pytest.mark.parametrize("layers", ["[hidden]", "3"])
def test_a_parameter_that_evaluation_leaves_out_stays_as_it_is(on, mask, layers):
    federation, base = on(NET, f"unlearn.layers={layers}", "unlearn.sparsity=0", f"unlearn.mask={mask}")
    found = fused.unlearn(federation, base)
    assert np.array_equal(found.state["hidden.bias"], base["hidden.bias"])
    assert not np.array_equal(found.state["hidden.weight"], base["hidden.weight"])


def test_a_run_says_which_layers_a_whole_reset_leaves_out(tmp_path: Path) -> None:
    fields = ["engine.backend=local", "federation.clients=2", "data.limit=60", "output.plots=false"]
    fields += [*RESET, "unlearn.layers=1", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=0"]
    fields += ["audit.enabled=false"]
    heard: list[str] = []
    result = run(
        RunConfig.from_dict({}, [*fields, f"output.dir={tmp_path / 'run'}"]),
        listener=lambda progress: heard.extend(progress.notes),
    )
    assert result["layers"]["chosen"] == ["fc3"]
    assert any(note.startswith("none of conv2, fc1, fc2 is chosen: reset at sparsity 0") for note in heard)
