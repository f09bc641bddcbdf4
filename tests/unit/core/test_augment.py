"""Random views by hand, their distribution, and what training sees of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fused_ray.config import RunConfig
from fused_ray.core import state
from fused_ray.core.augment import PADDING, augmented
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.methods.shared import Replay
from fused_ray.core.training import batches
from fused_ray.core.workspace import Workspace
from fused_ray.seeding import bits
from fused_ray.types import ImageData, Scenario

IMAGES = np.arange(1, 1 + 2 * 2 * 6 * 5, dtype=np.uint8).reshape(2, 2, 6, 5)


def draw(row: int, column: int, flip: bool) -> int:
    """The draw that cuts a window at a row and column of the padded image, 0 to 8."""
    return ((row * 9 + column) << 1) | flip


def views(kind: Any, *draws: int) -> Any:
    return augmented(IMAGES, kind, np.array(draws, np.uint64))


def test_flips_by_hand() -> None:
    assert np.array_equal(views("flip", 0, 1)[0], IMAGES[0])
    assert np.array_equal(views("flip", 0, 1)[1], IMAGES[1, :, :, ::-1])
    assert np.array_equal(views("flip", draw(1, 7, True), 0)[0], IMAGES[0, :, :, ::-1])


def test_crops_by_hand() -> None:
    middle, corner = draw(4, 4, True), draw(0, 8, False)
    assert np.array_equal(views("crop", middle, middle), IMAGES)
    moved = views("crop", corner, middle)[0]  # four down, four to the left; black comes in
    assert np.array_equal(moved[:, 4:, :1], IMAGES[0, :, :2, 4:])
    assert moved[:, :4].sum() == moved[:, :, 1:].sum() == 0


def test_a_crop_is_flipped_as_a_whole() -> None:
    both, crop = views("crop-flip", draw(3, 2, True), 0)[0], views("crop", draw(3, 2, True), 0)[0]
    assert np.array_equal(both, crop[:, :, ::-1])
    assert both.flags.c_contiguous


def test_all_windows_and_both_sides_are_equally_likely() -> None:
    """5 deviations: flips of 8100 draws 4050 +- 45; each of 81 windows 100 +- 10."""
    marked = np.zeros((8100, 1, 17, 17), np.uint8)
    marked[:, 0, 8, 8] = 1
    seen = augmented(marked, "crop", bits(8100, 0, "augment/test"))
    _, _, rows, columns = np.nonzero(seen)
    counts = np.bincount((rows - 8 + PADDING) * 9 + columns - 8 + PADDING, minlength=81)
    assert len(counts) == 81
    assert abs(counts - 100).max() < 50
    lowest = bits(8100, 0, "augment/test") & np.uint64(1)
    assert abs(int(lowest.sum()) - 4050) < 5 * 45


def seen_by(work: FullTraining, config: RunConfig, data: ImageData, scenario: Scenario) -> list[Any]:
    """The batches of images that a client's training asks the model about."""
    space = Workspace(config, data, scenario)
    shown: list[Any] = []
    images = space.images

    def spy(*arguments: Any) -> Any:
        shown.append(images(*arguments))
        return shown[-1]

    space.images = spy  # type: ignore[method-assign]
    work.update(space, state.read(space.model), 2)
    return [batch.numpy() for batch in shown]


def test_training_sees_new_views_each_epoch_and_round_from_the_seed_alone(
    make_config: Callable[..., RunConfig], data: ImageData, scenario: Scenario
) -> None:
    config = make_config("data.augment=crop-flip", "train.local_epochs=2")
    plain = make_config("train.local_epochs=2")

    def work(phase: str, round: int) -> FullTraining:
        return FullTraining(phase, round, 0, config.train, "held")

    first = seen_by(work("pretrain", 1), config, data, scenario)
    again = seen_by(work("pretrain", 1), config, data, scenario)
    replayed = seen_by(Replay("replay", 9, 0, config.train, "held", 1), config, data, scenario)
    unchanged = seen_by(work("pretrain", 1), plain, data, scenario)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(first, replayed, strict=True))
    n = len(scenario.held[2])
    order = np.concatenate(list(batches(n, config.train, 0, "pretrain", 1, 2)))
    views, originals = np.concatenate(first), np.concatenate(unchanged)
    at = {epoch: np.argsort(order[epoch * n : (epoch + 1) * n]) + epoch * n for epoch in (0, 1)}
    assert np.array_equal(originals[at[0]], originals[at[1]])
    differ = (views[at[0]] != views[at[1]]).any(axis=(1, 2, 3)).mean()
    assert differ > 0.9  # 161 of 162 pairs of views in the mean
    assert not np.array_equal(np.concatenate(seen_by(work("retrain", 1), config, data, scenario)), views)


@pytest.mark.parametrize("kind", ["crop", "flip", "crop-flip"])
def test_padding_is_black_before_it_is_normalised(
    make_config: Callable[..., RunConfig], data: ImageData, scenario: Scenario, kind: str
) -> None:
    space = Workspace(make_config(f"data.augment={kind}"), data, scenario)
    corner = np.array([draw(0, 0, False)] * 3, np.uint64)
    seen = space.images("train", np.arange(3), corner).numpy()
    if kind == "flip":
        assert np.array_equal(seen, space.images("train", np.arange(3)).numpy())
    else:
        assert seen[:, :, :PADDING] == pytest.approx((0 - 0.4) / 0.3)
