"""Dimensions as Ray Tune's primitives, and back."""

from __future__ import annotations

import pytest
from ray import tune

from fused_ray import FusedRayError
from fused_ray.engine.space import from_tune, to_tune
from fused_ray.trials import Dimension, SweepConfig


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (tune.choice(["zero", "reset"]), {"choice": ["zero", "reset"]}),
        (tune.uniform(0.1, 0.5), {"uniform": [0.1, 0.5]}),
        (tune.loguniform(1e-3, 1.0), {"loguniform": [1e-3, 1.0]}),
    ],
)
def test_a_primitive_is_what_a_file_says_and_the_other_way_round(made: object, said: dict[str, list[object]]) -> None:
    assert from_tune("unlearn.lr", made) == said
    again = to_tune(Dimension.model_validate(said))
    assert from_tune("unlearn.lr", again) == said


def test_a_grid_is_a_choice_to_a_searcher_and_tunes_grid_is_a_grid() -> None:
    assert to_tune(Dimension(grid=(1, 2))).categories == [1, 2]
    made = from_tune("unlearn.layers", tune.grid_search([1, 2]))
    assert SweepConfig.from_dict({"space": {"unlearn.layers": made}}).space["unlearn.layers"].grid == (1, 2)


def test_other_primitives_are_refused() -> None:
    with pytest.raises(FusedRayError, match="use tune"):
        from_tune("unlearn.lr", tune.randn(0, 1))
    with pytest.raises(FusedRayError, match="use tune"):
        from_tune("unlearn.rounds", tune.randint(1, 9))
