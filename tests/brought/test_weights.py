"""Weights and buffers of models as people bring them: frozen, beyond all bounds, or computed from others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fused_ray.core import state
from fused_ray.core.aggregate import ExactSum, scale_bits, with_fixed
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.errors import ConfigError, NumericsError
from fused_ray.models.anatomy import anatomy
from fused_ray.types import ImageData
from tests.brought.model_runs import configured, scenario, simulated, started
from tests.brought.odd_models import DERIVED, FROZEN
from tests.brought.own_models import CLASSES, SHAPE

pytestmark = pytest.mark.usefixtures("brought_models")


# --- frozen -------------------------------------------------------------------------------------------------

METHODS = ["fused", "finetune", "not", "exactfun", "puf", "eraseclient", "federaser"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_frozen_stays_so_bit_for_bit(images: ImageData, method: str) -> None:
    fields = (f"unlearn.method={method}", "forget.scenario=client", "forget.clients=[0]", "train.weight_decay=0.01")
    found, recorder = simulated(images, "Frozen", *fields, whole=True)
    start, again = started("Frozen"), started("Frozen", "init/retrain")
    for name in FROZEN:
        assert found.unlearned.state[name].tobytes() == start[name].tobytes()
        assert recorder.models["base"][name].tobytes() == start[name].tobytes()
        assert recorder.models["retrained"][name].tobytes() == again[name].tobytes()
    assert not np.array_equal(recorder.models["base"]["head.weight"], start["head.weight"])
    assert [item.layer for item in found.unlearned.ranking if item.layer not in ("middle", "head")] == []


def test_what_is_frozen_is_sent_once_and_never_again(images: ImageData) -> None:
    """Of 1,651 values 1,552 are frozen: 192 x 8 + 8 in the body and 8 bare ones."""
    _, recorder = simulated(images, "Frozen", "unlearn.layers=[head]", "unlearn.budget=99")
    first, second = (record for record in recorder.records if record.phase == "pretrain")
    header = first.bytes_up - 4 * 99
    assert 0 < header < 100
    assert first.bytes_up == second.bytes_up == first.bytes_down
    assert set(first.once) == {0, 1, 2}
    assert all(0 < count - 4 * 1552 < 100 for count in first.once.values())
    assert not second.once
    adapting = next(record for record in recorder.records if record.phase == "unlearn")
    assert all(count < 4 * 99 + 100 for count in adapting.once.values())  # M_r, less what they have


@pytest.mark.parametrize(("name", "layer"), [("Frozen", "body"), ("HalfFrozen", "body")])
def test_a_frozen_layer_is_refused_by_name_and_never_chosen(name: str, layer: str) -> None:
    from fused_ray.core.model_check import check_model

    assert layer not in anatomy(configured(name).model, SHAPE, CLASSES).ranked
    with pytest.raises(ConfigError, match=rf"unlearn\.layers: {layer} of brought:{name} is frozen \(requires_grad"):
        check_model(configured(name, f"unlearn.layers=[{layer}]"), SHAPE, CLASSES)
    with pytest.raises(ConfigError, match=rf"is more than the \d layers of .*; {layer} of brought:{name} is frozen"):
        check_model(configured(name, "unlearn.layers=3"), SHAPE, CLASSES)


def test_a_half_frozen_layer_learns_what_is_free(images: ImageData) -> None:
    _, recorder = simulated(images, "HalfFrozen")
    start, base = started("HalfFrozen"), recorder.models["base"]
    assert base["body.weight"].tobytes() == start["body.weight"].tobytes()
    assert not np.array_equal(base["body.bias"], start["body.bias"])


# --- buffers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_buffer_that_no_client_changed_comes_back_exactly(images: ImageData, method: str) -> None:
    fields = (f"unlearn.method={method}", "forget.scenario=client", "forget.clients=[0]")
    found, recorder = simulated(images, "Masks", *fields, whole=True)
    start = started("Masks")["mask"]
    for model in (*recorder.models.values(), found.unlearned.state):
        assert model["mask"].tobytes() == start.tobytes()
        assert model["partly"][0] == -np.inf
    # 36 examples in two rounds; each client sees all that it holds, and the mean is weighted by as many
    once = (10 * 10 + 10 * 10 + 16 * 15) / 36  # a batch of one runs in evaluation mode
    assert recorder.models["base"]["partly"][1] == pytest.approx(2 * once)


def test_a_value_that_cannot_be_averaged_is_named_with_its_client(images: ImageData) -> None:
    with pytest.raises(NumericsError, match=r"client 0, pretrain round 1: training changed a buffer from -inf to 1,"):
        simulated(images, "Unmasks")


def test_large_statistics_are_no_divergence(images: ImageData) -> None:
    """With a momentum of 1 a client's statistics are those of its last batch in training mode."""
    config, found = configured("Bytes", "train.batch_size=18"), scenario(images)
    federation = Federation(config, images, found, LocalPool(config, images, found), MemoryRecorder())
    start = state.flatten(started("Bytes"))
    work = FullTraining("pretrain", 1, 0, config.train, "held")
    total, _ = federation.gather(work, start, [0, 1, 2])
    mean = state.unflatten(federation.mean(work, start, total), started("Bytes"))
    x = 1000 * (images.train_images.astype(np.float64) / 255 - 0.5) / 0.3
    variances = [x[part].var((0, 2, 3), ddof=1) for part in found.held]
    expected = (10 * variances[0] + 10 * variances[1] + 16 * variances[2]) / 36
    assert expected.min() > 100_000
    np.testing.assert_allclose(mean["norm.running_var"], expected, rtol=1e-5)


