"""The Pareto front and the recommended setting, by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fused_ray.audit.verdict import UNDERTRAINED
from fused_ray.config import RunConfig
from fused_ray.studies.sweeps import tables
from fused_ray.studies.sweeps.choice import choose, unaudited
from fused_ray.studies.sweeps.front import Audited, Candidate, Case, Setting, cases, pareto, settled
from fused_ray.studies.sweeps.rows import ACCURACIES, report


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


def test_the_smallest_upload_near_retraining_is_the_best_candidate() -> None:
    rows = [row(0, 0.85, 0.0, 900), row(1, 0.79, 0.02, 300), row(2, 0.789, 0.0, 100), row(3, 0.9, 0.021, 50)]
    (case,) = cases(rows, 0.01, 0.02)
    # 2 loses 1.1 points of RA, 3 keeps 2.1 points of FA
    assert [found.setting.trials for found in case.candidates] == [(1,), (0,)]
    assert case.best == "the smallest upload"
    why = "in all, with RA within 1 point(s) of retraining and FA within 2, as 2 of 4 settings"
    assert [found.why for found in case.candidates] == [f"300 B {why}", f"900 B {why}"]
    assert case.recommended is None
    assert case.reason == f"the smallest upload, not audited yet: layers 1, I = 1 (300 B {why})"


def test_where_none_comes_near_the_nearest_is_named() -> None:
    (case,) = cases([row(0, 0.5, 0.0, 10), row(1, 0.7, 0.1, 90)], 0.01, 0.02)
    assert [found.setting.trials for found in case.candidates] == [(1,), (0,)]  # misses .09 + .08; the other .29
    assert case.best == "the nearest"
    assert "this one misses by 17.0 points" in case.candidates[0].why


def test_without_retraining_nothing_is_recommended() -> None:
    (case,) = cases([row(0, 0.5, 0.0, 10, ra_retrained=None, fa_retrained=None)], 0.01, 0.02)
    assert choose(case, judging({}), 5) is case
    assert unaudited(case) is case
    assert case.recommended is None
    assert "nothing is recommended: retraining was left out" in case.reason


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
    assert [found.setting for found in case.candidates] == case.front
    (case,) = cases(rows[2:], 0.01, 0.02, seeds=2)
    assert (case.front, case.candidates) == ([], [])
    assert "all its seeds" in case.reason


# -- what is recommended


def judging(words: dict[tuple[int, int], str]) -> Callable[[Candidate], Audited]:
    """Verdicts by trial and round; "head" is a shallow one because nothing below the output layer changed."""

    def judge(candidate: Candidate) -> Audited:
        setting = candidate.setting
        word = words[setting.trials[0], setting.round]
        if word == "head":
            return Audited(setting, "shallow", "SAID", [{"name": "head only", "sentence": ""}])
        return Audited(setting, word, "SAID")

    return judge


def listed(case: Case) -> list[tuple[int, int, str]]:
    return [(each.setting.trials[0], each.setting.round, each.verdict) for each in case.audited]


WHY = "in all, with RA within 1 point(s) of retraining and FA within 2, as 5 of 5 settings"


@pytest.fixture
def three() -> Case:
    """Trial 0 changes fc3, 1 and 2 more: uploads of 1, 2, 3, 4 and 6 bytes."""
    deep = {"layers": "conv2 fc3"}
    rows = [row(0, 0.8, 0.0, sent, sent) for sent in (1, 2)]
    rows += [row(1, 0.8, 0.0, 3 * round, round, **deep) for round in (1, 2)] + [row(2, 0.8, 0.0, 4, 1, **deep)]
    (case,) = cases(rows, 0.01, 0.02)
    return case


def test_the_smallest_upload_that_is_forgotten_is_recommended(three: Case) -> None:
    found = choose(three, judging({(0, 1): "damaged", (0, 2): "forgotten"}), 5)
    assert listed(found) == [(0, 1, "damaged"), (0, 2, "forgotten")]  # and no more are audited
    assert found.recommended is three.settings[1]
    assert found.reason == f"the smallest upload that is forgotten: 2 B {WHY}; SAID"
    assert found.verdict(three.settings[0]) is found.audited[0]
    assert found.verdict(three.settings[2]) is None


def test_what_changes_the_same_output_layer_is_not_audited_again(three: Case) -> None:
    found = choose(three, judging({(0, 1): "head", (1, 1): "shallow", (2, 1): "forgotten"}), 5)
    assert listed(found) == [(0, 1, "shallow"), (1, 1, "shallow"), (2, 1, "forgotten")]
    assert found.recommended is three.candidates[3].setting
    # several layers may leave all but the last one as they were by chance
    found = choose(three, judging({(0, 1): "head", (1, 1): "head", (2, 1): "head", (1, 2): "forgotten"}), 5)
    assert listed(found)[-1] == (1, 2, "forgotten")


@pytest.mark.parametrize("word", ["unjudged", "damaged", "not forgotten", "shallow"])
def test_nothing_is_recommended_that_is_not_forgotten(three: Case, word: str) -> None:
    found = choose(three, judging(dict.fromkeys([(0, 1), (0, 2), (1, 1), (2, 1), (1, 2)], word)), 5)
    assert len(found.audited) == 5
    assert found.recommended is None
    none = "nothing is recommended: of 5 audited candidate(s) none is forgotten; the best, layers 0, I = 1"
    assert found.reason == f"{none} (1 B {WHY}), is {word}: SAID"


def test_what_a_model_that_learned_little_calls_forgotten_is_not_recommended_and_that_is_said(three: Case) -> None:
    learned_little = [{"name": UNDERTRAINED, "sentence": "its RA is .2"}]

    def judge(candidate: Candidate) -> Audited:
        return Audited(candidate.setting, "forgotten", "SAID", learned_little)

    found = choose(three, judge, 1)
    assert found.recommended is None
    assert found.reason.startswith(
        "nothing is recommended: layers 0, I = 1 is forgotten as a model that learned little says (its RA is .2); "
    )
    assert "none is forgotten" not in found.reason


def test_where_nothing_was_to_be_forgotten_the_same_models_are_not_audited_again(three: Case) -> None:
    words = {(0, 1): "vacuous", (3, 1): "shallow"}
    found = choose(three, judging(words), 5)
    assert listed(found) == [(0, 1, "vacuous")]
    assert found.recommended is None
    assert found.reason.endswith("is vacuous: SAID")
    other = Candidate(cases([row(3, 0.8, 0.0, 9, seed=1)], 0.01, 0.02)[0].settings[0], "")
    found = choose(replace(three, candidates=[*three.candidates, other]), judging(words), 5)
    assert listed(found) == [(0, 1, "vacuous"), (3, 1, "shallow")]


def test_where_the_limit_ends_it_the_reason_says_so(three: Case) -> None:
    words = {(0, 1): "head", (1, 1): "shallow", (2, 1): "forgotten"}
    found = choose(three, judging(words), 2)
    assert listed(found) == [(0, 1, "shallow"), (1, 1, "shallow")]
    assert found.recommended is None
    assert found.reason.endswith("SAID; 2 more were not audited (audits: at most 2)")  # the other of fc3 does not count
    assert choose(three, judging({**words, (1, 1): "forgotten"}), 2).recommended is three.candidates[2].setting
    everything = [(0, 1), (0, 2), (1, 1), (2, 1), (1, 2)]
    assert choose(three, judging(dict.fromkeys(everything, "shallow")), 5).reason.endswith("SAID")


def test_without_audits_the_best_candidate_is_recommended_and_called_so(three: Case) -> None:
    found = unaudited(three)
    assert (found.recommended, found.audited) == (three.settings[0], ())
    assert found.reason == f"the smallest upload, not audited: 1 B {WHY}"


def test_verdicts_are_read_back_from_the_result(three: Case) -> None:
    def told(setting: Setting, word: str) -> dict[str, Any]:
        return {"values": dict(setting.values), "rounds": setting.round, "verdict": word, "verdict_sentence": "SAID",
                "findings": []}  # fmt: skip

    shallow, good = three.candidates[0].setting, three.candidates[1].setting
    said = {"case": "", "audited": [told(shallow, "shallow"), told(good, "forgotten")],
            "recommended": told(good, "forgotten"), "reason": "WHY"}  # fmt: skip
    found = settled(three, [{"case": "another"}, said])
    assert listed(found) == [(0, 1, "shallow"), (0, 2, "forgotten")]
    assert (found.recommended, found.reason) == (good, "WHY")
    assert settled(three, [{"case": "another"}]) is three
    notes = list(tables.layouts([found], RunConfig()))[1].notes
    assert notes[0].startswith("Recommended: layers 0, I = 2 (RA 0.800, FA 0.000): WHY.")
    assert notes[1:] == ("- layers 0, I = 1 is shallow: SAID", "- layers 0, I = 2 is forgotten: SAID")


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
    assert [found.setting.trials for found in case.candidates] == [(0,)]
    assert [setting.trials for setting in case.front] == [(1,), (0,)]
    (swapped,) = cases([halves(0, 100, (0.6, 0.3), (0.85, 0)), halves(1, 90, (0.85, 0), (0.6, 0.3))], 0.01, 0.02)
    assert [setting.trials for setting in swapped.front] == [(1,)]
    assert [found.setting for found in swapped.candidates] == swapped.front


def test_what_is_told_of_the_chosen_is_what_the_other_half_says() -> None:
    found = [unaudited(case) for case in cases(DISAGREE, 0.01, 0.02)]
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
