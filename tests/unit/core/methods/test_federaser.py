from __future__ import annotations

import numpy as np
import pytest

from fused_ray.core import state
from fused_ray.core.methods import federaser
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.methods.federaser import StoredUpdate

KEPT = (0, 2, 4)


def test_calibration_keeps_the_new_direction_at_the_old_length():
    calibrated = [
        federaser.calibrate(np.linalg.norm(u), np.array(v)) for u, v in [([3, 4], [0.0, 2]), ([0, 2], [1.0, 0])]
    ]
    assert [step.tolist() for step in calibrated] == [[0, 5], [2, 0]]
    assert (np.ones(2) + np.average(calibrated, axis=0, weights=[30, 10])).tolist() == [1.5, 4.75]


def test_a_step_of_zero_gives_none():
    assert federaser.calibrate(5.0, np.zeros(3)).tolist() == [0, 0, 0]


def moved(after, before):
    """Per parameter, the float64 change between two models."""
    parameters = [name for name in after if name.endswith(("weight", "bias"))]
    return {name: after[name].astype(np.float64) - before[name] for name in parameters}


@pytest.mark.parametrize(("rounds", "stored"), [(5, (1, 3, 5)), (4, (1, 3)), (2, (1,))])
def test_the_result_is_that_of_a_plain_loop_over_the_definition(federate, pretrained, gone, space_of, rounds, stored):
    federation = federate(
        "unlearn.method=federaser", f"pretrain.rounds={rounds}", "train.local_epochs=4", "federaser.ratio=0.3"
    )
    base = pretrained(federation)
    found = federaser.unlearn(federation, base)
    config, space, kept = federation.config, space_of(federation), federation.recorder.kept
    few, weights = config.train.model_copy(update={"local_epochs": 2}), [len(gone.held[client]) for client in KEPT]

    def trained(name, number, payload, client, train):
        work = FullTraining(name, number, config.seed, train, "held")
        return state.unflatten(work.update(space, payload, client).payload, base)

    def averaged(models):
        means = {name: np.average([model[name] for model in models], axis=0, weights=weights) for name in base}
        return {name: array.astype(base[name].dtype) for name, array in means.items()}

    updates = {}
    for number in stored:
        start = state.unflatten(kept[number - 1], base)
        for client in KEPT:
            after = trained("pretrain", number, kept[number - 1], client, config.train)
            updates[number, client] = moved(after, start)
    first = [trained("pretrain", 1, kept[0], client, config.train) for client in KEPT]
    model = averaged(first)
    initial = state.unflatten(kept[0], base)
    for name in updates[1, 0]:  # the initial model and the weighted mean of the stored updates
        step = np.average([updates[1, client][name] for client in KEPT], axis=0, weights=weights)
        assert np.allclose(model[name], initial[name] + step, atol=1e-7)
    for index, number in enumerate(stored[1:], 1):
        calibrated = []
        for client in KEPT:
            result = trained("unlearn", index, state.flatten(model), client, few)
            for name, v in moved(result, model).items():
                u = updates[number, client][name]
                result[name] = model[name] + np.linalg.norm(u) * v / np.linalg.norm(v)
            calibrated.append(result)
        model = averaged(calibrated)
    for name, array in found.state.items():
        assert name.endswith("tracked") or np.allclose(array, model[name], rtol=1e-4, atol=1e-5), name
    assert federation.recorder.saved["replay"].round == len(stored)
    assert not any(np.array_equal(array, base[name]) for name, array in found.state.items())
    assert len(stored) > 1 or found.metrics == found.start_metrics


def test_between_rounds_only_one_model_and_the_norms_are_kept(federate, pretrained):
    federation = federate("unlearn.method=federaser", "pretrain.rounds=3", "federaser.interval=1")
    base = pretrained(federation)
    federaser.unlearn(federation, base)
    ends = [federation.recorder.rounds["replay", number] for number in (1, 2, 3)]
    assert {end.payload.values.tobytes() for end in ends} == {ends[0].payload.values.tobytes()}
    assert [np.shape(end.figures["norms"]) for end in ends] == [(n, 3, 6) for n in (1, 2, 3)]
    assert np.min(ends[2].figures["norms"]) > 0


def test_clients_return_their_model_in_the_first_replayed_round_alone(federate, pretrained, space_of):
    federation = federate("unlearn.method=federaser")
    base = state.flatten(pretrained(federation))
    updates = [
        StoredUpdate("replay", number, 0, federation.config.train, "held", number).update(space_of(federation), base, 0)
        for number in (1, 2)
    ]
    assert [len(update.payload.values) for update in updates] == [len(base.values), 0]
    assert [len(update.figures) for update in updates] == [6, 6]
