"""Whether what was forgotten comes back while the federation goes on, where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.evidence import Means
from fused_ray.audit.metrics.resurfacing import whole
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.adapter import random_masks
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Federation
from fused_ray.core.state import flatten, unflatten

RESURFACING = METRICS["resurfacing"]
SLOWLY = ("forget.scenario=class", "train.local_epochs=1", "train.lr=0.0005")


@pytest.fixture(scope="module")
def federation(world: Any) -> Federation:
    """One that learns slowly: at the models' own rate, a class that is never shown is gone after a round."""
    federation: Federation = world(*SLOWLY).federation
    return federation


@pytest.fixture(scope="module")
def short(yardstick: Yardstick, world: Any) -> Yardstick:
    """Of models that were trained for two rounds, it says."""
    return replace(yardstick, space=world("forget.scenario=class", "pretrain.rounds=2").space)


def test_who_remembers_fails_and_a_retrained_model_passes(short: Yardstick, federation: Federation, ask: Any) -> None:
    means = Means(None, federation)
    idle = ask(RESURFACING, short, short.before, means)
    assert idle.passes is False
    assert idle.said.startswith("it comes back: FA after 1 / 2 further rounds is ")
    curves = idle.details
    assert set(curves) == {"merged", "retrained", "second"}
    assert {len(curve) for curve in curves.values()} == {2}
    assert idle.figures["gap_1"] == curves["merged"][0]["fa"] - curves["retrained"][0]["fa"] > 0.05
    before, never = (seen.accuracy["fa"].weighted for seen in (short.seen_before, short.seen_retrained) if seen)
    assert idle.figures["share_2"] == idle.figures["gap_2"] / (before - never)
    assert idle.figures["ra_2"] == curves["merged"][1]["ra"]

    control = ask(RESURFACING, short, short.others[0], means)
    assert control.passes is True
    assert control.details["merged"] == control.details["second"]
    assert control.figures["gap_2"] == control.figures["gap_2_control"]


def test_models_differ_by_where_they_begin_alone(short: Yardstick, federation: Federation, world: Any) -> None:
    """The very bits of ordinary training, whatever the phase is called; and what was made before is taken."""
    start, recorder = flatten(short.before), federation.recorder
    assert isinstance(recorder, MemoryRecorder)
    curve = whole(federation, start, 2)
    made = len(recorder.records)
    assert whole(federation, start, 2) == curve
    assert len(recorder.records) == made
    plain = world(*SLOWLY).federation
    end = fedavg.fedavg(plain, start, "resurface", "retained", 2)
    assert curve[-1] == {view: end.metrics[view] for view in ("ra", "fa")}
    assert any(np.array_equal(kept.payload.values, end.payload.values) for kept in recorder.saved.values())


def test_with_the_adapter_on_its_values_alone_learn(short: Yardstick, federation: Federation, ask: Any) -> None:
    """An adapter that is zero is M_r: it comes back at once, and all below it stays as it was."""
    masks = random_masks(0, short.before, ["fc3"], 1.0)
    zero = np.zeros(masks.size, np.float32)
    found = ask(RESURFACING, short, short.before, Means((masks, zero), federation))
    assert set(found.details) == {"merged", "adapter", "retrained", "second"}
    assert found.figures["gap_1_adapter"] > 0.05
    assert isinstance(federation.recorder, MemoryRecorder)
    trained = next(kept for name, kept in federation.recorder.saved.items() if name.count("-") == 2)
    assert trained.payload.values.shape == (masks.size,)
    assert np.any(trained.payload.values)


def test_nothing_can_come_back_that_was_not_there(short: Yardstick, federation: Federation, ask: Any) -> None:
    assert short.retrained is not None
    found = ask(RESURFACING, replace(short, before=short.retrained), short.others[0], Means(None, federation))
    assert found.passes is None
    assert "share_2" not in found.figures


@pytest.mark.slow
def test_a_backdoor_behind_the_output_bias_comes_back(world: Any, ask: Any) -> None:
    """Its target is a class that stays, so that training on what stays raises the bias again."""
    made = world("forget.scenario=sample", "forget.clients=[0,1]", "pretrain.rounds=3")
    federation = made.federation

    def trained(name: str, on: Any) -> Any:
        start = fedavg.initial(federation, name)
        end = fedavg.fedavg(federation, flatten(start), name, on, 3)
        return unflatten(end.payload, start)

    before, retrained, again = (trained(*how) for how in (("a", "held"), ("b", "retained"), ("c", "retained")))
    yardstick = Yardstick(space=made.space, before=before, retrained=retrained, others=[again])
    silent = before["fc3.bias"].copy()
    silent[np.unique(made.scenario.views["fa"].labels)] -= 10
    after = {**before, "fc3.bias": silent}
    assert yardstick.see(after).accuracy["fa"].weighted < 0.05
    found = ask(RESURFACING, yardstick, after)
    assert found.passes is False
    assert found.figures["gap_3"] > 0.2
