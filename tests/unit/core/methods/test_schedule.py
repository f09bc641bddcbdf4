"""What is said beforehand of a run's rounds is what the methods do."""

from __future__ import annotations

import pytest

from fused_ray.config import schedule
from fused_ray.core.simulation import simulate

PLACE = ("model.factory=fused_ray.models.bottleneck:build", "model.args={name: tiny, width: 4}")
GROUPS = ("fedsgt.groups=3", "fedsgt.sequences=3", "fedsgt.rounds=1")
SETTINGS = [
    ("unlearn.method=retrain",),
    ("unlearn.method=finetune",),
    ("unlearn.method=federaser", "federaser.interval=1"),
    ("unlearn.method=federaser", "federaser.interval=2"),
    ("unlearn.method=eraseclient",),
    ("unlearn.method=exactfun",),
    ("unlearn.method=exactfun", "exactfun.rounds=2"),
    ("unlearn.method=not",),
    ("unlearn.method=puf",),
    ("unlearn.method=fedquit",),
    ("unlearn.method=fedmemprune",),
    ("unlearn.method=hessian-reset",),
    ("unlearn.method=ridge",),
    ("unlearn.method=fedosd", "fedosd.rounds=2"),
    ("unlearn.method=fedup", *PLACE, "fedup.epochs=1"),
    ("unlearn.method=fedsgt", *GROUPS),
    ("unlearn.method=retrain", "unlearn.retain=0.5"),
    ("unlearn.method=fused", "unlearn.layers=1", "unlearn.selection=critical"),
    ("unlearn.method=fused", "unlearn.layers=[fc]", "unlearn.mask=random"),
    ("unlearn.method=fused", "unlearn.layers=1"),
    ("unlearn.method=fused", "unlearn.selection=budget", "unlearn.budget=50"),
    ("unlearn.method=fused", "unlearn.layers=[fc]", "unlearn.mask=saliency"),
    ("unlearn.method=fused", "unlearn.layers=1", "unlearn.mask=saliency", "unlearn.saliency=difference"),
    ("unlearn.method=fused", "unlearn.layers=[fc]", "unlearn.adapter=lora", "unlearn.rank=2"),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings))
def test_the_rounds_are_those_that_are_made(federate, settings):
    federation = federate("pretrain.rounds=3", "unlearn.rounds=2", "retrain.rounds=2", "audit.enabled=false", *settings)
    simulate(federation.config, federation.data, federation.scenario, federation.pool, federation.recorder)
    made: dict[str, int] = {}
    for record in federation.recorder.records:
        made[record.phase] = made.get(record.phase, 0) + 1
    assert list(schedule.rounds(federation.config).items()) == list(made.items())


def test_what_is_given_is_not_made_again(make_config):
    ranked = ("unlearn.layers=2", "unlearn.selection=critical", "unlearn.mask=random", "retrain.rounds=0")
    fused = make_config(*ranked, "pretrain.from=somewhere")
    assert schedule.rounds(fused) == {"rank": 1, "unlearn": 3, "audit": 1}
    assert schedule.on_shared(fused) == {"unlearn": 3}
    assert schedule.on_shared(make_config("unlearn.method=retrain")) == {"retrain": 2}
    assert schedule.on_shared(make_config("unlearn.selection=budget", "unlearn.budget=9")) == {"rank": 1, "unlearn": 3}


def test_costs_are_counted_in_rounds_of_pretraining(make_config):
    alone = "audit.enabled=false"
    assert schedule.full_rounds(make_config("unlearn.layers=2", alone)) == pytest.approx(2 + 2 * 0.5 + 3 * 0.3 + 2)
    assert schedule.full_rounds(make_config("unlearn.method=finetune", alone)) == 2 + 3 + 2
    assert schedule.full_rounds(make_config("unlearn.method=finetune")) == 2 + 3 + 2 + schedule.COST["audit"]
    assert schedule.full_rounds(make_config("unlearn.layers=2"), {"unlearn": 4}) == pytest.approx(4 * 0.3)
