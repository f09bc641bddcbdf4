from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fused_ray.core import state
from fused_ray.core.methods import fedavg, negation
from fused_ray.core.work import ModelEvaluation


def test_a_layer_answers_with_its_weight_turned_and_its_bias_as_it_was():
    model = nn.Linear(2, 2)
    layer = {"fc.weight": np.array([[1, -2], [0, 3]], np.float32), "fc.bias": np.array([0.5, -1], np.float32)}
    answers = []
    for each in (layer, negation.negate(layer, ["fc"])):
        model.load_state_dict({name.removeprefix("fc."): torch.tensor(array) for name, array in each.items()})
        answers.append(torch.relu(model(torch.tensor([1.0, 2.0]))).tolist())
    assert answers == [[0, 5], [3.5, 0]]


@pytest.mark.parametrize(
    ("weights", "changed"),
    [
        ({"a": (2, 3), "b": (2, 1, 5, 5), "c": (2, 1, 5, 5)}, "b"),
        ({"a": (2, 1, 5), "b": (2, 1, 5, 5)}, "a"),
        ({"a": (2, 3), "b": (4, 2)}, "a"),
    ],
)
def test_the_first_convolution_is_negated_else_the_first_layer(weights, changed):
    random = np.random.default_rng(0)
    model = {f"{layer}.weight": random.normal(size=shape).astype(np.float32) for layer, shape in weights.items()}
    model[f"{changed}.weight"].flat[0] = 0
    once = negation.negate(model, list(weights))
    assert [name for name in model if not np.array_equal(model[name], once[name])] == [f"{changed}.weight"]
    assert np.array_equal(once[f"{changed}.weight"], -model[f"{changed}.weight"])
    assert state.state_hash(negation.negate(once, list(weights))) == state.state_hash(model)  # the bits, zeros too


def test_recovery_begins_with_the_negated_model(federate, pretrained, gone, space_of, mean):
    federation = federate("unlearn.method=not", "unlearn.rounds=1")
    base = pretrained(federation)
    before = state.state_hash(base)
    found = negation.unlearn(federation, base)
    assert state.state_hash(base) == before
    start = state.flatten({**base, "conv.weight": -base["conv.weight"]})
    assert found.start_metrics == federation.evaluate(ModelEvaluation(), start)
    work = fedavg.FullTraining("unlearn", 1, 0, federation.config.train, "retained")
    updates = [work.update(space_of(federation), start, client).payload for client in (0, 2, 4)]
    sizes = [len(gone.retained[client]) for client in (0, 2, 4)]
    assert state.flatten(found.state).values.tobytes() == mean(updates, sizes, sum(sizes)).values.tobytes()


def test_targets_take_part_with_what_they_keep(federate, pretrained, scenario):
    federation = federate("unlearn.method=not", "unlearn.rounds=1", on=scenario)
    negation.unlearn(federation, pretrained(federation))
    record = federation.recorder.records[-1]
    assert (record.phase, record.clients_used) == ("unlearn", 5)
