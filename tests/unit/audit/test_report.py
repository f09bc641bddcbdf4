"""The whole audit of unlearnings whose verdict is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.accuracy import client_accuracies
from fused_ray.audit.control import SHIFT
from fused_ray.audit.report import Restored, Subject, audit
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import UnlearnConfig
from fused_ray.config.parts.models import MODELS
from fused_ray.core.adapter import Masks, random_masks, start_values
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.state import Arrays, flatten, unflatten


def named(report: dict[str, Any]) -> set[str]:
    """The verdict and the findings."""
    return {report["verdict"], *(finding["name"] for finding in report["findings"])}


@pytest.fixture(scope="module")
def masks(yardstick: Yardstick) -> Masks:
    return random_masks(0, yardstick.before, ["fc3"], 1.0)


@pytest.fixture(scope="module")
def idle(yardstick: Yardstick, masks: Masks) -> dict[str, Any]:
    """An unlearning that does nothing."""
    return audit(Subject(yardstick=yardstick, method="nothing", after=yardstick.before, masks=masks))


def test_doing_nothing_fails(idle: dict[str, Any]) -> None:
    assert idle["verdict"] == "not forgotten"
    assert not idle["head_only"]
    assert not idle["trivial"]
    assert idle["accuracy"]["after"] == idle["accuracy"]["before"]


def test_every_audit_tells_who_is_served_worst(idle: dict[str, Any], yardstick: Yardstick) -> None:
    for model, seen in (("after", yardstick.seen_before), ("retrained", yardstick.seen_retrained)):
        assert seen is not None
        found = client_accuracies(yardstick.space.data, yardstick.space.scenario, seen.outputs.argmax(1))
        assert idle["worst_client_ra"][model] == min(found.values())


@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0])
def test_random_values_fail(yardstick: Yardstick, masks: Masks, scale: float) -> None:
    """Small ones leave everything as it is, large ones destroy it."""
    values = (scale * np.random.default_rng(0).normal(size=masks.size)).astype(np.float32)
    report = audit(Subject(yardstick=yardstick, method="random", after=masks.apply(yardstick.before, values)))
    assert report["verdict"] in ("damaged", "not forgotten")


def test_the_control_is_trivial_and_relearns_at_once(yardstick: Yardstick) -> None:
    """A model that really has the control's bias."""
    bias = yardstick.before["fc3.bias"].copy()
    bias[np.unique(yardstick.space.scenario.views["fa"].labels)] -= SHIFT
    after = {**yardstick.before, "fc3.bias": bias}
    report = audit(Subject(yardstick=yardstick, method="control", after=after))
    assert report["trivial"]
    assert report["verdict"] == "shallow"
    assert {"head only", "relearns fast", "trivial"} <= named(report)
    assert report["accuracy"]["after"] == report["accuracy"]["control"]
    assert report["relearning"]["ratio"]["high"] < 0.5


def test_retraining_passes(yardstick: Yardstick) -> None:
    report = audit(Subject(yardstick=yardstick, method="retrain", after=yardstick.others[0]))
    assert report["verdict"] == "forgotten", report["sentence"]
    assert report["distance"]["ratio"] == {"forget": 1.0, "retain": 1.0, "test": 1.0}  # it is the floor itself


def test_every_figure_is_there(idle: dict[str, Any], yardstick: Yardstick, masks: Masks) -> None:
    inside = replace(yardstick, probes=True)
    probed = audit(Subject(yardstick=inside, method="nothing", after=yardstick.before, masks=masks))
    assert (idle["method"], idle["scenario"], idle["fa_is_asr"]) == ("nothing", "class", False)
    for model in ("before", "after", "retrained", "control"):
        for view in ("ra", "fa"):
            assert 0 <= idle["accuracy"][model][view]["weighted"] <= 1
            assert 0 <= idle["accuracy"][model][view]["macro"] <= 1
    assert idle["accuracy"]["before"]["fa"]["weighted"] > 0.6
    assert idle["accuracy"]["retrained"]["fa"]["weighted"] == 0
    assert len(idle["relearning"]["after"]["curve"]) == 41
    assert idle["relearning"]["after"]["steps"] == 0
    shuffled = probed["relearning"]["shuffled"]
    assert shuffled["curve"][0] == idle["relearning"]["after"]["curve"][0]
    assert shuffled["curve"][-1] < 0.1
    loss = {model: idle["membership"][model]["loss"]["auc"] for model in ("after", "retrained")}
    assert idle["membership"]["gap"]["loss"] == abs(loss["after"] - loss["retrained"])
    assert idle["membership"]["gap"]["shadow"] is None
    distances = idle["distance"]
    assert distances["forget"]["js"] > distances["test"]["js"] > distances["retain"]["js"] > 0
    assert distances["ratio"]["forget"] == distances["forget"]["js"] / distances["floor"]["forget"]["js"] > 1
    for where in ("everywhere", "adapter"):
        assert -1 < probed["opposition"][where]["phi"] < 0  # what stays and what goes are at odds
        assert math.copysign(1, probed["opposition"][where]["measured"]) > 0
    assert probed["opposition"]["adapter"]["g_u"] < probed["opposition"]["everywhere"]["g_u"]
    assert probed["index"]["value"] is None  # hardly anything to find in so small a world
    assert probed["index"]["why"].startswith("cannot be told")
    assert probed["head_recovery"]["after"] == probed["head_recovery"]["before"]
    assert probed["head_recovery"]["after"]["accuracy"] > 0.5
    assert (idle["index"], idle["opposition"], idle["relearning"]["shuffled"]) == (None, None, None)


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
    alone = replace(yardstick, retrained=None, others=(), steps=1)
    subject = Subject(yardstick=alone, method="fused", after=yardstick.before, restored=Restored("a", found))
    report = audit(subject)
    assert report["restored"] is expected
    assert ("not reversible" in named(report)) is not expected


