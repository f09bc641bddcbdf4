"""Which run a free runner of a study gets next."""

from __future__ import annotations

from fused_ray.studies.tune.waiting import Waiting


def test_a_runner_goes_on_with_its_group_and_a_new_one_begins_the_longest() -> None:
    waiting = Waiting([*(("a", n) for n in (1, 2)), *(("b", n) for n in (3, 4, 5)), ("c", 6)])
    assert waiting.take(None) == ("b", 3)
    assert waiting.take(None) == ("a", 1)
    assert waiting.take("b") == ("b", 4)
    assert waiting.take("b") == ("b", 5)
    assert waiting.take("b") == ("c", 6)  # nobody has begun it
    assert waiting.take("c") == ("a", 2)  # all are begun: it helps


def test_what_is_alone_in_its_group_is_given_out_in_order() -> None:
    waiting = Waiting([("a", 1), ("b", 2), ("c", 3)])
    assert [waiting.take(last)[1] for last in (None, None, "a")] == [1, 2, 3]
