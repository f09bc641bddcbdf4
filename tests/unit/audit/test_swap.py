"""The SWAP test: its formula by hand, attackers that gain all and nothing, and what is exchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fused_ray.audit.membership import draw
from fused_ray.audit.swap import Answers, advantage, formula, swap, swapped
from fused_ray.seeding import generator

N = 200


def test_the_formula_by_hand() -> None:
    assert formula(0.8, 0.5, 0.6, 0.4) == pytest.approx(0.25)
    assert 1 - formula(0.8, 0.5, 0.6, 0.4) == pytest.approx(0.75)


def test_who_knows_the_forgotten_by_name_gains_nothing() -> None:
    assert formula(1, 0, 0, 1) == 0  # without the swap it would have been right every time


def noise(purpose: str) -> Any:
    """Answers about nothing [2n, 5]."""
    return generator(0, purpose).normal(size=(2 * N, 5))


def test_a_mark_on_what_was_forgotten_is_found_in_whatever_feature() -> None:
    """F stands first; the model that forgot F answers high about F, the one that forgot T about T."""
    one, other = noise("one"), noise("other")
    one[:N, 3] += 10
    other[N:, 3] += 10
    assert advantage(Answers(one, other), seed=0) > 0.95
    assert advantage(Answers(-one, -other), seed=0) > 0.95


def test_a_difference_between_the_images_themselves_is_no_gain() -> None:
    """Both models answer high about F: that they are other images, not what was forgotten."""
    one, other = noise("one"), noise("other")
    one[:N, 0] += 10
    other[:N, 0] += 10
    assert abs(advantage(Answers(one, other), seed=0)) < 0.1


def test_chance_gives_nothing_though_the_best_of_many_thresholds_is_taken() -> None:
    gains = [advantage(Answers(noise(f"one {k}"), noise(f"other {k}")), seed=k) for k in range(20)]
    assert abs(np.mean(gains)) < 4 * np.std(gains) / np.sqrt(20)
    assert np.min(gains) < 0


def test_one_retrained_model_gives_exactly_nothing() -> None:
    """It saw neither F nor T, so that it serves both times."""
    same = noise("one")
    assert advantage(Answers(same, same), seed=0) == 0


def test_splits_are_averaged_and_the_quality_does_not_exceed_one() -> None:
    marked = noise("one")
    marked[:N] += 10
    found = Answers(marked, np.roll(marked, N, 0)), Answers(noise("one"), noise("other"))
    result = swap(found, found, [], seed=0)
    assert result.after == pytest.approx(np.mean([advantage(each, 0) for each in found]))
    assert (result.retrained, result.pairs, result.splits) == (None, N, 2)
    assert result.quality == pytest.approx(1 - result.after)
    assert swap(found[1:], found[1:], found[1:], seed=1).quality <= 1


def test_images_are_exchanged_and_nothing_else(world: Any) -> None:
    made = world("forget.scenario=sample")
    sample = draw(made.space, 1)
    assert np.array_equal(sample.member_labels, sample.other_labels)
    data = swapped(made.data, sample)
    assert np.array_equal(data.train_images[sample.members], made.data.test_images[sample.others])
    assert np.array_equal(data.test_images[sample.others], made.data.train_images[sample.members])
    rest = np.setdiff1d(np.arange(len(data.train_labels)), sample.members)
    assert np.array_equal(data.train_images[rest], made.data.train_images[rest])
    assert data.train_labels is made.data.train_labels
    assert not np.array_equal(draw(made.space, 2).others, sample.others)
