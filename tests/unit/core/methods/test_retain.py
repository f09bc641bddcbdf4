"""A part of what stays, `unlearn.retain`: a method sees nothing of the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fused_ray.core import methods, state
from fused_ray.core.methods import fedavg
from fused_ray.core.pools import LocalPool
from fused_ray.core.remaining import used
from fused_ray.core.rounds import Federation
from fused_ray.types import Scenario

PLACE = ("model.factory=fused_ray.models.bottleneck:build", "model.args={name: tiny}", "fedup.epochs=2")
METHODS_OF = {
    **{name: (f"unlearn.method={name}",) for name in ("retrain", "finetune", "not", "puf", "fedquit", "fedmemprune")},
    **{name: (f"unlearn.method={name}",) for name in ("hessian-reset", "eraseclient")},
    "fedosd": ("unlearn.method=fedosd", "fedosd.rounds=1"),
    "fedup": ("unlearn.method=fedup", *PLACE),
    "default": ("unlearn.method=fused", "unlearn.mask=saliency", "unlearn.saliency=difference"),
    "paper": ("unlearn.method=fused", "unlearn.layers=1"),
    "saliency without rounds": (
        *("unlearn.method=fused", "unlearn.mask=saliency", "unlearn.saliency=difference", "unlearn.layers=[fc]"),
        *("unlearn.rounds=0", "unlearn.start=negate"),
    ),
}


def end(federation: Federation, base: Any, kept: Any) -> str:
    federation.recorder.kept.update(kept)  # type: ignore[attr-defined]
    federation.pool.install(state.flatten(base))
    return state.state_hash(methods.unlearn(federation, base).state)


LATER = ("not", "fedquit", "fedmemprune", "eraseclient", "paper")
"""Their rounds on D_r are those of others in the list."""
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in LATER else ()) for name in METHODS_OF]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_rest_reaches_the_model(
    make_config: Any, data: Any, gone: Scenario, recorder: Any, name: str
) -> None:
    """Whatever the examples that are left out show, the same M_r gives the same bits; those that are used count."""
    own = ("model.name=tiny", "forget.scenario=client", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1")
    config = make_config(*own, "unlearn.retain=0.4", *METHODS_OF[name])
    few = gone.parts(used(config, "retained"))
    rest = gone.retained.without(few).indices
    pictures = []
    for rows in (rest[:0], rest, few.indices):
        images = data.train_images.copy()
        images[rows] = 255 - images[rows]
        pictures.append(dataclasses.replace(data, train_images=images))
    base, kept, found = None, None, []
    for one in pictures:
        pool = LocalPool(config, one, gone)
        federation = Federation(config, one, gone, pool, recorder())
        if base is None:
            start = fedavg.initial(federation, "pretrain")
            base = state.unflatten(fedavg.pretrain(federation, state.flatten(start)).payload, start)
            kept = federation.recorder.kept
        found.append(end(federation, base, kept))
    assert found[0] == found[1] != found[2]
