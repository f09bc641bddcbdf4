"""The frozen prefix is one fixed function, cached or not, and evaluation does not depend on who does which part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fused_ray import models
from fused_ray.core import state
from fused_ray.core.adapter import attached, random_masks, start_values
from fused_ray.core.lora import make_lora
from fused_ray.core.methods.fused import AdapterTraining
from fused_ray.core.training import AdapterStep, batches, train_model
from fused_ray.core.workspace import BLOCK, STEP, Workspace
from fused_ray.core.workspace import test_blocks as block_count
from fused_ray.types import Payload

LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")


@pytest.fixture(scope="module")
def big_data(make_data):
    """Two blocks and a bit of training images for the largest client, and of test images."""
    return make_data(train=900, test=560)


@pytest.fixture(scope="module")
def make_space(make_config, big_data, make_scenario):
    """Workspaces on the same base, trained a little; overrides go to the configuration."""
    scenario, train = make_scenario(big_data), make_config().train
    first = Workspace(make_config(), big_data, scenario)
    first.load(state.read(models.initialise("lenet", (1, 28, 28), big_data.classes, 0, "init")))
    rows = np.concatenate(scenario.held)
    train_model(first, train, rows, batches(len(rows), train, 0, "pretrain", 1, 0))
    base = state.read(first.model)

    def make(*overrides):
        space = Workspace(make_config(*overrides), big_data, scenario)
        space.install(base)
        space.use_base()
        return space

    return make


def prefix(space, rows, cut):
    """What the stages below `cut` make of one block of images."""
    with torch.no_grad():
        x = space.images("train", rows)
        for stage in space.stages[:cut]:
            x = stage.forward(x)
    return x


def counted(space):
    """The workspace's calls of `images` from now on, in a list."""
    calls, original = [], space.images

    def images(source, indices):
        calls.append((source, len(indices)))
        return original(source, indices)

    space.images = images
    return calls


@pytest.mark.parametrize(("layers", "cut"), [([name], cut) for cut, name in enumerate(LAYERS)])
def test_the_prefix_ends_below_the_adapted_layer(make_space, layers, cut):
    space = make_space()
    assert space.cut(layers) == cut


@pytest.mark.parametrize("layers", [["fc3", "conv2"], ["conv2", "fc3"], ["fc1", "conv2", "fc2"]])
def test_the_lowest_of_several_adapted_layers_ends_the_prefix(make_space, layers):
    space = make_space()
    assert space.cut(layers) == 1


@pytest.mark.parametrize("cut", range(5))
def test_cached_and_recomputed_activations_have_the_same_bits(make_space, cut):
    cached, uncached = make_space(), make_space("engine.prefix_cache_mb=0")
    rows = cached.scenario.held[4]
    first = cached.activations("train", rows, cut).clone()
    again = cached.activations("train", rows, cut)
    other = uncached.activations("train", rows, cut)
    assert torch.equal(first, again)
    assert torch.equal(first, other)
    assert not uncached._cache


def test_the_cache_gives_what_is_asked_for(make_space):
    """Other examples of the same client, fewer of them, in another order, or of the other source."""
    space, uncached = make_space(), make_space("engine.prefix_cache_mb=0")
    rows = space.scenario.held[1]
    asks = [("train", rows), ("train", rows[:7]), ("train", rows[7:14]), ("train", rows[:7][::-1]), ("test", rows[:7])]
    for source, asked in asks:
        found = space.activations(source, asked, 3)
        assert torch.equal(found, uncached.activations(source, asked, 3))
        assert space.activations(source, asked.copy(), 3) is found
    assert len(space._cache) == 5


def test_a_cached_prefix_is_not_computed_again(make_space):
    space, none = make_space(), make_space("engine.prefix_cache_mb=0")
    rows = space.scenario.held[4]
    for one, expected in ((space, 1), (none, 3)):
        calls = counted(one)
        for _ in range(3):
            one.activations("train", rows, 2)
        assert calls == [("train", 250), ("train", 50)] * expected


def test_what_exceeds_the_cache_is_recomputed_and_what_fits_stays(make_space):
    rows = make_space().scenario.held
    size = 4 * 84 * len(rows[1])  # float32 outputs of fc2
    space = make_space(f"engine.prefix_cache_mb={size / 1e6}")
    space.activations("train", rows[1], 4)
    space.activations("train", rows[2], 4)
    assert list(space._cache) == [("train", rows[1].tobytes(), 4)]
    assert space._cached_bytes == size


def test_a_new_base_empties_the_cache(make_space):
    space = make_space()
    rows = space.scenario.held[0]
    before = space.activations("train", rows, 3).clone()
    changed = state.read(space.model).values * np.float32(1.1)
    space.install(Payload(changed))
    space.use_base()
    assert space._cached_bytes == 0
    assert not torch.equal(space.activations("train", rows, 3), before)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 51, 249, 250, 251, 300])
