from __future__ import annotations

import numpy as np

from fused_ray import models
from fused_ray.core import state
from fused_ray.core.methods import shared
from fused_ray.core.methods.shared import Replay


def test_spans_hold_each_parameter_and_no_buffer(federate):
    model = shared.blank_model(federate())
    like = state.arrays(model)
    values = state.flatten(like).values
    named = sorted((name, p.detach().numpy().ravel()) for name, p in model.named_parameters())
    spans = state.spans(model)
    assert [values[span].tolist() for span in spans] == [array.tolist() for _, array in named]
    inside = state.parameters(model)
    assert inside.tolist() == [i for span in spans for i in range(span.start, span.stop)]
    assert len(values) - len(inside) == 4  # two running means, two running variances


def test_a_model_without_buffers_is_all_parameters(data):
    model = models.build("lenet", (1, 28, 28), data.classes)
    assert state.parameters(model).tolist() == list(range(len(state.read(model).values)))


def test_a_replayed_round_gives_the_bits_of_pretraining(federate, pretrained):
    federation = federate("pretrain.history=true", "pretrain.rounds=3", "train.local_epochs=2")
    pretrained(federation)
    config, kept = federation.config, federation.recorder.kept
    for number in (1, 2, 3):
        work = Replay("replay", 7, config.seed, config.train, "held", number)
        total, _ = federation.gather(work, kept[number - 1], range(5))
        found = federation.mean(work, kept[number - 1], total)
        assert np.array_equal(found.values, kept[number].values)
        assert np.array_equal(found.counters, kept[number].counters)
        assert work.upload_bytes(kept[0]) == work.download_bytes(kept[0]) == 0
