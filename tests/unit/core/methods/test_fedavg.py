from __future__ import annotations

import dataclasses

import numpy as np

from fused_ray.core import state
from fused_ray.core.methods import fedavg


def test_retraining_as_a_method_equals_fedavg_where_the_data_never_existed(federate, pretrained, scenario):
    partly = dataclasses.replace(scenario, retained=(scenario.held[0][:0], *scenario.retained[1:]))
    federation = federate("unlearn.method=retrain", on=partly)
    found = fedavg.unlearn_by_retraining(federation, pretrained(federation))
    never = federate(on=dataclasses.replace(partly, held=partly.retained))
    start = state.flatten(fedavg.initial(never, "retrain"))
    end = fedavg.fedavg(never, start, "retrain", "held", 2)
    assert state.flatten(found.state).values.tobytes() == end.payload.values.tobytes()
    assert np.array_equal(state.flatten(found.state).counters, end.payload.counters)
    assert found.metrics == end.metrics


def test_finetuning_is_fedavg_that_goes_on_from_the_trained_model_on_what_stays(
    federate, pretrained, gone, space_of, mean
):
    federation = federate("unlearn.method=finetune", "unlearn.rounds=2")
    base = pretrained(federation)
    found = fedavg.unlearn_by_finetuning(federation, base)
    config, space, payload = federation.config, space_of(federation), state.flatten(base)
    sizes = [len(part) for part in gone.retained]
    for number in (1, 2):
        work = fedavg.FullTraining("unlearn", number, config.seed, config.train, "retained")
        updates = [work.update(space, payload, client).payload for client in (0, 2, 4)]
        payload = mean(updates, [sizes[client] for client in (0, 2, 4)], sum(sizes))
    assert state.flatten(found.state).values.tobytes() == payload.values.tobytes()
    assert found.start_metrics == federation.evaluate(fedavg.ModelEvaluation(), state.flatten(base))


def test_no_rounds_of_finetuning_leave_the_model_as_it_was(federate, pretrained):
    federation = federate("unlearn.method=finetune", "unlearn.rounds=0")
    base = pretrained(federation)
    found = fedavg.unlearn_by_finetuning(federation, base)
    assert state.state_hash(found.state) == state.state_hash(base)
    assert found.metrics == found.start_metrics