def test_without_a_retrained_model_less_is_said(yardstick: Yardstick) -> None:
    alone = replace(yardstick, retrained=None, others=(), steps=1)
    good: Arrays = yardstick.retrained or {}
    report = audit(Subject(yardstick=alone, method="given", after=good))
    assert report["verdict"] == "unjudged"
    assert "still known" not in named(report)
    assert report["accuracy"]["retrained"] is None
    assert report["relearning"]["retrained"] is None
    assert report["membership"]["retrained"] is None
    assert report["distance"] is None
    assert report["restored"] is None
    idle = audit(Subject(yardstick=alone, method="nothing", after=yardstick.before))
    assert named(idle) == {"unjudged", "still known"}


def fresh(forgetting: Any, rounds: int) -> Arrays:
    """A new model that learned from what stays for a few rounds."""
    federation = forgetting.federation
    start = fedavg.initial(federation, "fresh")
    return unflatten(fedavg.fedavg(federation, flatten(start), "fresh", "retained", rounds).payload, start)


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_model_that_learned_little_is_damaged(yardstick: Yardstick, forgetting: Any, rounds: int) -> None:
    """Also where it is no worse than the model before, which is poor in some scenarios."""
    report = audit(Subject(yardstick=yardstick, method="fresh", after=fresh(forgetting, rounds)))
    assert report["verdict"] == "damaged"


def test_where_the_model_before_knew_nothing_it_is_vacuous(yardstick: Yardstick) -> None:
    knew_nothing = replace(yardstick, before=yardstick.retrained or {})
    report = audit(Subject(yardstick=knew_nothing, method="retrain", after=yardstick.others[0]))
    assert report["verdict"] == "vacuous"


def test_a_method_with_a_model_of_its_own_is_judged_from_that_one(yardstick: Yardstick) -> None:
    """Whatever M_r knew, there was nothing to forget in the method's own model."""
    assert yardstick.retrained is not None
    known = yardstick.seen_retrained
    assert known is not None
    own = {"ra": 0.5, "fa": known.accuracy["fa"].weighted}
    report = audit(Subject(yardstick=yardstick, method="exactfun", after=yardstick.retrained, before=own))
    assert report["verdict"] == "vacuous"
    assert f"FA before, {own['fa']:.3f}" in report["sentence"]


def test_negating_every_layer_damages(yardstick: Yardstick) -> None:
    masks = random_masks(0, yardstick.before, MODELS["lenet"].layers, 1.0)
    after = masks.apply(yardstick.before, start_values(masks, yardstick.before, "negate", ""))
    assert audit(Subject(yardstick=yardstick, method="negate", after=after))["verdict"] == "damaged"


def test_an_output_layer_that_forgot_alone_is_shallow(yardstick: Yardstick, forgetting: Any) -> None:
    """However well it does on the outputs, and however many steps relearning takes."""
    config = forgetting.config.model_copy(
        update={"unlearn": UnlearnConfig(layers=("fc3",), start="negate", sparsity=0.5, rounds=2)}
    )
    federation = replace(forgetting.federation, config=config)
    federation.pool.install(flatten(yardstick.before))
    found = fused.unlearn(federation, yardstick.before)
    report = audit(Subject(yardstick=yardstick, method="fused", after=found.state))
    assert report["accuracy"]["after"]["fa"]["weighted"] == 0
    assert report["head_only"]
    assert report["verdict"] in ("shallow", "damaged")
    assert "head only" in named(report) or "head only" in report["sentence"]
