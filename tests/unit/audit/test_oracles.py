"""Training and forgetting once more: what is planned, what is trained, and what the three audits make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from fused_ray.audit import oracles
from fused_ray.audit.klom import SETS
from fused_ray.audit.oracles import MEANINGS, concluded, figures, planned, train
from fused_ray.audit.yardstick import Yardstick
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.state import flatten, unflatten
from fused_ray.errors import DataError

ASKED = ("audit.swap=2", "audit.klom=3", "audit.ruli=12")
SMALL = (
    *("data.limit=300", "forget.scenario=sample", "pretrain.rounds=1", "train.local_epochs=1"),
    "unlearn.rounds=1",
)


@pytest.fixture(scope="module")
def made(world: Any) -> Any:
    return world(*SMALL, *ASKED)


@pytest.fixture(scope="module")
def kept(made: Any) -> dict[str, Any]:
    """Of every training."""
    pool = LocalPool(made.config, made.data, made.scenario)
    found = {}
    for anew in planned(made.space):
        pool.assign(anew.config, anew.data, anew.scenario)
        found[anew.name] = train(Federation(anew.config, anew.data, anew.scenario, pool, MemoryRecorder()), anew)
    return found


@pytest.fixture(scope="module")
def yardstick_of(made: Any) -> Yardstick:
    federation = made.federation
    start = fedavg.initial(federation, "pretrain")
    models = [
        unflatten(fedavg.fedavg(federation, flatten(fedavg.random_model(federation, n)), n, on, 1).payload, start)
        for n, on in (("pretrain", "held"), ("retrain", "retained"), ("retrain-2", "retained"))
    ]
    return Yardstick(space=made.space, before=models[0], retrained=models[1], others=models[2:])


def test_what_is_planned(made: Any, world: Any) -> None:
    all_of_them = list(planned(made.space))
    names = [anew.name for anew in all_of_them]
    wanted = {"swap": 2, "klom": 3, "ruli": 12}
    assert names == [f"{name}-{number}" for name, count in wanted.items() for number in range(1, count + 1)]
    assert [anew.name for anew in all_of_them if anew.retrains] == ["klom-1", "klom-2", "klom-3"]
    assert len({anew.config.seed for anew in all_of_them} | {made.config.seed}) == 18
    assert all(anew.scenario is made.scenario for anew in all_of_them[:5])
    assert all(anew.data is made.data for anew in all_of_them[2:])
    assert list(planned(world(*SMALL).space)) == []


def test_one_pair_has_no_halves(world: Any) -> None:
    space = world(*SMALL, "forget.examples=[3]", "forget.poison=false", "audit.swap=1").space
    with pytest.raises(DataError, match=r"audit\.swap: an attack found on half of the pairs .* there is one pair"):
        next(iter(planned(space)))


def test_a_training_is_that_of_its_configuration(made: Any, kept: dict[str, Any]) -> None:
    """M_r, unlearned and retrained models are others in each, of the same examples; and the same each time."""
    for name, arrays in kept.items():
        kinds = ["after", "before", *(["retrained"] if name.startswith("klom") else [])]
        assert sorted({key.split(".")[0] for key in arrays}) == kinds
    for name in SETS:
        said = [kept[f"klom-{n}"][f"{kind}.{name}"] for n in (1, 2, 3) for kind in ("before", "after", "retrained")]
        assert len({each.tobytes() for each in said}) == 9
    anew = next(iter(planned(made.space)))
    pool = LocalPool(anew.config, anew.data, anew.scenario)
    again = train(Federation(anew.config, anew.data, anew.scenario, pool, MemoryRecorder()), anew)
    assert all(np.array_equal(again[key], array) for key, array in kept["swap-1"].items())


def test_what_is_kept_can_be_kept_in_a_file(kept: dict[str, Any]) -> None:
    for arrays in kept.values():
        back = load(save(arrays))
        assert all(np.array_equal(back[key], array) for key, array in arrays.items())


def test_what_the_audits_come_to(made: Any, kept: dict[str, Any], yardstick_of: Yardstick) -> None:
    found = concluded(yardstick_of, yardstick_of.retrained, made.config.audit, kept)
    assert found.swap is not None
    assert found.klom is not None
    assert found.ruli is not None
    assert (found.swap.splits, found.klom["forget"].models, found.ruli.shadows) == (2, 4, 12)
    assert found.swap.retrained is not None
    told = figures(found)
    assert told.keys() == MEANINGS.keys()
    assert all(np.isfinite(value) for value in told.values())


def test_without_a_retrained_model_the_runs_own_training_is_left_out(made: Any, kept: Any, yardstick_of: Any) -> None:
    alone = Yardstick(space=made.space, before=yardstick_of.before)
    found = concluded(alone, yardstick_of.before, made.config.audit, kept)
    assert found.klom is not None
    assert found.klom["test"].models == 3
    assert found.swap is not None
    assert found.swap.retrained is None
    assert "swap_retrained" not in figures(found)


def test_what_was_not_asked_for_is_not_there(made: Any, yardstick_of: Yardstick, world: Any) -> None:
    found = concluded(yardstick_of, yardstick_of.before, world(*SMALL).config.audit, {})
    assert found == oracles.Found()
    assert figures(found) == {}
