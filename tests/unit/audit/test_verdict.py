"""One constructed case of each verdict and each finding, on figures alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fused_ray.audit.information import Index
from fused_ray.audit.relearning import Relearning
from fused_ray.audit.verdict import WORDS, Figures, judge, recommended


def relearned(steps: float | None, start: float = 0.0) -> Relearning:
    return Relearning((start, *(0.0,) * 40), 0.0, steps)


def index(value: float | None, why: str = "") -> Index:
    return Index(value=value, told=value is not None, why=why, denominator=0.1, spread=0.01)


GOOD = Figures(
    classes=10,
    ra_before=0.80,
    fa_before=0.79,
    ra=0.815,
    fa=0.02,
    ra_retrained=0.82,
    fa_retrained=0.0,
    auc=0.53,
    auc_retrained=0.50,
    auc_floor=0.01,
    relearning=relearned(9.5),
    relearning_retrained=relearned(10.0),
    index=index(0.1),
    recovery=0.70,
    recovery_before=0.90,
    recovery_retrained=0.68,
    restored=True,
)


def named(figures: Figures) -> list[str]:
    return [finding.name for finding in judge(figures).findings]


def test_level_with_retraining_is_forgotten() -> None:
    found = judge(GOOD)
    assert (found.word, found.findings) == ("forgotten", ())
    assert "RA 0.815 and FA 0.020 are at most a margin worse than retraining's 0.820 and 0.000; " in found.sentence
    assert found.sentence.endswith(
        "; inside, relearning (ratio 0.95), head recovery (0.700, retrained 0.680), index (0.10): within what "
        "retrained models differ by"
    )


def test_head_only_is_seen_without_a_retrained_model() -> None:
    alone = {name: None for name in vars(GOOD) if name.endswith("_retrained")}
    found = judge(replace(GOOD, **alone, index=None, head_only=True))
    assert (found.word, [finding.name for finding in found.findings]) == ("unjudged", ["head only"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"index": index(None, "cannot be told: noise")}, {"relearning", "head recovery"}),
        ({"relearning_retrained": relearned(0.0)}, {"head recovery", "index"}),
        ({"relearning": relearned(None)}, {"relearning", "head recovery", "index"}),
        (
            {"relearning": relearned(35.0), "relearning_retrained": relearned(None)},
            {"head recovery", "index"},
        ),
        ({"recovery_before": 0.78}, {"relearning", "index"}),
        ({"index": None, "recovery": None, "relearning": None}, set()),
    ],
)
def test_a_check_that_cannot_tell_is_no_reason_to_say_forgotten(changes: dict[str, Any], told: set[str]) -> None:
    found = judge(replace(GOOD, **changes))
    assert found.word == "forgotten"
    assert {name for name in ("relearning", "head recovery", "index") if name in found.sentence} == told
    assert found.sentence.endswith("of its inside nothing can be told") == (not told)


@pytest.mark.parametrize(
    ("changes", "word", "told"),
    [
        ({"ra_retrained": None, "fa_retrained": None}, "unjudged", ["0.815", "0.020", "0.790"]),
        ({"fa_before": 0.05}, "vacuous", ["0.050", "0.000", "0.05"]),
        ({"fa_before": 0.05, "ra_before": 0.299}, "vacuous", ["had learned little (RA 0.299): pre-train longer"]),
        ({"ra": 0.769}, "damaged", ["0.769", "0.820", "0.05"]),
        # a fresh model after three rounds is no worse than before, and far below a retrained one
        ({"ra_before": 0.303, "ra": 0.303, "ra_retrained": 0.653}, "damaged", ["0.303", "0.653"]),
        ({"fa": 0.051}, "not forgotten", ["0.051", "0.000", "0.050"]),
        ({"fa": 0.09, "fa_floor": 0.029}, "not forgotten", ["0.090", "0.087"]),
        ({"head_only": True}, "shallow", ["head only"]),
        ({"relearning": relearned(6.9)}, "shallow", ["relearns fast"]),
        ({"relearning": relearned(27.9), "relearning_retrained": relearned(None)}, "shallow", ["relearns fast"]),
        ({"index": index(0.51)}, "shallow", ["known inside"]),
        ({"recovery": 0.79}, "shallow", ["head recovers"]),
    ],
)
def test_each_verdict_says_its_figures(changes: dict[str, Any], word: str, told: list[str]) -> None:
    found = judge(replace(GOOD, **changes))
    assert found.word == word
    assert all(text in found.sentence for text in told)


@pytest.mark.parametrize(
    "changes",
    [
        {"ra": 0.7701},
        {"fa": 0.05},
        {"fa": 0.086, "fa_floor": 0.029},
        {"relearning": relearned(7.0)},
        {"relearning": relearned(28.1), "relearning_retrained": relearned(None)},
        {"index": index(0.5)},
        {"recovery": 0.7799},
    ],
)
def test_up_to_its_threshold_it_is_forgotten(changes: dict[str, Any]) -> None:
    assert judge(replace(GOOD, **changes)).word == "forgotten"


def test_the_worst_wins_and_the_rest_are_findings() -> None:
    bad = replace(GOOD, ra=0.5, fa=0.5, head_only=True, restored=False, auc=0.9, trivial=True)
    assert judge(bad).word == "damaged"
    assert named(bad) == ["not forgotten", "head only", "leaky", "trivial", "not reversible"]
    assert WORDS.index("damaged") < WORDS.index("not forgotten") < WORDS.index("shallow")


@pytest.mark.parametrize(
    ("changes", "name", "told"),
    [
        ({"ra": 0.80}, "below retraining", ["0.800", "0.820"]),
        ({"fa_retrained": 0.10, "fa": 0.04}, "over-forgotten", ["0.040", "0.05"]),
        ({"auc": 0.56}, "leaky", ["0.560", "0.500", "0.050", "remembered"]),
        ({"auc": 0.44}, "leaky", ["0.440", "0.500", "0.050", "mark"]),
        ({"trivial": True}, "trivial", ["bias"]),
        ({"ra_retrained": 0.299, "ra": 0.299, "ra_before": 0.3}, "undertrained", ["0.299", "0.300"]),
        ({"restored": False}, "not reversible", ["bits"]),
        ({"comparable": False}, "not comparable", ["floating point"]),
        ({"relearning_retrained": relearned(0.0, 0.6)}, "blind", ["0.600", "start"]),
        ({"relearning": relearned(None), "relearning_retrained": relearned(None)}, "blind", ["more than 40"]),
        ({"relearning": relearned(37.0), "relearning_retrained": relearned(None)}, "blind", ["37.0", "more than 40"]),
        ({"index": index(None, "the floor is not cleared")}, "blind", ["the floor is not cleared"]),
        ({"recovery_before": 0.78, "recovery": 0.9}, "blind", ["head recovery", "0.780", "0.680"]),
        ({"auc": 0.6, "auc_floor": 0.17}, "blind", ["too few"]),
        ({"membership_possible": False, "auc": None, "auc_retrained": None}, "blind", ["no test image"]),
    ],
)
def test_each_finding_beside_a_good_verdict(changes: dict[str, Any], name: str, told: list[str]) -> None:
    found = judge(replace(GOOD, **changes))
    assert found.word == "forgotten"
    assert [finding.name for finding in found.findings] == [name]
    assert all(text in found.findings[0].sentence for text in told)


def test_level_with_a_retrained_model_that_learned_nothing_is_seen_and_not_recommended() -> None:
    chance = replace(GOOD, ra_before=0.361, ra=0.128, ra_retrained=0.133)
    assert judge(chance).word == "forgotten"
    assert named(chance) == ["worse than before", "undertrained"]
    assert not recommended("forgotten", named(chance))
    assert recommended("forgotten", ["trivial"])
    assert not recommended("shallow", [])


def test_more_than_the_retrained_models_steps_is_a_bound() -> None:
    """37 steps against more than 40 is at most .93, and more than 40 against 37 at least 1.08."""
    fast = replace(GOOD, relearning=relearned(20.0), relearning_retrained=relearned(None))
    assert "at most 0.50" in judge(fast).findings[0].sentence
    slow = replace(GOOD, relearning=relearned(None), relearning_retrained=relearned(37.0))
    assert judge(slow).word == "forgotten"
    assert named(slow) == []


def test_without_a_retrained_model_the_one_before_is_the_standard() -> None:
    alone = replace(GOOD, ra_retrained=None, fa_retrained=None, auc_retrained=None, relearning_retrained=None,
                    index=None, recovery_retrained=None)  # fmt: skip
    assert named(alone) == []
    assert named(replace(alone, ra=0.74)) == ["worse than before"]
    assert named(replace(alone, fa=0.40)) == ["still known"]


def test_where_there_was_nothing_to_forget_depth_is_not_asked_for() -> None:
    assert named(replace(GOOD, fa_before=0.04, relearning=relearned(1.0), head_only=True)) == []


def test_few_examples_need_a_larger_difference() -> None:
    assert named(replace(GOOD, auc=0.60, auc_floor=0.04)) == []
    assert named(replace(GOOD, auc=0.63, auc_floor=0.04)) == ["leaky"]
