"""How many examples a client is shown, by hand: five steps of 16 on 20 examples are two passes and a batch."""

from __future__ import annotations

import pytest

from fused_ray.config import RunConfig
from fused_ray.studies.sweeps import estimate

STEPS = ("train.local_steps=5", "forget.scenario=client")
SHOWN = [
    ("finetune", "unlearn", 1, 56),
    ("fused", "unlearn", 1, 56),
    ("fused", "saliency", 1, 20),
    ("federaser", "replay", 2, 56),
    ("federaser", "unlearn", 2, 36),  # half of the steps, rounded up
    ("eraseclient", "unlearn", 1, 100),  # its own five epochs
    ("eraseclient", "unlearn", 2, 56),
    ("puf", "unlearn", 1, 20),
    ("puf", "unlearn", 2, 56),
    ("fedquit", "unlearn", 1, 20),
    ("fedquit", "unlearn", 2, 56),
]


@pytest.mark.parametrize(("method", "phase", "round", "shown"), SHOWN)
def test_what_a_client_of_a_method_is_shown(method: str, phase: str, round: int, shown: int) -> None:
    config = RunConfig.from_dict({}, [*STEPS, f"unlearn.method={method}"])
    assert config.method.shown(config, phase, round, 20) == shown


def test_a_plan_counts_the_steps() -> None:
    costs = estimate.Costs({"pretrain": 1.0}, 0.0, {"pretrain": 0.0})
    settings = ("data.limit=400", "federation.clients=20")
    for fields, seconds in ((STEPS, 400 * 56 / 20), (("train.local_epochs=2",), 400.0)):  # an epoch's cost is measured
        config = RunConfig.from_dict({}, [*settings, *fields])
        assert estimate.seconds(config, {"pretrain": 1}, costs) == pytest.approx(seconds)
