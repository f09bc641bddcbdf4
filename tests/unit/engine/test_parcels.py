"""What travels to actors: a round's work without what they have, and to each its own clients' part."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from fused_ray.config import TrainConfig
from fused_ray.core.adapter import Mask, Masks
from fused_ray.core.methods.fused import AdapterTraining
from fused_ray.core.training import AdapterStep
from fused_ray.core.work import EACH, ONCE, AdapterEvaluation, ModelEvaluation
from fused_ray.engine.parcels import packed, unpacked


@dataclass(frozen=True)
class Toy:
    round: int
    shape: str = field(metadata=ONCE)
    own: Mapping[int, str] = field(metadata=EACH)


def test_a_record_is_parted_and_put_together_for_some_clients() -> None:
    parcel = packed(Toy(3, "large", {1: "a", 2: "b"}))
    assert (parcel.rest, parcel.once) == (Toy(3, None, {}), {"shape": "large"})
    assert parcel.of([2, 7]) == {"own": {2: "b"}}
    assert unpacked(parcel.rest, parcel.once, parcel.of([2, 7])) == Toy(3, "large", {2: "b"})


@pytest.mark.parametrize("record", [ModelEvaluation(), "no dataclass"])
def test_what_marks_nothing_travels_whole(record: object) -> None:
    parcel = packed(record)
    assert parcel.rest is record
    assert unpacked(parcel.rest, None, parcel.of([1])) is record


def test_a_round_of_an_adapter_carries_neither_masks_nor_what_others_kept_back() -> None:
    masks = Masks((Mask("fc", 100_000, np.arange(50_000)),))
    residuals = {client: np.zeros(50_000, np.float32) for client in range(100)}
    step, train = AdapterStep(0.1, 0.9, 0.0), TrainConfig()
    work = AdapterTraining("unlearn", 1, 0, train, step, masks, "int8", residuals)
    parcel = packed(work)
    assert len(pickle.dumps(work)) > 20_000_000
    assert len(pickle.dumps(parcel.rest)) < 3_000
    assert len(pickle.dumps(parcel.of([4]))) < 210_000
    assert unpacked(parcel.rest, parcel.once, parcel.of([4])).residuals.keys() == {4}
    assert packed(AdapterEvaluation(masks)).once == {"adapter": masks}