def test_sums_beyond_the_bound_are_exact_in_any_order() -> None:
    """By hand: (1 * 65025.25 + 2 * -3e15 + 3 * 2048) / 6, and (1 * 0.5 + 2 * 1024 + 3 * -1024) / 6."""
    bits = scale_bits(6)
    clients = [([65025.25, 0.5], 1), ([-3e15, 1024.0], 2), ([2048.0, -1024.0], 3)]
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        whole = ExactSum(2, bits)
        for at in order:
            part = ExactSum(2, bits)
            part.add(np.array(clients[at][0], np.float32), clients[at][1], ((0, 2),))
            whole.merge(part.total, part.weight, part.high)
        found.append(whole.mean())
    expected = [(65025.25 + 2 * float(np.float32(-3e15)) + 3 * 2048) / 6, (0.5 + 2 * 1024 - 3 * 1024) / 6]
    assert found[0].tobytes() == found[1].tobytes() == np.array(expected, np.float32).tobytes()


def test_only_fixed_values_may_be_large_or_infinite() -> None:
    before = np.array([0.0, -np.inf, 1e9, np.nan, 7.0], np.float32)
    after = np.array([5.0, -np.inf, 2e9, np.nan, 7.0], np.float32)
    values, changed = with_fixed(after, before, ((1, 5),), 36, "client 1")
    assert values.tolist() == [5.0, 0.0, 2e9, 0.0, 7.0]
    assert changed.tolist() == [2]
    for wrong in (np.inf, np.nan, 1e30):
        after[2] = wrong
        with pytest.raises(NumericsError, match=r"client 1: training changed a buffer from 1e\+09 to "):
            with_fixed(after, before, ((1, 5),), 36, "client 1")
    after[2], after[0] = 1e9, 2000.0
    with pytest.raises(NumericsError, match="client 1: the update has a value of 2000, more than"):
        with_fixed(after, before, ((1, 5),), 36, "client 1")


def test_a_mask_of_minus_infinity_may_come_from_a_file(images: ImageData) -> None:
    from fused_ray.core.pretrained import fitted

    like = {"mask": np.array([0.0, -np.inf], np.float32)}
    assert fitted(like, like, "file", "model")["mask"].tolist() == [0.0, -np.inf]
    with pytest.raises(ValueError, match="mask in file has values that are not finite"):
        fitted({"mask": np.array([-np.inf, -np.inf], np.float32)}, like, "file", "model")


# --- computed weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DERIVED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_computed_weight_is_trained_and_refused_by_name(images: ImageData, how: str) -> None:
    from fused_ray.core.model_check import check_model

    args = json.dumps({"how": how})
    with pytest.raises(ConfigError, match=r"the weight of 1 of brought:derived is computed .*; name others of 3, 5"):
        check_model(configured("derived", f"model.args={args}", "unlearn.layers=[1]"), SHAPE, CLASSES)
    found, recorder = simulated(images, "derived", f"model.args={args}", "unlearn.layers=2", "unlearn.start=zero")
    assert found.restored_hash == found.base_hash
    assert {item.layer for item in found.unlearned.ranking} == {"3", "5"}
    start, base = started("derived", "init/pretrain", f"model.args={args}"), recorder.models["base"]
    moved = {name for name in start if name.startswith("1.") and not np.array_equal(start[name], base[name])}
    assert moved & {"1.parametrizations.weight.original1", "1.parametrizations.weight.original", "1.weight_v",
                    "1.weight_orig"}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "layers", "computed"),
    [
        ("Wrapper", ("body.inner", "head"), ()),
        ("Turned", ("body.inner", "head"), ()),
        ("Unwilling", ("body.inner", "head"), ()),
        ("Own", ("head",), ("body",)),
    ],
)
def test_a_wrapper_that_shows_a_layers_weight_is_not_computed(how: str, layers: Any, computed: Any) -> None:
    found = anatomy(configured("Wrapped", f"model.args={json.dumps({'how': how})}").model, SHAPE, CLASSES)
    assert (found.ranked, found.derived) == (layers, computed)
