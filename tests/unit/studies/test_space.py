"""Dimensions as Ray Tune's primitives, and back."""

from __future__ import annotations

import pytest
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from fused_ray import FusedRayError
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.dimension import Dimension
from fused_ray.studies.tune.space import from_tune, to_tune


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (tune.choice(["zero", "reset"]), {"choice": ["zero", "reset"]}),
        (tune.uniform(0.1, 0.5), {"uniform": [0.1, 0.5]}),
        (tune.loguniform(1e-3, 1.0), {"loguniform": [1e-3, 1.0]}),
        (tune.quniform(0.1, 0.9, 0.1), {"quniform": [0.1, 0.9, 0.1]}),
        (tune.qloguniform(0.1, 0.9, 0.1), {"qloguniform": [0.1, 0.9, 0.1]}),
        (tune.randint(1, 6), {"randint": [1, 6]}),
        (tune.lograndint(1, 6), {"lograndint": [1, 6]}),
        (tune.qrandint(2, 8, 2), {"qrandint": [2, 8, 2]}),
        (tune.qlograndint(2, 8, 2), {"qlograndint": [2, 8, 2]}),
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
        from_tune("unlearn.lr", tune.qrandn(0, 1, 0.1))


@pytest.mark.parametrize(
    ("said", "low", "high", "step"),
    [
        ({"randint": [1, 5]}, 1, 4, 1),
        ({"lograndint": [1, 5]}, 1, 4, 1),
        ({"qrandint": [10, 21, 5]}, 10, 20, 5),
        ({"quniform": [0.05, 0.35, 0.1]}, 0.1, 0.3, 0.1),
        ({"uniform": [0.05, 0.35]}, 0.05, 0.35, None),
    ],
)
def test_optuna_proposes_from_the_values_that_would_be_drawn(
    said: dict[str, list[float]], low: float, high: float, step: float | None
) -> None:
    space = {"unlearn.lr": to_tune(Dimension.model_validate(said))}
    found = OptunaSearch.convert_search_space(space)["unlearn.lr"]
    assert (found.low, found.high, found.step) == (low, high, step)
