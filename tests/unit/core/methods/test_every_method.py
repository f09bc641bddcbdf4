"""What holds for all methods: they go on from every finished round, are counted in bytes, and see what they may."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from fused_ray.config.parts.methods import METHODS
from fused_ray.core import methods, state
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation

OTHERS = [name for name in METHODS if name != "fused"]
PLACE = ("model.factory=fused_ray.models.bottleneck:build", "model.args={name: tiny, width: 4}")
OWN_MESSAGES = ("hessian-reset", "ridge", "fedosd", "fedup", "fedsgt")
"""What these send is no whole model."""
# the rounds of each phase after pre-training (3 rounds), with 2 rounds of unlearning
ROUNDS = {
    "retrain": {"retrain": 2},
    "finetune": {"unlearn": 2},
    "federaser": {"replay": 3, "unlearn": 2},
    "eraseclient": {"replay": 1, "unlearn": 3},
    "exactfun": {"replay": 3, "unlearn": 3},
    "not": {"unlearn": 2},
    "puf": {"unlearn": 3},
    "fedquit": {"unlearn": 3},
    "fedmemprune": {"unlearn": 3},
    "hessian-reset": {"diagonal": 2, "unlearn": 2},
    "ridge": {"head": 1},
    "fedosd": {"unlearn": 4},
    "fedup": {"centroids": 1},
    "fedsgt": {"sequence-1": 3, "sequence-2": 3, "sequence-3": 3},
}


def facts(found):
    figures = (found.metrics, found.start_metrics, found.before, found.figures, found.storage_bytes)
    return state.state_hash(found.state), figures


@pytest.fixture(scope="module")
def run(federate, pretrained):
    """`run(method, start, kept, *more)`: the federation and what the method made of its M_r."""

    def make(method, start=None, kept=None, *more):
        settings = (
            f"unlearn.method={method}",
            "pretrain.rounds=3",
            "unlearn.rounds=2",
            "federaser.interval=1",
            "fedosd.rounds=2",
            *("fedsgt.groups=3", "fedsgt.sequences=3", "fedsgt.rounds=1", "fedup.epochs=2"),
            *(PLACE if method == "fedup" else ()),
        )
        federation = federate(*settings, *more, start=start)
        federation.recorder.kept.update(kept or {})
        base = pretrained(federation)
        federation.pool.install(state.flatten(base))
        return federation, methods.unlearn(federation, base)

    return make


@pytest.fixture(scope="module")
def whole(run):
    """`whole(method)`: the same, never interrupted."""
    return functools.cache(run)


@pytest.mark.parametrize("method", OTHERS)
def test_a_method_goes_on_from_every_round_to_the_same_bits(run, whole, method):
    federation, expected = whole(method)
    recorder = federation.recorder
    done = list(recorder.rounds.items())
    rounds = {"pretrain": 3} | ROUNDS[method]
    assert [key for key, _ in done] == [(phase, n + 1) for phase, count in rounds.items() for n in range(count)]
    for finished in range(3, len(done) + 1):
        saved = {phase: end for (phase, _), end in done[:finished]}
        again, found = run(method, saved, recorder.kept)
        assert list(again.recorder.rounds) == [key for key, _ in done[finished:]]
        assert facts(found) == facts(expected)


OPTIMISED = (
    *("train.optimiser=adam", "train.lr=0.005", "train.proximal=0.01", "train.schedule=cosine", "train.local_steps=2"),
    *("federation.server=fedadam", "federation.aggregate=median"),
)


@pytest.mark.parametrize("method", ["puf", "retrain"])
def test_so_does_one_whose_server_keeps_a_state(run, method):
    federation, expected = run(method, None, None, *OPTIMISED)
    done = list(federation.recorder.rounds.items())
    assert {phase for (phase, _), end in done if end.server} == {"pretrain", "unlearn" if method == "puf" else method}
    for finished in range(3, len(done)):
        saved = {phase: end for (phase, _), end in done[:finished]}
        again, found = run(method, saved, None, *OPTIMISED)
        assert list(again.recorder.rounds) == [key for key, _ in done[finished:]]
        assert facts(found) == facts(expected)


@pytest.mark.parametrize("method", [name for name in OTHERS if METHODS[name].rounds])
def test_a_run_that_ends_after_a_round_has_the_model_of_that_round(run, whole, method):
    about = METHODS[method]
    federation, longer = whole(method)
    phase, rounds = list(ROUNDS[method].items())[-1]
    assert rounds > 1
    pretrained = {"pretrain": federation.recorder.saved["pretrain"]}
    short, found = run(method, pretrained, federation.recorder.kept, f"{about.rounds}={1 - about.first}")
    assert [n for name, n in short.recorder.rounds if name == phase] == [1]
    if METHODS[method].settings_in == "hessian_reset":  # what its rounds train is no whole model
        assert state.state_hash(found.state) != state.state_hash(longer.state)
        return
    after = state.unflatten(federation.recorder.rounds[phase, 1].payload, longer.state)
    assert state.state_hash(found.state) == state.state_hash(after) != state.state_hash(longer.state)


@pytest.mark.parametrize("method", [name for name in OTHERS if name not in OWN_MESSAGES])
def test_the_bytes_of_every_round_are_whole_models_and_of_a_replay_nothing(whole, method):
    federation, found = whole(method)
    model = 4 * (2 * 25 + 2 + 4 * 2 + 128 * 4 + 4) + 8
    for record in federation.recorder.records:
        if record.phase == "replay" and method != "exactfun":
            assert record.bytes_up == record.bytes_down == 0
        else:
            assert model < record.bytes_up == record.bytes_down < model + 200
        assert not record.once  # M_r, or what a method makes of it, is in every message
    storage = {"federaser": 5 * 3 * model, "exactfun": 3 * (2 + 5) * model}
    assert found.storage_bytes == storage.get(method, 0)


@pytest.mark.parametrize("method", OTHERS)
def test_who_takes_part(whole, method, targets):
    federation, _ = whole(method)
    taking_part = {(r.phase, r.round): r.clients_used for r in federation.recorder.records if r.phase != "pretrain"}
    others = 5 - len(targets)
    special = {
        "eraseclient": {("replay", 1): len(targets), ("unlearn", 1): len(targets)},
        "exactfun": {("replay", n): 5 for n in range(1, 4)},
        "puf": {("unlearn", 1): 5},
        "fedquit": {("unlearn", 1): len(targets)},
        "hessian-reset": {("diagonal", 1): len(targets)},
        "ridge": {("head", 1): 5},
        "fedosd": {("unlearn", 1): 5, ("unlearn", 2): 5},
        # five clients in three groups, of which one client's is the first of the first order
        "fedsgt": {(f"sequence-{s}", p): 1 if p == s else 2 for s in (1, 2, 3) for p in (1, 2, 3)},
    }
    expected = dict.fromkeys(taking_part, others) | special.get(method, {})
    assert taking_part == expected


@pytest.mark.parametrize("method", ["retrain", "finetune", "not", "federaser", "fedmemprune", "fedup"])
def test_forgotten_examples_do_not_reach_what_comes_after_pretraining(make_config, data, gone, recorder, method):
    """Whatever the forgotten images show, the same M_r and history give the same bits."""
    model = PLACE if method == "fedup" else ("model.name=tiny",)
    config = make_config(*model, f"unlearn.method={method}", "forget.scenario=client")
    images = data.train_images.copy()
    lost = np.concatenate([gone.forgotten(client) for client in range(5)])
    images[lost] = 255 - images[lost]
    found, kept, base = [], None, None
    for one in (data, dataclasses.replace(data, train_images=images)):
        federation = Federation(config, one, gone, LocalPool(config, one, gone), recorder())
        if base is None:
            like = methods.fedavg.initial(federation, "pretrain")
            base = state.unflatten(methods.fedavg.pretrain(federation, state.flatten(like)).payload, like)
            kept = federation.recorder.kept
        federation.recorder.kept.update(kept)
        federation.pool.install(state.flatten(base))
        found.append(state.state_hash(methods.unlearn(federation, base).state))
    assert found[0] == found[1]
