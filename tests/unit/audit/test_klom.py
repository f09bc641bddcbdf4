"""KLoM: by hand, at its bounds, and between models that are and are not alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.klom import FEWEST, MOST, divergence, klom, margins
from fused_ray.core.state import flatten
from fused_ray.seeding import generator


def column(*values: float) -> Any:
    return np.array(values, float)[:, None]


def test_two_bins_by_hand() -> None:
    ours, theirs = column(0, 0, 1, 1), column(0, 1, 1, 1)
    assert divergence(ours, theirs, bins=2) == pytest.approx([0.1438], abs=5e-5)
    assert divergence(ours, theirs, bins=2)[0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_the_largest_margin_is_in_the_last_bin() -> None:
    """Were it dropped, as by bins that are open above, nothing would be left of the one side."""
    assert divergence(column(1, 1), column(0, 1), bins=2) == pytest.approx([math.log(2)])


def test_a_bin_that_no_retrained_model_is_in_counts_a_little() -> None:
    assert divergence(column(1, 1), column(0, 0)) == pytest.approx([-math.log(FEWEST)])
    assert -math.log(FEWEST) == pytest.approx(11.51, abs=0.005)


def test_models_that_all_say_the_same_do_not_differ() -> None:
    assert divergence(column(3, 3, 3), column(3, 3)).tolist() == [0]


def test_margins_are_clipped() -> None:
    """One infinite margin would put all others into one bin."""
    ours, theirs = column(-1e9, 0, 0, 50), column(-100, 0, 0, 50)
    assert divergence(ours, theirs).tolist() == [0]


def drawn(purpose: str, models: int, shift: float = 0.0) -> Any:
    """Margins [models, 300]."""
    return generator(0, purpose).normal(size=(models, 300)) + shift


def test_like_models_are_at_the_floor_and_shifted_ones_far_above() -> None:
    retrained, before = drawn("retrained", 40), drawn("before", 40, 4)
    good = klom(drawn("unlearned", 40), retrained, before)
    bad = klom(drawn("unlearned", 40, 4), retrained, before)
    assert good.after == pytest.approx(good.floor, abs=0.5)
    assert good.mean == pytest.approx(good.mean_floor, abs=0.15)
    assert bad.floor == good.floor
    assert min(bad.after, bad.all, good.before) > 9
    assert good.floor < 6
    assert good.mean_before > good.mean_floor + 5
    assert good.models == 40


def test_the_floor_is_of_the_same_number_of_models() -> None:
    """With four models even like ones differ much, and the figure beside the floor is of as many."""
    few = klom(drawn("unlearned", 4), drawn("retrained", 4), drawn("before", 4))
    assert few.floor > 5
    assert few.mean == pytest.approx(few.mean_floor, rel=0.15)
    assert few.mean > 2 * klom(drawn("unlearned", 40), drawn("retrained", 40), drawn("before", 40)).mean


def test_margins_of_every_set(yardstick: Any) -> None:
    found = margins(yardstick.space, flatten(yardstick.before))
    retrained = margins(yardstick.space, flatten(yardstick.retrained))
    assert {name: len(part) for name, part in found.items()} == {
        "forget": min(MOST, len(yardstick.space.scenario.gone.indices)),
        "retain": MOST,
        "test": MOST,
    }
    assert np.mean(found["forget"]) > 0 > np.mean(retrained["forget"])  # a class that the one knows, and the other not
    assert np.mean(retrained["retain"]) > 0
