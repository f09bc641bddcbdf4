"""Further metrics of an audit: what they are given, and that one which fails spoils nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.evidence import Evidence, measured
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import FULL, METRIC, Answer, Metric
from fused_ray.core.state import flatten
from fused_ray.core.work import ModelEvaluation
from fused_ray.errors import Interrupted
from fused_ray.seeding import generator

AGREEMENT = METRIC.find("agreement")


def take(yardstick: Yardstick, *metrics: Metric) -> dict[str, Any]:
    """The figures for the model that remembers, as if it had forgotten."""
    return measured(metrics, yardstick, yardstick.before, yardstick.seen_before)


def metric(measure: Any, name: str = "x") -> Metric:
    return Metric(name=name, measure=measure, meaning="a figure.")


def test_agreement_by_hand(yardstick: Yardstick) -> None:
    ours, theirs = (seen.outputs.argmax(1) for seen in (yardstick.seen_before, yardstick.seen_retrained) if seen)
    views = yardstick.space.scenario.views
    expected = {
        f"agreement_{name}": sum(a == b for a, b in zip(ours[view.indices], theirs[view.indices], strict=True))
        / len(view.indices)
        for name, view in views.items()
    }
    found = take(yardstick, AGREEMENT)
    assert {figure["name"]: figure["value"] for figure in found["audit_metrics"]} == expected
    assert {figure["better"] for figure in found["audit_metrics"]} == {"higher"}
    alone = take(replace(yardstick, retrained=None, others=()), AGREEMENT)
    assert alone["audit_metrics"] == []
    assert alone["audit_metrics_failed"] == [
        "metric agreement: there is no retrained model to agree with; it is left out"
    ]


def test_what_a_metric_is_given(yardstick: Yardstick) -> None:
    seen: list[Evidence] = []

    def look(evidence: Evidence) -> float:
        seen.append(evidence)
        return 2

    (figure,) = take(yardstick, metric(look))["audit_metrics"]
    assert figure == {"name": "x", "value": 2.0, "better": "none", "meaning": "a figure"}
    (evidence,) = seen
    views = yardstick.space.scenario.views
    for name, view in views.items():
        assert evidence.labels[name].tolist() == view.labels.tolist()
        assert np.array_equal(evidence.after.outputs[name], yardstick.seen_before.outputs[view.indices])
    assert evidence.retrained is not None
    assert evidence.space is not yardstick.space  # which serves the other methods of a scenario, too
    assert evidence.rng.integers(1 << 60) == generator(yardstick.space.config.seed, "metric x").integers(1 << 60)
    weights = next(iter(evidence.after.weights.values()))
    with pytest.raises(ValueError, match="read-only"):
        weights[...] = 0


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (lambda evidence: 1 / 0, "metric x: ZeroDivisionError: division by zero; it is left out"),
        (lambda evidence: float("nan"), "metric x: ValueError: x is nan; it is left out"),
        (lambda evidence: {"RA!": 1.0}, "metric x: ValueError: it names a figure 'x_RA!'; use small letters, digits"),
        (lambda evidence: "high", "metric x: ValueError: could not convert string to float: 'high'"),
        ("math:no_such", "metric x: ValueError: math has no no_such"),
    ],
)
def test_one_that_fails_is_told_and_left_out(yardstick: Yardstick, measure: Any, said: str) -> None:
    found = take(yardstick, metric(measure), metric(lambda evidence: 1.0, "y"))
    assert [figure["name"] for figure in found["audit_metrics"]] == ["y"]
    (line,) = found["audit_metrics_failed"]
    assert line.startswith(said)


def test_an_answer_is_told_with_its_figures_and_its_details_apart(yardstick: Yardstick) -> None:
    def found(passes: bool | None) -> dict[str, Any]:
        return take(yardstick, metric(lambda evidence: Answer({"a": 2}, passes, "so it is", {"why": [1]})))

    told = found(False)
    assert {figure["name"]: figure["value"] for figure in told["audit_metrics"]} == {"x_passes": 0, "x_a": 2}
    assert told["audit_answers"] == [{"name": "x", "passes": False, "said": "so it is"}]
    assert told["audit_details"] == {"x": {"why": [1]}}
    assert [figure["name"] for figure in found(None)["audit_metrics"]] == ["x_a"]


def test_what_holds_for_all_methods_of_a_scenario_is_found_out_once(yardstick: Yardstick) -> None:
    fresh = replace(yardstick, repeats=2)
    asked: list[str] = []

    def look(evidence: Evidence) -> float:
        return evidence.remembered("it", lambda: asked.append("x") or 3.0)

    for name in ("x", "x", "y"):
        (figure,) = take(fresh, metric(look, name))["audit_metrics"]
        assert figure["value"] == 3
    assert len(asked) == 2, "once for each metric"
    take(replace(fresh, repeats=3), metric(look))
    assert len(asked) == 3, "another yardstick knows nothing of it"


def test_a_metric_may_train_and_look_at_models_of_its_own(yardstick: Yardstick) -> None:
    def look(evidence: Evidence) -> dict[str, float]:
        assert len(evidence.others) == len(yardstick.others) == 1
        assert evidence.adapter is None
        assert evidence.federation is evidence.federation
        again = evidence.known(yardstick.others[0])
        assert {view: said.tolist() for view, said in again.outputs.items()} == {
            view: said.tolist() for view, said in evidence.others[0].outputs.items()
        }
        return evidence.federation.evaluate(ModelEvaluation(), flatten(yardstick.others[0])) | {"_": 0.0}

    names = {figure["name"]: figure["value"] for figure in take(yardstick, metric(look))["audit_metrics"]}
    assert names["x_ra"] == yardstick.seen_others[0].accuracy["ra"].weighted


def test_a_full_audit_asks_what_is_registered() -> None:
    assert {name for name in METRIC.built_in if name != "agreement"} == set(FULL)


def test_a_request_to_stop_passes(yardstick: Yardstick) -> None:
    def stop(evidence: Evidence) -> float:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        take(yardstick, metric(stop))


@pytest.mark.parametrize(("fields", "said"), [({"name": "A B"}, "'A B'"), ({"better": "up"}, "better is higher")])
def test_a_wrong_record_says_what_is_wrong(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Metric(**({"name": "x", "measure": len, "meaning": ""} | fields))
