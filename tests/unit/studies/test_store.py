"""Shared models: whatever a run changes, the model that it takes from the store is the one that it would have made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray.studies.store import pretraining, retraining
from tests.unit.config.fields import CHANGES, NEEDS, attempt, make

OURS = ("pretrain.from", "retrain.rounds=0", "model.weights", "data.root")
"""What a study sets itself, what leaves retraining out, and files that there are not."""


@pytest.mark.parametrize("change", [change for change in CHANGES if not change.startswith(OURS)])
def test_a_shared_model_is_the_runs_own(change: str) -> None:
    key = change.partition("=")[0]
    given = [*([NEEDS[key]] if key in NEEDS else []), change]
    if attempt({}, *given):
        return  # not without another field
    config = make(*given)
    before, retrained = pretraining(Path("store"), config), retraining(Path("store"), config)
    assert before.pretrain_key() == config.pretrain_key()
    assert retrained is not None
    assert retrained.retrain_key() == config.retrain_key()
    assert retrained.taking_part("retrain") == config.taking_part("retrain")
