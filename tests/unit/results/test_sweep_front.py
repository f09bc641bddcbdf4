"""The Pareto front and the recommended setting, by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fused_ray.config import RunConfig
from fused_ray.results.sweep import tables
from fused_ray.results.sweep.front import cases, pareto, recommend
from fused_ray.results.sweep.rows import ACCURACIES, report


def row(trial: int, ra: float, fa: float, sent: int, round: int = 1, seed: int = 0, **more: Any) -> dict[str, Any]:
    """Both halves of the test set say the same where `more` does not."""
    values = more.pop("values", {"unlearn.layers": trial})
    figures = {"ra": ra, "fa": fa, "ra_before": 0.7, "fa_before": 0.9, "ra_retrained": 0.8, "fa_retrained": 0.0}
    figures |= {name: more.pop(name) for name in figures.keys() & more.keys()}
    return {
        "trial": trial, "round": round, "last": True, "bytes_up": sent,
        "bytes_up_total": sent, "seconds_total": 1.0, "status": "done", "seed": seed, "values": json.dumps(values),
        "layers": "fc3", **{f"{name}{half}": figures.get(name) for name in ACCURACIES
                            for half in ("", "_choose", "_report")}, **more,
    }  # fmt: skip


def test_the_front_is_what_no_other_beats() -> None:
    rows = [
        row(0, 0.80, 0.00, 900),
        row(1, 0.80, 0.00, 950),  # beaten by 0: more bytes
        row(2, 0.70, 0.00, 100),
        row(3, 0.69, 0.10, 50),
        row(4, 0.60, 0.20, 60),  # beaten by 3 in all three
        row(5, 0.70, 0.00, 100),  # equals 2: one of them stays
    ]
    (case,) = cases(rows, 0.01, 0.02)
    assert [setting.trials for setting in case.front] == [(3,), (2,), (0,)]
    assert pareto(case.settings[:1]) == [case.settings[0]]


def test_the_smallest_upload_near_retraining_is_recommended() -> None:
    rows = [row(0, 0.85, 0.0, 900), row(1, 0.79, 0.02, 300), row(2, 0.789, 0.0, 100), row(3, 0.9, 0.021, 50)]
    (case,) = cases(rows, 0.01, 0.02)
    assert case.recommended is not None
    assert case.recommended.trials == (1,)  # 2 loses 1.1 points of RA, 3 keeps 2.1 points of FA
    assert "the smallest upload (300 B in all) with RA within 1 point(s) of retraining and FA within 2" in case.reason
    assert "2 of 4 settings are" in case.reason


def test_where_none_comes_near_the_nearest_is_named() -> None:
    (case,) = cases([row(0, 0.5, 0.0, 10), row(1, 0.7, 0.1, 90)], 0.01, 0.02)
    best, reason = recommend(case.settings, 0.01, 0.02)
    assert best is not None
    assert best.trials == (1,)  # misses .09 + .08; the other .29
    assert "misses least, by 17.0 points" in reason


def test_without_retraining_nothing_is_recommended() -> None:
    (case,) = cases([row(0, 0.5, 0.0, 10, ra_retrained=None, fa_retrained=None)], 0.01, 0.02)
    assert case.recommended is None
    assert "retraining was left out" in case.reason


def test_settings_are_means_over_seeds_and_rounds_are_settings_of_their_own() -> None:
    values = {"unlearn.layers": 2}
    rows = [
        row(trial, ra, 0.0, 10 * round, round, seed, values={**values, "seed": seed})
        for trial, (seed, ra) in enumerate([(0, 0.7), (1, 0.9)])
        for round in (1, 2)
    ]
    (case,) = cases(rows, 0.01, 0.02)
    first, second = case.settings
    assert (first.round, second.round) == (1, 2)
    assert (first.seeds, first.trials) == ((0, 1), (0, 1))
    assert first["ra"] == pytest.approx(0.8)
    assert first.spread["ra"] == pytest.approx(0.1414, abs=1e-4)
    assert dict(first.values) == values


def test_scenarios_are_cases_of_their_own_and_failures_are_left_out() -> None:
    rows = [
        row(0, 0.7, 0.0, 10, values={"forget.scenario": "class", "unlearn.layers": 1}),
        row(1, 0.9, 0.0, 10, values={"forget.scenario": "exclusive", "unlearn.layers": 1}),
        row(2, 0.9, 0.0, 5, status="failed: x", values={"forget.scenario": "class", "unlearn.layers": 2}),
    ]
    found = cases(rows, 0.01, 0.02)
    assert [(case.name, len(case.settings)) for case in found] == [("scenario class", 1), ("scenario exclusive", 1)]
    assert found[0].settings[0].text == "layers 1"


def test_a_setting_that_lacks_a_seed_does_not_compete() -> None:
    rows = [row(0, 0.80, 0.0, 900), row(0, 0.82, 0.0, 900, seed=1), row(1, 0.99, 0.0, 50)]
    (case,) = cases(rows, 0.01, 0.02, seeds=2)
    assert [setting.trials for setting in case.settings] == [(0, 0), (1,)]
    assert [setting.trials for setting in case.front] == [(0, 0)]
    assert case.recommended is case.front[0]
    (case,) = cases(rows[2:], 0.01, 0.02, seeds=2)
    assert (case.front, case.recommended) == ([], None)
    assert "all its seeds" in case.reason


# -- one half chooses, the other is reported


def halves(trial: int, sent: int, choose: tuple[float, float], report: tuple[float, float]) -> dict[str, Any]:
    """(RA, FA) on either half."""
    (ra_choose, fa_choose), (ra_report, fa_report) = choose, report
    found = row(trial, (ra_choose + ra_report) / 2, (fa_choose + fa_report) / 2, sent)
    return found | {
        "ra_choose": ra_choose, "fa_choose": fa_choose, "ra_report": ra_report, "fa_report": fa_report,
        "ra_retrained_choose": 0.82, "ra_retrained_report": 0.78,
        "fa_retrained_choose": 0.00, "fa_retrained_report": 0.01,
    }  # fmt: skip


DISAGREE = [halves(0, 100, (0.85, 0.00), (0.60, 0.30)), halves(1, 90, (0.60, 0.30), (0.85, 0.00))]


def test_the_half_that_chooses_decides_whatever_the_other_says() -> None:
    """On the half that is reported, trial 1 is better in all three."""
    (case,) = cases(DISAGREE, 0.01, 0.02)
    assert case.recommended is not None
    assert case.recommended.trials == (0,)
    assert [setting.trials for setting in case.front] == [(1,), (0,)]
    (swapped,) = cases([halves(0, 100, (0.6, 0.3), (0.85, 0)), halves(1, 90, (0.85, 0), (0.6, 0.3))], 0.01, 0.02)
    assert [setting.trials for setting in swapped.front] == [(1,)]
    assert swapped.recommended is swapped.front[0]


def test_what_is_told_of_the_chosen_is_what_the_other_half_says() -> None:
    found = cases(DISAGREE, 0.01, 0.02)
    best = found[0].recommended
    assert best is not None
    assert (best["ra"], best["fa"], best["ra_retrained"], best["fa_retrained"]) == (0.60, 0.30, 0.78, 0.01)
    whole, front = tables.layouts(found, RunConfig())
    assert [line[2:5] for line in whole.body] == [("1", "0.600", "0.300"), ("1", "0.850", "0.000")]
    assert "Recommended: layers 0, I = 1 (RA 0.600, FA 0.300)" in front.notes[0]
    assert "Retrained without the data: RA 0.780, FA 0.010." in whole.notes
    assert any("One half of the test set has chosen" in note for note in whole.notes)


def test_searchers_and_schedulers_look_at_the_half_that_chooses() -> None:
    found = report(DISAGREE[0])
    assert (found["ra"], found["fa"], found["score"], found["bytes_up_total"]) == (0.85, 0.00, 0.85, 100)
    assert math.isnan(found["ca"])
    assert math.isnan(report({})["score"])
