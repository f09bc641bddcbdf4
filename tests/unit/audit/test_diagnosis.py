"""A good unlearning, and one constructed failure of each kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fused_ray.audit.diagnosis import Figures, auc_margin, diagnose, passed
from fused_ray.audit.relearning import Relearning


def relearned(steps: float | None) -> Relearning:
    return Relearning((0.0,) * 41, 0.0, steps)


GOOD = Figures(
    ra_before=0.80,
    fa_before=0.79,
    ra=0.79,
    fa=0.02,
    ra_retrained=0.82,
    fa_retrained=0.0,
    auc=0.53,
    auc_retrained=0.50,
    auc_examples=2_000,
    relearning=relearned(9.5),
    relearning_retrained=relearned(10.0),
    restored=True,
)
ALONE = replace(GOOD, ra_retrained=None, fa_retrained=None, auc_retrained=None, relearning_retrained=None)


@pytest.mark.parametrize("figures", [GOOD, ALONE, replace(GOOD, restored=None)])
def test_a_good_unlearning_passes(figures: Figures) -> None:
    assert diagnose(figures) == []
    assert passed([])


FAILURES = [
    (replace(GOOD, ra=0.74), "indiscriminate unlearning", ["0.740", "0.800", "0.820", "0.05"]),
    (replace(ALONE, ra=0.74), "indiscriminate unlearning", ["0.740", "0.800", "0.05"]),
    (replace(GOOD, fa=0.06), "incomplete forgetting", ["0.060", "0.000", "0.05"]),
    (replace(ALONE, fa=0.40), "incomplete forgetting", ["0.400", "0.790", "0.5"]),
    (replace(GOOD, restored=False), "not reversible", ["hash"]),
    (replace(GOOD, auc=0.56), "leaky", ["0.560", "0.500", "0.050", "remembered"]),
    (replace(GOOD, auc=0.44), "leaky", ["0.440", "0.500", "0.050", "mark"]),
    (replace(GOOD, relearning=relearned(8.9)), "leaky", ["8.9", "10.0", "0.9"]),
    (
        replace(GOOD, relearning=relearned(30.0), relearning_retrained=relearned(None)),
        "leaky",
        ["30.0", "more than 40"],
    ),
    (replace(GOOD, fa_before=0.05), "vacuous", ["0.050", "0.000", "0.05"]),
]


@pytest.mark.parametrize(("figures", "name", "told"), FAILURES)
def test_each_failure_is_named_with_its_figures(figures: Figures, name: str, told: list[str]) -> None:
    findings = diagnose(figures)
    assert [finding.name for finding in findings] == [name]
    assert all(text in findings[0].sentence for text in told)
    assert not passed(findings)


def test_trivial_is_said_and_does_not_fail() -> None:
    findings = diagnose(replace(GOOD, trivial=True))
    assert [finding.name for finding in findings] == ["trivial"]
    assert passed(findings)
    assert not passed([*findings, *diagnose(replace(GOOD, fa=0.5))])


def test_an_ra_that_only_falls_to_the_retrained_models_is_no_damage() -> None:
    assert diagnose(replace(GOOD, ra=0.70, ra_retrained=0.72)) == []


def test_an_ra_that_rises_less_than_the_retrained_models_is_no_damage() -> None:
    """Poisoned before: RA .55 became .72, a retrained model has .78."""
    assert diagnose(replace(GOOD, ra_before=0.55, ra=0.72, ra_retrained=0.78)) == []


def test_few_examples_need_a_larger_difference() -> None:
    assert auc_margin(2_000) == 0.05
    # two standard errors of a difference: 2 * sqrt(2 * (2 * 50 + 1) / (12 * 50^2))
    assert auc_margin(50) == pytest.approx(0.1641, abs=1e-4)
    assert diagnose(replace(GOOD, auc=0.60, auc_examples=50)) == []


def test_all_that_is_wrong_is_said() -> None:
    bad = replace(GOOD, ra=0.5, fa=0.5, restored=False, auc=0.9, relearning=relearned(0.0), trivial=True)
    assert [finding.name for finding in diagnose(bad)] == [
        "indiscriminate unlearning",
        "incomplete forgetting",
        "not reversible",
        "leaky",
        "leaky",
        "trivial",
    ]