@pytest.mark.parametrize("filled", [STEP, BLOCK], ids=["to a multiple of a step", "and has the bits of a full block"])
def test_a_short_block_is_padded_with_zero_images(make_space, count, filled):
    space = make_space()
    rows = np.arange(count)
    found = space.activations("train", rows, 4)
    assert found.shape == (count, 84)
    for start in range(0, count, BLOCK):
        part = rows[start : start + BLOCK]
        x = torch.zeros(-(-len(part) // filled) * filled, 1, 28, 28).contiguous(memory_format=torch.channels_last)
        x[: len(part)] = space.images("train", part)
        with torch.no_grad():
            for stage in space.stages[:4]:
                x = stage.forward(x)
        assert torch.equal(found[start : start + BLOCK], x[: len(part)])


def test_images_are_normalised(make_space, big_data):
    space = make_space()
    expected = (big_data.train_images[[5, 3]].astype(np.float64) / 255 - 0.4) / 0.3
    assert np.allclose(space.images("train", np.array([5, 3])).numpy(), expected, atol=1e-6)
    assert space.images("test", np.array([7])).shape == (1, 1, 28, 28)
    expected = (big_data.test_images[[7]].astype(np.float64) / 255 - 0.4) / 0.3
    assert np.allclose(space.images("test", np.array([7])).numpy(), expected, atol=1e-6)


def training(space, layers):
    masks = random_masks(0, state.arrays(space.model), layers, 0.5)
    step = AdapterStep(0.05, 0.9, 0.0)
    return AdapterTraining("unlearn", 1, 0, space.config.train, step, masks), masks


@pytest.mark.parametrize("layers", [["fc3"], ["conv2", "fc2"], ["conv1"]])
def test_a_clients_update_depends_neither_on_the_cache_nor_on_other_clients(make_space, layers):
    alone = make_space()
    work, masks = training(alone, layers)
    start = Payload(np.zeros(masks.size, np.float32))
    expected = work.update(alone, start, 3)
    assert np.count_nonzero(expected.payload.values)
    for space, clients in [
        (make_space(), (0, 1, 2, 4, 3)),
        (make_space("engine.prefix_cache_mb=0"), (4, 3)),
        (make_space("engine.prefix_cache_mb=0.1"), (3, 3)),
    ]:
        for client in clients:
            found = work.update(space, start, client)
        assert found.payload.values.tobytes() == expected.payload.values.tobytes()
        assert found.loss == expected.loss


def test_blocks_cover_the_test_set(make_space, big_data):
    assert block_count(big_data) == 3
    predictions = make_space().predict_model(state.read(make_space().model), range(3))
    assert [len(part) for part in predictions] == [250, 250, 60]


@pytest.mark.parametrize("split", [[[0], [1], [2]], [[2, 0], [1]], [[1, 2], [0]]])
def test_any_split_of_the_evaluation_gives_the_same_predictions(make_space, split):
    space = make_space()
    base = state.read(space.model)
    masks = random_masks(0, state.arrays(space.model), ["conv2", "fc3"], 0.5)
    values = np.random.default_rng(0).normal(0, 0.5, masks.size).astype(np.float32)
    models = dict(enumerate(space.predict_model(base, [0, 1, 2])))
    adapters = dict(enumerate(space.predict_adapter(masks, values, [0, 1, 2])))
    assert len(np.unique(np.concatenate([*models.values()]))) > 1
    for part in split:
        worker = make_space()
        for block, found in zip(part, worker.predict_adapter(masks, values, part), strict=True):
            assert np.array_equal(found, adapters[block])
        for block, found in zip(part, worker.predict_model(base, part), strict=True):
            assert np.array_equal(found, models[block])


@pytest.mark.parametrize("layers", [["fc3"], ["conv2", "fc1"]])
def test_evaluating_an_adapter_equals_evaluating_the_model_it_makes(make_space, layers):
    space = make_space()
    base = state.arrays(space.model)
    masks = random_masks(0, base, layers, 0.5)
    values = start_values(masks, base, "negate", "conv1")
    found = np.concatenate(space.predict_adapter(masks, values, [0, 1, 2]))
    whole = np.concatenate(space.predict_model(state.flatten(masks.apply(base, values)), [0, 1, 2]))
    plain = np.concatenate(space.predict_model(state.flatten(base), [0, 1, 2]))
    assert np.array_equal(found, whole)
    assert not np.array_equal(found, plain)


# -- what stands for the base


def worn_once(space, make=lambda arrays: random_masks(0, arrays, ["conv2", "fc3"], 0.5)):
    """The base's hash; an adapter has been on and off."""
    arrays = state.arrays(space.model)
    adapter = make(arrays)
    space.predict_adapter(adapter, np.ones(adapter.size, np.float32), [0])
    return state.state_hash(arrays)


def test_all_that_stands_for_the_base_has_its_hash_after_an_adapter_worked_on_it(make_space):
    space = make_space()
    expected = state.state_hash(state.arrays(space.model))
    work, masks = training(space, ["conv2", "fc3"])
    assert space.base_hashes() == [expected] * 2  # stored, live
    work.update(space, Payload(np.ones(masks.size, np.float32)), 2)
    space.predict_adapter(masks, np.ones(masks.size, np.float32), [0])
    assert space.base_hashes() == [expected] * 3  # and what the adapter would put back


def test_a_live_model_that_is_taken_for_the_base_and_is_another_is_seen_and_left_as_it_is(make_space):
    space = make_space()
    expected = worn_once(space)
    with torch.no_grad():
        for parameter in space.model.parameters():
            parameter.fill_(123)
    for _ in range(2):
        stored, live, _ = space.base_hashes()
        assert stored == expected != live
    assert (space.model.conv1.weight == 123).all()


def test_one_bit_that_an_adapter_left_behind_is_seen(make_space):
    space = make_space()
    worn_once(space)
    space.model.conv1.bias.detach().view(torch.int32)[0] ^= 1
    stored, live, held = space.base_hashes()
    assert stored != live == held


def test_an_adapter_that_is_still_on_is_seen(make_space):
    space = make_space()
    expected = space.base_hashes()[0]
    _, masks = training(space, ["fc3"])
    with attached(space.model, masks, np.ones(masks.size, np.float32)):
        assert space.base_hashes()[1] != expected


def test_a_changed_stored_base_is_seen_though_the_live_model_is_right(make_space):
    space = make_space()
    expected = worn_once(space)
    space._base = Payload(np.negative(space._base.values))
    assert [found == expected for found in space.base_hashes()] == [False, True, True]


@pytest.mark.parametrize("kind", ["sparse", "lora"])
@pytest.mark.parametrize("loaded", [False, True])
def test_an_adapter_that_would_put_back_something_else_is_seen(make_space, kind, loaded):
    space = make_space()
    if kind == "sparse":
        expected = worn_once(space)
        space._live[1].base[3] += 1
    else:
        expected = worn_once(space, lambda arrays: make_lora(arrays, ["conv2", "fc3"], 2, 4.0))
        space._live[1]._base[1][0, 0] += 1
    if loaded:  # a whole model was trained since
        space.load(Payload(np.zeros_like(space._base.values)))
    assert [found == expected for found in space.base_hashes()] == [True] * (1 if loaded else 2) + [False]


def test_another_model_that_was_loaded_is_not_taken_for_the_base(make_space):
    space = make_space()
    expected = worn_once(space)
    other = Payload(state.read(space.model).values + np.float32(1))
    space.predict_model(other, [0])
    assert state.read(space.model).values.tobytes() == other.values.tobytes()
    assert space.base_hashes() == [expected] * 2
    space.load(other)
    space.use_base()
    assert state.state_hash(state.arrays(space.model)) == expected


def test_activations_are_asked_for_at_the_base_alone(make_space):
    space = make_space()
    space.load(state.read(space.model))
    with pytest.raises(AssertionError, match="not at its base"):
        space.activations("train", np.arange(3), 2)


def test_an_adapter_keeps_its_hold_until_another_or_another_base_comes(data, scenario, make_config):
    space = Workspace(make_config(), data, scenario)
    bases = [state.read(models.initialise("lenet", (1, 28, 28), data.classes, seed, "init")) for seed in (0, 1)]
    space.install(bases[0])
    space.use_base()
    arrays = state.arrays(space.model)
    one, other = (random_masks(0, arrays, [layer], 0.5) for layer in ("fc3", "fc2"))
    ones = np.ones(one.size, np.float32)
    with space.attached(one, ones) as (first, _):
        pass
    with space.attached(random_masks(0, arrays, ["fc3"], 0.5), ones) as (
        again,
        theta,
    ):  # equal, as another call brings it
        assert again is first
        assert torch.equal(theta, first.base + 1)
    space.load(bases[1])  # a whole model was trained in between
    with space.attached(one, ones) as (again, _):
        assert again is first
    assert state.state_hash(state.arrays(space.model)) == state.state_hash(arrays)
    with space.attached(other, np.ones(other.size, np.float32)) as (third, _):
        assert third is not first
    space.install(bases[1])
    with space.attached(other, np.ones(other.size, np.float32)) as (fourth, theta):
        assert fourth is not third
        assert torch.equal(theta, fourth.base + 1)
    assert state.read(space.model).values.tobytes() == bases[1].values.tobytes()
