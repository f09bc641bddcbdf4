"""Whether what was forgotten comes back while the federation goes on, where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.evidence import Means
from fused_ray.audit.metrics.resurfacing import against, whole
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.adapter import random_masks
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Federation
from fused_ray.core.state import flatten

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


def test_who_trains_otherwise_goes_on_beside_retrained_models_that_do(short: Yardstick, world: Any, ask: Any) -> None:
    """Whichever of a comparison's methods is judged first: a rate of its own holds for all models that go on."""
    space = world("forget.scenario=class", "pretrain.rounds=1").space
    found = []
    for rates in ((0.0005, 0.001), (0.001,)):
        fresh = replace(short, space=space)
        for rate in rates:
            means = Means(None, world(*SLOWLY, f"train.lr={rate}").federation)
            asked = ask(RESURFACING, fresh, short.before, means)
        found.append(asked)
    assert found[0] == found[1]


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


def test_the_rule_by_hand() -> None:
    """.05 above the retrained model's, whose own spread on a thousand examples is .004; and what the control needs."""
    fa = {"merged": {1: 0.02, 20: 0.08}, "adapter": {1: 0.01, 20: 0.03}, "retrained": {1: 0.02, 20: 0.02}}
    gap, allowed = against(fa, 1000)
    assert set(gap) == {"merged", "adapter"}
    assert gap["merged"] == pytest.approx({1: 0, 20: 0.06})
    assert gap["adapter"] == pytest.approx({1: -0.01, 20: 0.01})
    assert allowed == pytest.approx({1: 0.05, 20: 0.05})
    gap, allowed = against({**fa, "second": {1: 0.0, 20: 0.04}}, 1000)
    assert gap["second"] == pytest.approx({1: -0.02, 20: 0.02})
    assert allowed == pytest.approx({1: 0.05, 20: 0.07})
    assert against(fa, 10)[1] == pytest.approx(dict.fromkeys((1, 20), 3 * (0.02 * 0.98 / 10) ** 0.5))
