"""RULI with canaries: its score by hand, roles, and an attack on what was and was not forgotten."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.ruli import CANARIES, IN, OUT, UNLEARN, canaries, likelihood, request, roles, ruli
from fused_ray.errors import DataError
from fused_ray.seeding import generator


def asked(score: float, unlearned: list[float], out: list[float]) -> float:
    """The likelihood of a shadow's score of one canary, where the other shadows have these scores."""
    scores = np.array([[score, *unlearned, *out]]).T
    kind = np.arange(len(scores))[:, None]
    kinds = (kind > 0) & (kind <= len(unlearned)), kind > len(unlearned)
    return float(likelihood(scores, scores, scores, kinds)[0, 0])


def test_the_score_by_hand() -> None:
    assert asked(1.5, [2.0], [0.0]) == pytest.approx(0.7311, abs=5e-5)
    assert asked(1.5, [2.0], [0.0]) == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_density_is_a_mean_over_its_centres() -> None:
    assert asked(0.0, [0.0, 0.0, 0.0], [0.0]) == pytest.approx(0.5)
    assert asked(0.0, [0.0, 40.0], [0.0]) == pytest.approx(1 / 3)


def test_far_from_everything_either_is_as_likely_and_without_centres_nothing_is_known() -> None:
    assert asked(1e3, [0.0], [1.0]) == 0.5
    assert math.isnan(asked(0.0, [], [1.0]))


def test_every_canary_and_every_shadow_has_each_role_a_third_of_the_time() -> None:
    found = roles(30, 12, seed=0)
    for role in (IN, OUT, UNLEARN):
        assert np.array_equal((found == role).sum(0), np.full(30, 4))
        assert np.array_equal((found == role).sum(1), np.full(12, 10))
    assert not np.array_equal(found[:3], found[3:6])
    assert np.array_equal(roles(30, 6, seed=0), found[:6])  # more shadows leave the earlier ones as they were


def test_canaries_are_kept_examples_with_wrong_labels(forgetting: Any) -> None:
    scenario = forgetting.scenario
    chosen = canaries(forgetting.data, scenario, seed=0)
    assert len(chosen.indices) == CANARIES
    assert np.isin(chosen.indices, scenario.retained.indices).all()
    assert not np.any(chosen.labels == scenario.train_labels[chosen.indices])
    assert len(set(chosen.labels.tolist())) == forgetting.data.classes
    few = replace(scenario, retained=(scenario.retained[0][:20], scenario.retained[1][:9]))
    with pytest.raises(DataError, match=r"audit\.ruli: 29 examples stay"):
        canaries(forgetting.data, few, seed=0)


def test_what_a_shadow_trains_on_and_forgets(forgetting: Any) -> None:
    scenario = forgetting.scenario
    chosen = canaries(forgetting.data, scenario, seed=0)
    role = roles(CANARIES, 3, seed=0)[0]
    made = request(scenario, chosen, role)
    gone, out = chosen.indices[role == UNLEARN], chosen.indices[role == OUT]
    assert np.array_equal(np.sort(made.gone.indices), gone)
    assert np.array_equal(np.sort(made.held.indices), np.setdiff1d(scenario.retained.indices, out))
    assert np.array_equal(made.train_labels[chosen.indices], chosen.labels)
    rest = np.setdiff1d(np.arange(len(made.train_labels)), chosen.indices)
    assert np.array_equal(made.train_labels[rest], scenario.train_labels[rest])
    for client in range(2):  # nothing changes hands
        assert np.isin(made.held[client], scenario.held[client]).all()


def said(role: Any, memory: float) -> tuple[Any, Any]:
    """Scores before and after: who was trained on is 4 higher, and `memory` of that is left after forgetting."""
    before = generator(0, "before").normal(size=role.shape) + 4 * (role != OUT)
    after = generator(0, "after").normal(size=role.shape) + 4 * (role == IN) + 4 * memory * (role == UNLEARN)
    return before, after


def test_what_was_not_forgotten_is_found() -> None:
    role = roles(60, 12, seed=1)
    found = ruli(*said(role, memory=1), role, seed=1)
    assert min(found.privacy, found.efficacy, found.before) > 0.95
    assert found.floor == pytest.approx(0.5, abs=0.05)
    assert (found.shadows, found.canaries) == (12, 60)


def test_what_was_forgotten_as_if_it_had_never_been_there_is_not() -> None:
    role = roles(60, 12, seed=1)
    found = ruli(*said(role, memory=0), role, seed=1)
    assert found.before > 0.95
    for auc in (found.privacy, found.efficacy):
        assert auc == pytest.approx(found.floor, abs=4 * found.spread)


def test_what_is_marked_by_forgetting_is_found_as_well() -> None:
    """Below those that were never there: the attacker learns what its shadows say, in whatever direction."""
    role = roles(60, 12, seed=1)
    assert ruli(*said(role, memory=-1), role, seed=1).privacy > 0.95


def test_efficacy_compares_with_models_before_and_privacy_with_models_after() -> None:
    """Forgetting moves all scores down by 4, those of canaries that were never there as well."""
    role = roles(60, 12, seed=1)
    before, after = said(role, memory=0)
    found = ruli(before, after - 4, role, seed=1)
    assert found.privacy == pytest.approx(0.5, abs=0.1)
    assert found.efficacy > 0.95


def test_chance_comes_to_one_half_though_shadows_are_left_out_of_their_own_kind() -> None:
    found = [
        ruli(*2 * [generator(seed, "chance").normal(size=(12, 60))], roles(60, 12, seed), seed) for seed in range(5)
    ]
    for name in ("privacy", "floor"):
        aucs = [getattr(each, name) for each in found]
        assert np.mean(aucs) == pytest.approx(0.5, abs=4 * np.std(aucs) / np.sqrt(5))
        assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)


def test_the_scale_of_scores_does_not_matter() -> None:
    role = roles(60, 12, seed=1)
    before, after = said(role, memory=0.2)
    assert ruli(before, after, role, 1).privacy == pytest.approx(ruli(50 * before, 50 * after, role, 1).privacy)
