"""The information of probes: by hand, on noise, and on which images it is asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fused_ray.audit.information import Information, entropy, gain, inapplicable, index, information, samples
from fused_ray.audit.probes import fitted
from fused_ray.core.state import read
from fused_ray.data.scenarios import stamped

# --- by hand -----------------------------------------------------------------------------------------------

EVEN = np.arange(10) < 5


def test_information_by_hand() -> None:
    """Always right with p = .8: log 2 + log .8. As InfoNCE: the mean of s_y - log of the mean over y of e^s."""
    scores = np.where(EVEN, math.log(4), -math.log(4))
    assert gain(scores, EVEN) == pytest.approx(math.log(2) + math.log(0.8))
    assert gain(scores, EVEN) == pytest.approx(0.4700, abs=5e-5)
    assert math.log(4) - math.log((4 + 1) / 2) == pytest.approx(gain(scores, EVEN))


def test_information_is_infonce_at_any_share() -> None:
    y, critics = np.arange(8) < 2, np.array([[0.3, 2.0], [-1.0, 0.5]])
    s = critics[:, y.astype(int)]  # rows: s_0, s_1
    chosen = np.where(y, s[1], s[0])
    infonce = np.mean(chosen - np.log(0.25 * np.exp(s[1]) + 0.75 * np.exp(s[0])))
    assert gain(s[1] - s[0] + math.log(0.25 / 0.75), y) == pytest.approx(infonce)


def test_knowing_nothing_and_being_surely_wrong() -> None:
    y = np.arange(8) < 2
    assert entropy(y) == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))
    assert gain(np.full(8, math.log(1 / 3)), y) == pytest.approx(0, abs=1e-12)
    assert gain(np.where(y, -1e4, 1e4), y) == pytest.approx(entropy(y) - 1e4)


def told(*draws: tuple[float, ...]) -> Information:
    names = tuple("abc"[: len(draws[0])])
    return Information(names, 0.69, draws, draws)


def test_index_by_hand() -> None:
    before, retrained, after = (told(x, x) for x in ((0.6, 0.5), (0.1, 0.2), (0.4, 0.3)))
    found = index(before, [retrained], after)
    assert found.told
    assert found.value == pytest.approx(0.5)
    assert found.denominator == pytest.approx(0.8)
    assert (found.spread, found.floor, found.why, found.stages) == (0.0, None, "", ("a", "b"))
    assert found.draws == pytest.approx((0.5, 0.5))


def test_stages_that_knew_no_more_do_not_count_and_what_is_below_is_not_clipped() -> None:
    """The second stage counts for nobody. In the third the model after has less than the retrained one: (.3 - .2)/.8"""
    before, retrained, after = (told(x, x) for x in ((0.6, 0.1, 0.5), (0.1, 0.2, 0.2), (0.4, 0.9, 0.0)))
    found = index(before, [retrained], after)
    assert found.stages == ("a", "c")
    assert found.value == pytest.approx(0.1 / 0.8)


@pytest.mark.parametrize(("step", "expected"), [(0.099, True), (0.101, False)])
def test_the_denominator_must_exceed_four_deviations_over_the_draws(step: float, expected: bool) -> None:
    """Denominators .4 - step, .4, .4 + step deviate by step."""
    before, retrained = told((0.4 - step,), (0.4,), (0.4 + step,)), told((0.0,), (0.0,), (0.0,))
    found = index(before, [retrained], before)
    assert found.spread == pytest.approx(step)
    assert found.told is expected
    assert (found.value is not None) is expected
    assert ("0.4000 nats, does not exceed 4 standard deviations over the draws, 0.4040" in found.why) is not expected


@pytest.mark.parametrize(("step", "expected"), [(0.199, True), (0.201, False)])
def test_three_retrained_models_must_lie_close_together(step: float, expected: bool) -> None:
    before, zero, up, down = (told((x,), (x,)) for x in (0.4, 0.0, step, -step))
    found = index(before, [zero, up, down], before)
    assert found.floor == pytest.approx(step)
    assert found.told is expected
    assert ("2 standard deviations over 3 retrained models, 0.4020" in found.why) is not expected
    assert index(before, [zero, told((0.39,), (0.39,))], before).told, "two of them have no spread to speak of"


def test_where_the_model_before_knows_no_more_nothing_can_be_told() -> None:
    found = index(told((0.1,), (0.1,)), [told((0.2,), (0.2,))], told((0.1,), (0.1,)))
    assert (found.value, found.told, found.stages) == (None, False, ())
    assert found.why == "cannot be told: no stage of the model before says more than the retrained model's"


# --- probes ------------------------------------------------------------------------------------------------


def noise(rows: int, width: int = 20) -> Any:
    return np.random.default_rng(rows).normal(size=(rows, width)).astype(np.float32)


def test_a_probe_finds_what_is_there_and_nothing_in_noise() -> None:
    x, t = noise(2_000), noise(1_001)
    assert gain(fitted(x, x[:, 0] > 0).log_odds(t), t[:, 0] > 0) > 0.5
    assert gain(fitted(x, x[:, 0] > 0).log_odds(t), noise(1_001, 21)[:, 20] > 0) < 0


def test_a_unit_that_two_images_rouse_does_not_spoil_a_probe() -> None:
    """It speaks for two images that are hard to tell, and for a test image at 300,000 deviations: wrongly."""
    x, t = noise(2_000), noise(1_001)
    y, truth = x[:, 0] > 0, t[:, 0] > 0
    expected = gain(fitted(x, y).log_odds(t), truth)
    x[:, 1] = t[:, 1] = 0
    x[np.argsort(np.where(y, x[:, 0], np.inf))[:2], 1] = 1e-5
    t[np.flatnonzero(~truth)[0], 1] = 0.1
    assert gain(fitted(x, y).log_odds(t), truth) == pytest.approx(expected, abs=0.02)


def test_the_number_of_threads_does_not_matter() -> None:
    x = noise(2_000, 300)
    with threadpool_limits(1):
        one = fitted(x, x[:, 0] > 0).log_odds(x)
    with threadpool_limits(2):
        assert np.array_equal(fitted(x, x[:, 0] > 0).log_odds(x), one)


def test_one_label_alone_is_always_found() -> None:
    assert fitted(noise(9), np.full(9, 7)).classes(noise(3)).tolist() == [7, 7, 7]


# --- what is asked about which images ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "label"),
    [(["forget.scenario=class", "forget.classes=[3]"], 3), (["forget.scenario=exclusive", "forget.classes=[5,2]"], 5)],
    ids=["class", "exclusive"],
)
def test_half_of_the_images_of_each_side(world: Any, overrides: list[str], label: int) -> None:
    made = world(*overrides)
    data, several = made.data, [samples(made.space, draw) for draw in range(2)]
    for (pixels, y), (tested, truth) in several:
        for given, found, images, labels in (
            (pixels, y, data.train_images, data.train_labels),
            (tested, truth, data.test_images, data.test_labels),
        ):
            known = {image.tobytes(): one for image, one in zip(images, labels, strict=True)}
            assert found.tolist() == [known[image.tobytes()] == label for image in given]
            assert found.sum() == (labels == label).sum() // 2
            assert len(found) in (len(labels) // 2, len(labels) // 2 - 1)
    assert not np.array_equal(several[0][0][0], several[1][0][0])
    assert not np.array_equal(several[0][1][0], several[1][1][0])


def test_the_same_images_with_and_without_the_trigger(world: Any) -> None:
    made = world("forget.scenario=sample")
    dirty = {image.tobytes() for image in made.data.train_images[made.scenario.poisoned]}
    for pixels, y in samples(made.space, 0):
        n = len(y) // 2
        assert y.tolist() == [False] * n + [True] * n
        assert np.array_equal(pixels[n:], stamped(pixels[:n], made.scenario.trigger))
        assert not np.array_equal(pixels[n:], pixels[:n])
        assert not dirty & {image.tobytes() for image in pixels[:n]}
    assert n == 1_500 // 2


@pytest.mark.parametrize("scenario", ["class", "sample"])
@pytest.mark.parametrize(("fitted", "scored"), [(400, 200), (6, 4)])
def test_there_is_a_limit_and_at_least_one_of_each_value(
    world: Any, monkeypatch: Any, scenario: str, fitted: int, scored: int
) -> None:
    monkeypatch.setattr("fused_ray.audit.information.MOST_FITTED", fitted)
    monkeypatch.setattr("fused_ray.audit.information.MOST_SCORED", scored)
    for (_, y), most in zip(samples(world(f"forget.scenario={scenario}").space, 0), (fitted, scored), strict=True):
        assert most - 1 <= len(y) <= most + 1
        assert 0 < y.sum() < len(y)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["forget.scenario=client"], "does not apply: nothing in an image says whose it is"),
        (["forget.scenario=sample", "forget.poison=false"], "does not apply: nothing in an image says that it must be"),
    ],
    ids=["client", "sample"],
)
def test_no_index_where_images_say_nothing(world: Any, overrides: list[str], why: str) -> None:
    space = world(*overrides).space
    assert inapplicable(space).startswith(why)
    assert information(space, read(space.model)) is None
