from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fused_ray.audit.outputs import forgotten, log_probabilities, logits, retained
from fused_ray.audit.yardstick import Yardstick
from fused_ray.core.state import flatten
from fused_ray.core.workspace import test_blocks as blocks_of
from fused_ray.errors import NumericsError
from fused_ray.types import Payload


def test_they_are_what_a_run_evaluates(yardstick: Yardstick) -> None:
    payload, space = flatten(yardstick.before), yardstick.space
    everything = np.arange(len(space.data.test_labels))
    found = logits(space, payload, "test", everything)
    predicted = np.concatenate(space.predict_model(payload, range(blocks_of(space.data))))
    assert np.array_equal(found.argmax(1), predicted)
    some = everything[[5, 300, 7]]
    assert np.array_equal(logits(space, payload, "test", some), found[some])  # to the last bit, whatever is asked


def test_what_is_not_finite_is_refused(yardstick: Yardstick) -> None:
    payload = flatten(yardstick.before)
    broken = Payload(np.where(np.arange(payload.values.size) == 0, np.float32(np.nan), payload.values))
    with pytest.raises(NumericsError, match="not finite"):
        logits(yardstick.space, broken, "train", np.arange(3))


def test_log_probabilities_by_hand() -> None:
    found = log_probabilities(np.log(np.array([[1, 3], [2, 2]], np.float32)))
    assert np.allclose(np.exp(found), [[0.25, 0.75], [0.5, 0.5]])
    assert log_probabilities(np.array([[0, -1000]], np.float32)).tolist() == [[0.0, -1000.0]]


def test_all_that_is_held_is_forgotten_or_retained(forgetting: Any) -> None:
    gone, kept = forgotten(forgetting.scenario), retained(forgetting.scenario)
    labels = forgetting.data.train_labels
    assert gone.tolist() == np.flatnonzero(labels == 0).tolist()
    assert kept.tolist() == np.flatnonzero(labels != 0).tolist()
