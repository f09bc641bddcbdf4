"""The whole audit of unlearnings whose verdict is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.control import SHIFT
from fused_ray.audit.report import Restored, Subject, audit
from fused_ray.audit.yardstick import Yardstick
from fused_ray.core.adapter import Masks, random_masks
from fused_ray.core.state import Arrays


def named(report: dict[str, Any]) -> set[str]:
    return {finding["name"] for finding in report["findings"]}


@pytest.fixture(scope="module")
def masks(yardstick: Yardstick) -> Masks:
    return random_masks(0, yardstick.before, ["fc3"], 1.0)


@pytest.fixture(scope="module")
def idle(yardstick: Yardstick, masks: Masks) -> dict[str, Any]:
    """An unlearning that does nothing."""
    return audit(Subject(yardstick=yardstick, method="nothing", after=yardstick.before, masks=masks))


def test_doing_nothing_fails(idle: dict[str, Any]) -> None:
    assert not idle["passed"]
    assert "incomplete forgetting" in named(idle)
    assert not idle["trivial"]
    assert idle["accuracy"]["after"] == idle["accuracy"]["before"]


@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0])
def test_random_values_fail(yardstick: Yardstick, masks: Masks, scale: float) -> None:
    """Small ones leave everything as it is, large ones destroy it."""
    values = (scale * np.random.default_rng(0).normal(size=masks.size)).astype(np.float32)
    report = audit(Subject(yardstick=yardstick, method="random", after=masks.apply(yardstick.before, values)))
    assert not report["passed"]
    assert {"incomplete forgetting", "indiscriminate unlearning"} & named(report)


def test_the_control_is_trivial_and_relearns_at_once(yardstick: Yardstick) -> None:
    """A model that really has the control's bias."""
    bias = yardstick.before["fc3.bias"].copy()
    bias[np.unique(yardstick.space.scenario.views["fa"].labels)] -= SHIFT
    after = {**yardstick.before, "fc3.bias": bias}
    report = audit(Subject(yardstick=yardstick, method="control", after=after))
    assert report["trivial"]
    assert named(report) == {"trivial", "leaky"}
    assert report["accuracy"]["after"] == report["accuracy"]["control"]
    assert report["relearning"]["ratio"] < 0.5
    assert not report["passed"]


def test_retraining_passes(yardstick: Yardstick) -> None:
    assert yardstick.retrained_again is not None
    subject = Subject(yardstick=yardstick, method="retrain", after=yardstick.retrained_again)
    report = audit(subject)
    assert report["passed"]
    assert named(report) <= {"trivial"}
    assert report["distance"]["ratio"] == {"forget": 1.0, "retain": 1.0, "test": 1.0}  # it is the floor itself


def test_every_figure_is_there(idle: dict[str, Any], yardstick: Yardstick) -> None:
    assert (idle["method"], idle["scenario"], idle["fa_is_asr"]) == ("nothing", "class", False)
    for model in ("before", "after", "retrained", "control"):
        for view in ("ra", "fa"):
            assert 0 <= idle["accuracy"][model][view]["weighted"] <= 1
            assert 0 <= idle["accuracy"][model][view]["macro"] <= 1
    assert idle["accuracy"]["before"]["fa"]["weighted"] > 0.6
    assert idle["accuracy"]["retrained"]["fa"]["weighted"] == 0
    assert len(idle["relearning"]["after"]["curve"]) == 41
    assert idle["relearning"]["after"]["steps"] == 0
    assert idle["relearning"]["shuffled"]["curve"][0] == idle["relearning"]["after"]["curve"][0]
    assert idle["relearning"]["shuffled"]["curve"][-1] < 0.1
    loss = {model: idle["membership"][model]["loss"]["auc"] for model in ("after", "retrained")}
    assert idle["membership"]["gap"]["loss"] == abs(loss["after"] - loss["retrained"])
    assert idle["membership"]["gap"]["shadow"] is None
    distances = idle["distance"]
    assert distances["forget"]["js"] > distances["test"]["js"] > distances["retain"]["js"] > 0
    assert distances["ratio"]["forget"] == distances["forget"]["js"] / distances["floor"]["forget"]["js"] > 1
    for where in ("everywhere", "adapter"):
        assert -1 < idle["opposition"][where]["phi"] < 0  # what stays and what goes are at odds
        assert math.copysign(1, idle["opposition"][where]["measured"]) > 0
    assert idle["opposition"]["adapter"]["g_u"] < idle["opposition"]["everywhere"]["g_u"]


def test_it_is_plain_and_the_same_each_time(yardstick: Yardstick, masks: Masks) -> None:
    # a replaced yardstick has forgotten all that it measured
    first, second = (
        audit(Subject(yardstick=short, method="nothing", after=yardstick.before, masks=masks))
        for short in (replace(yardstick, steps=3), replace(yardstick, steps=3))
    )
    assert first == second
    assert json.loads(json.dumps(first, allow_nan=False)) == first


@pytest.mark.parametrize(("found", "expected"), [("a", True), ("b", False)])
def test_what_promises_to_come_off_must(yardstick: Yardstick, found: str, expected: bool) -> None:
    alone = replace(yardstick, retrained=None, retrained_again=None, steps=1)
    subject = Subject(yardstick=alone, method="fused", after=yardstick.before, restored=Restored("a", found))
    report = audit(subject)
    assert report["restored"] is expected
    assert ("not reversible" in named(report)) is not expected


def test_without_a_retrained_model_less_is_said(yardstick: Yardstick) -> None:
    alone = replace(yardstick, retrained=None, retrained_again=None, steps=1)
    good: Arrays = yardstick.retrained or {}
    report = audit(Subject(yardstick=alone, method="given", after=good))
    assert report["passed"]
    assert report["accuracy"]["retrained"] is None
    assert report["relearning"]["retrained"] is None
    assert report["membership"]["retrained"] is None
    assert report["distance"] is None
    assert report["restored"] is None
    idle = audit(Subject(yardstick=alone, method="nothing", after=yardstick.before))
    assert named(idle) == {"incomplete forgetting"}
