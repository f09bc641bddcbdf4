"""FUSED on models that normalise and on transformers: nothing of M_r moves, budgets over all layers, short formats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fused_ray.audit import probes
from fused_ray.audit.gradients import gradients
from fused_ray.audit.outputs import logits
from fused_ray.config import consistency
from fused_ray.core import lora, saliency, state, wire
from fused_ray.core.adapter import attached
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.wire import Delivery
from fused_ray.core.workspace import Workspace

VIT = ("model.name=simplevit", "model.args={patch: 7, width: 8, depth: 2, heads: 2}")


@pytest.fixture(scope="module")
def on(make_config, data, scenario, recorder):
    """`on(fields, saved)`: a federation that forgets a class, with its base model installed."""

    def make(*fields, saved=None):
        config = make_config(*fields)
        federation = Federation(config, data, scenario, LocalPool(config, data, scenario), recorder(saved))
        base = fused_base(federation)
        federation.pool.install(state.flatten(base))
        return federation, base

    return make


def fused_base(federation):
    """A model whose running statistics are not those it was born with."""
    like = fedavg.initial(federation, "pretrain")
    return state.unflatten(fedavg.fedavg(federation, state.flatten(like), "pretrain", "held", 1).payload, like)


@pytest.mark.parametrize(
    "fields",
    [
        ("model.name=tiny", "unlearn.layers=[conv, norm, fc]", "unlearn.sparsity=0"),
        ("model.name=tiny", "unlearn.layers=[norm]", "unlearn.start=negate"),
        (*VIT, "unlearn.layers=[blocks.1.self_attn, blocks.1.norm2, head]", "unlearn.sparsity=0.2"),
        (*VIT, "unlearn.layers=[blocks.0.self_attn, blocks.1.self_attn.out_proj]", "unlearn.adapter=lora"),
    ],
)
def test_running_statistics_and_every_bit_come_back(on, fields):
    federation, base = on(*fields)
    found = fused.unlearn(federation, base)
    expected = state.state_hash(base)
    assert federation.pool.base_hashes() == [[expected] * 3]
    assert state.state_hash(found.state) != expected
    adapted = {f"{name}.{kind}" for name in found.adapter.names
               for kind in ("weight", "bias", "in_proj_weight", "in_proj_bias")}  # fmt: skip
    for name, array in base.items():
        if name not in adapted:
            assert np.array_equal(found.state[name], array)


def test_a_merged_adapter_on_attention_is_the_live_one(on):
    federation, base = on(*VIT)
    space = Workspace(federation.config, federation.data, federation.scenario)
    for shape in (
        lora.make_lora(base, ["blocks.0.self_attn"], 2, 4.0),
        fused.make_adapter(federation, base, {"blocks.0.self_attn": None}, Delivery(0)).adapter,
    ):
        values = np.random.default_rng(0).normal(size=shape.size).astype(np.float32)
        state.write(space.model, state.flatten(base))
        with attached(space.model, shape, values):
            live = state.arrays(space.model)
        merged = shape.apply(base, values)
        assert all(np.array_equal(live[name], merged[name]) for name in base)
        assert not np.array_equal(
            merged["blocks.0.self_attn.in_proj_weight"], base["blocks.0.self_attn.in_proj_weight"]
        )


def test_normalisation_layers_are_not_ranked_and_are_adapted_when_named(on):
    federation, base = on(*VIT, "unlearn.layers=13")
    with pytest.raises(ValueError, match="more than the 10 layers"):
        consistency.check_layers(federation.config, federation.anatomy.layers, federation.anatomy.ranked)
    federation, base = on(*VIT, "unlearn.layers=10")
    chosen, ranking = fused.choose_layers(federation, base)
    assert list(chosen) == list(federation.anatomy.ranked)
    assert len(ranking) == 10
    assert not any("norm" in name for name in chosen)


def test_a_frozen_model_works_in_evaluation_mode_after_a_whole_one_was_trained(on, data, scenario):
    """In training mode BatchNorm would normalise by the batch, and every pass would move its statistics."""
    federation, base = on("model.name=tiny", "engine.prefix_cache_mb=0")
    config = federation.config
    made = fused.make_adapter(federation, base, {"fc": None}, Delivery(0))
    shape, start = made.adapter, made.values
    work = fused.AdapterTraining("unlearn", 1, 0, config.train, fused.AdapterStep(0.1, 0.9, 0.0), shape)
    gradient = saliency.Gradient("saliency", 1, "retained", ("conv", "fc"))
    found = []
    for trained in (False, True):
        space = Workspace(config, data, scenario)
        space.install(state.flatten(base))
        for each in (work, gradient):
            if trained:
                fedavg.FullTraining("rank", 1, 0, config.train, "held").update(space, state.flatten(base), 4)
                assert space.model.training
            found.append(each.update(space, state.Payload(start), 4).payload.values.tobytes())
            assert set(space.base_hashes()) == {state.state_hash(base)}
    assert found[:2] == found[2:]


def test_models_are_judged_in_evaluation_mode_after_one_was_trained(on, data, scenario):
    federation, base = on("model.name=tiny")
    config, payload = federation.config, state.flatten(base)
    made = fused.make_adapter(federation, base, {"fc": None}, Delivery(0))
    shape, start = made.adapter, made.values
    space = Workspace(config, data, scenario)
    space.install(payload)

    asked = (
        lambda: space.predict_model(payload, [0])[0],
        lambda: space.predict_adapter(shape, start, [0])[0],
        lambda: logits(space, payload, "test", np.arange(40)),
        lambda: gradients(space, payload).g_r,
        lambda: np.array(probes.head_recovery(space, payload).accuracy),
    )
    for ask in asked:
        answer = ask().tobytes()
        fedavg.FullTraining("rank", 1, 0, config.train, "held").update(space, payload, 4)
        assert space.model.training
        assert ask().tobytes() == answer
        assert state.state_hash(state.arrays(space.model)) == state.state_hash(base)  # running statistics, too


@pytest.mark.parametrize("mask", ["random", "saliency"])
def test_a_budget_is_shared_by_all_layers(on, mask):
    federation, base = on(*VIT, "unlearn.selection=budget", "unlearn.budget=300", f"unlearn.mask={mask}")
    chosen, ranking = fused.choose_layers(federation, base)
    shape = fused.make_adapter(federation, base, chosen, Delivery(0)).adapter
    assert shape.size == 300
    assert "patches" not in shape.names  # the input layer takes part only when asked for
    assert shape.sizes == tuple(chosen[name] for name in shape.names)
    reading = {item.layer: item.mean for item in ranking}
    densities = {m.layer: len(m.positions) / m.entries for m in shape.layers if m.entries > 100}
    assert sorted(densities, key=densities.get) == sorted(densities, key=reading.get)


def test_a_batch_of_one_example_leaves_the_running_statistics_alone(make_config, data, scenario):
    """BatchNorm cannot normalise by one vector; without this rule it would raise, or learn from noise."""
    from fused_ray.core.training import train_model

    config = make_config("model.name=tiny")
    space = Workspace(config, data, scenario)
    before = state.arrays(space.model)
    train_model(space, config.train, np.array([3, 4, 5]), iter([np.array([0])]))
    one = state.arrays(space.model)
    assert np.array_equal(one["norm.running_mean"], before["norm.running_mean"])
    assert not np.array_equal(one["conv.weight"], before["conv.weight"])
    train_model(space, config.train, np.array([3, 4, 5]), iter([np.array([0, 1])]))
    assert not np.array_equal(state.arrays(space.model)["norm.running_mean"], one["norm.running_mean"])


# --- short formats ---------------------------------------------------------------------------------------


def training(federation, base, form, residuals=None):
    layers = {"fc3": None}
    made = fused.make_adapter(federation, base, layers, Delivery(0))
    shape, start = made.adapter, made.values
    step = fused.AdapterStep(0.1, 0.9, 0.0)
    work = fused.AdapterTraining("unlearn", 1, 0, federation.config.train, step, shape, form, residuals or {})
    return work, state.Payload(start)


@pytest.mark.parametrize("form", ["float16", "bfloat16", "int8"])
def test_the_server_adds_what_arrives_to_what_it_sent(on, data, scenario, form):
    federation, base = on()
    space = Workspace(federation.config, data, scenario)
    space.install(state.flatten(base))
    exact, payload = training(federation, base, "float32")
    whole = exact.update(space, payload, 4).payload.values
    work, _ = training(federation, base, form)
    found = work.update(space, payload, 4)
    arrived = wire.decode_change(
        wire.encode_change(whole - payload.values, form, work.adapter.sizes), work.adapter.sizes
    )
    assert np.array_equal(found.payload.values, payload.values + arrived)
    assert not np.array_equal(found.payload.values, whole)
    if form == "int8":
        assert np.array_equal(found.state, (whole - payload.values) - arrived)
    else:
        assert found.state is None


def test_what_int8_kept_back_is_sent_with_the_next_change(on, data, scenario):
    federation, base = on()
    space = Workspace(federation.config, data, scenario)
    space.install(state.flatten(base))
    exact, payload = training(federation, base, "float32")
    change = exact.update(space, payload, 4).payload.values - payload.values
    kept = np.linspace(-0.01, 0.01, len(change)).astype(np.float32)
    work, _ = training(federation, base, "int8", {4: kept, 2: kept * 9})
    found = work.update(space, payload, 4)
    arrived = found.payload.values - payload.values
    scale = np.abs(change + kept).max() / 127
    assert np.abs(change + kept - arrived).max() <= scale * 0.51
    assert np.allclose(found.state, change + kept - arrived, atol=1e-7)


@pytest.mark.parametrize("form", ["float32", "float16", "bfloat16", "int8"])
def test_bytes_follow_the_format_and_the_download_is_float32(on, form):
    federation, base = on("unlearn.layers=[fc2]", f"unlearn.wire={form}", "unlearn.rounds=1")
    found = fused.unlearn(federation, base)
    record = federation.recorder.records[-1]
    each = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}[form]
    assert 0 < record.bytes_up - each * found.adapter.size < 200
    assert 0 < record.bytes_down - 4 * found.adapter.size < 200


def test_clients_states_go_on_from_every_round_to_the_same_bits(on):
    federation, base = on("unlearn.layers=[fc2]", "unlearn.wire=int8")
    expected = fused.unlearn(federation, base)
    rounds = federation.recorder.rounds
    assert sorted(rounds["unlearn", 1].states) == [0, 1, 2, 3, 4]
    other = fused.unlearn(on("unlearn.layers=[fc2]")[0], base)
    assert not np.array_equal(expected.values, other.values)
    for finished in (1, 2):
        saved = {"unlearn": rounds["unlearn", finished]}
        again, _ = on("unlearn.layers=[fc2]", "unlearn.wire=int8", saved=saved)
        assert np.array_equal(fused.unlearn(again, base).values, expected.values)
    lost = {"unlearn": dataclasses.replace(rounds["unlearn", 2], states={})}
    without, _ = on("unlearn.layers=[fc2]", "unlearn.wire=int8", saved=lost)
    assert not np.array_equal(fused.unlearn(without, base).values, expected.values)
