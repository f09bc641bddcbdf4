"""Every method where not everybody takes part: who is asked, what it is sent once, and the same bits after a stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fused_ray.config.parts.methods import METHODS
from fused_ray.core import methods, state
from fused_ray.core.methods import eraseclient, fused
from fused_ray.core.participation import of_round
from fused_ray.errors import ConfigError

SETTINGS = ("pretrain.rounds=3", "unlearn.rounds=2", "retrain.rounds=2", "federaser.interval=1", "train.lr=0.05")
PLACE = ("model.factory=fused_ray.models.bottleneck:build", "model.args={name: tiny, width: 4}")
FUSED = ("model.name=lenet", "unlearn.layers=1", "forget.scenario=class")


@pytest.fixture(scope="module")
def run(federate: Any, pretrained: Any, scenario: Any, gone: Any) -> Any:
    """`run(method, *fields, start=saved, kept=history)`: the federation and what the method made of its M_r."""

    def make(method: str, *fields: str, start: Any = None, kept: Any = None) -> Any:
        own, on = (FUSED, scenario) if method == "fused" else ((), gone)
        own = PLACE if method == "fedup" else own
        federation = federate(*SETTINGS, *own, f"unlearn.method={method}", *fields, on=on, start=start)
        federation.recorder.kept.update(kept or {})
        base = pretrained(federation)
        federation.pool.install(state.flatten(base))
        return federation, methods.unlearn(federation, base)

    return make


def asked(federation: Any) -> dict[tuple[str, int], list[int]]:
    """Who worked in each round, as the records count them: expected, received and used."""
    records = federation.recorder.records
    assert all(r.clients_expected == r.clients_received == r.clients_used for r in records)
    return {(record.phase, record.round): record.clients_used for record in records}


SLOW = "fedsgt"  # it trains a module of every group in every sequence


@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.slow) if m == SLOW else m for m in METHODS])
def test_a_method_goes_on_to_the_same_bits(run: Any, method: str) -> None:
    fields = ("federation.participation=0.6", "federation.sampling=weighted", "seed=4")
    federation, expected = run(method, *fields)
    recorder = federation.recorder
    done = list(recorder.rounds.items())
    assert min(asked(federation).values()) < 5, "somebody was absent"
    for finished in range(3, len(done)):
        saved = {phase: end for (phase, _), end in done[:finished]}
        _, found = run(method, *fields, start=saved, kept=recorder.kept)
        assert state.state_hash(found.state) == state.state_hash(expected.state)
        assert found.figures == expected.figures


@pytest.mark.parametrize("method", ["finetune", "not", "retrain", "fused"])
def test_the_section_of_a_phase_says_who_takes_part(run: Any, method: str) -> None:
    federation, _ = run(method, "pretrain.participation=1", "unlearn.participation=2", "retrain.participation=0.34")
    for (phase, _), number in asked(federation).items():
        assert number == {"pretrain": 5, "retrain": 1}.get(phase, 2), phase


def test_targets_are_always_asked_by_puf(run: Any, targets: tuple[int, ...]) -> None:
    federation, _ = run("puf", "federation.participation=0.34")
    everybody = federation.participants("unlearn", "held", always=targets)
    assert set(targets) < set(of_round(everybody, 1))
    assert asked(federation)["unlearn", 1] == len(targets) + 1
    assert asked(federation)["unlearn", 2] == 1


def test_eraseclient_takes_out_those_that_were_in_the_last_average(federate: Any, pretrained: Any) -> None:
    """w_ref is the average of the others that were there: 1 and 3 are the targets."""
    for seed in range(8):
        federation = federate(*SETTINGS, "pretrain.participation=3", f"seed={seed}", "unlearn.method=eraseclient")
        there = of_round(federation.participants("pretrain", "held"), 3)
        targets = [client for client in there if client in (1, 3)]
        w = state.flatten(pretrained(federation))
        found = eraseclient.without_targets(federation, w, [1, 3])
        if not targets:
            assert found is w
            continue
        alone = federate(*SETTINGS, "pretrain.participation=3", f"seed={seed}", "unlearn.method=eraseclient")
        sums: Any = {}
        work = eraseclient.Replay("replay", 1, seed, federation.config.train, "held", 3)
        last = federation.recorder.history(2)
        for client in there:
            total, _ = alone.gather(work, last, [client])
            sums[client] = alone.mean(work, last, total).values.astype(np.float64), total.weight
        others = [sums[client] for client in there if client not in targets]
        average = sum(values * weight for values, weight in others) / sum(weight for _, weight in others)
        inside = state.parameters(eraseclient.blank_model(federation))
        np.testing.assert_allclose(found.values[inside], average[inside], rtol=1e-3, atol=1e-5)
        return
    raise AssertionError("no seed of eight has a target in the last round")


@pytest.mark.parametrize("method", ["federaser", "eraseclient", "exactfun"])
def test_a_round_that_only_targets_took_part_in_is_told(
    run: Any, federate: Any, method: str, targets: tuple[int, ...]
) -> None:
    fields = ("pretrain.participation=0.2", "pretrain.rounds=1")
    federations = (federate(*SETTINGS, *fields, f"seed={seed}") for seed in range(40))
    (seed, *_) = (n for n, f in enumerate(federations) if of_round(f.participants("pretrain", "held"), 1)[0] in targets)
    told = f"{method} goes back to round 1 of pre-training .* raise pretrain.participation"
    with pytest.raises(ConfigError, match=told):
        run(method, *fields, f"seed={seed}")


def test_who_is_new_is_sent_once_what_it_lacks(run: Any) -> None:
    """Every client that takes part is sent the model once in all, and the mask with its first adapter."""
    federation, found = run("fused", "unlearn.participation=2", "unlearn.rounds=6", "unlearn.mask=saliency", "seed=2")
    model = fused.wire.model_bytes(state.flatten(found.state), 0)
    ranked = set(fused.rankers(federation))
    sent: dict[int, int] = dict.fromkeys(range(5), 0)
    for record in federation.recorder.records:
        for client, count in record.once.items():
            sent[client] += count
    took_part = {client for n in range(1, 7) for client in of_round(federation.participants("unlearn", "retained"), n)}
    gradients = {c for n, on in ((1, "forgotten"), (2, "retained"))
                 for c in of_round(federation.participants("saliency", on), n)}  # fmt: skip
    assert len(took_part) > 2
    for client in range(5):
        lacked = model * (client in took_part | gradients and client not in ranked)
        assert sent[client] == lacked + found.mask_bytes * (client in took_part), client
