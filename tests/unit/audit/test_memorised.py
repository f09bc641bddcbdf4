"""Memorisation by groups: by hand, and models that know the most memorised examples still, or never did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.evidence import measured
from fused_ray.audit.metrics.memorised import Group, fifths, grouped, judge, memorisation
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.state import Arrays

MEMORISED = METRICS["memorised"]


def test_memorisation_by_hand() -> None:
    without = np.array([[0.3, 0.9], [0.5, 0.8], [0.4, 0.7]])
    assert memorisation(np.array([0.9, 0.6]), without) == pytest.approx([0.5, 0])


def test_fifths_include_their_upper_end_and_the_lowest_value() -> None:
    assert fifths(np.arange(10.0)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert fifths(np.array([5.0, 1, 2, 3, 4, 0])).tolist() == [4, 0, 1, 2, 3, 0]  # the edges are 1, 2, 3, 4
    assert fifths(np.array([0.0, 0, 0, 0, 1])).tolist() == [0, 0, 0, 0, 4]


def test_a_group_by_hand_and_one_that_is_empty() -> None:
    memories = np.array([0.0, 0, 0, 0, 1, 0, 0, 0, 0, 1])
    ours = np.array([1, 1, 0, 0, 1, 0, 0, 0, 0, 1], bool)
    theirs = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 1], bool)
    low, *between, top = grouped(memories, ours, theirs)
    assert between == [None, None, None]
    assert low is not None
    assert top is not None
    assert (low.examples, low.after, low.retrained, low.gap) == (8, 0.25, 0.25, 0)
    assert (low.agree, low.not_unlearned, low.lost) == (0.75, 0.125, 0.125)
    assert (top.examples, top.memorisation, top.after, top.retrained) == (2, 1, 1, 0.5)
    assert (top.agree, top.not_unlearned, top.lost) == (0.5, 0.5, 0)


def test_who_remembers_fails_and_who_never_knew_passes(yardstick: Yardstick, third: Arrays, ask: Any) -> None:
    idle = ask(MEMORISED, yardstick, yardstick.before)
    assert idle.passes is False
    assert idle.figures["gap_most"] > 0.5
    assert "is known still" in idle.said
    control = ask(MEMORISED, yardstick, yardstick.others[0])
    assert control.passes is True
    assert control.figures["gap_most"] == control.figures["gap_control"] or control.figures["gap_control"] == 0
    assert control.details["groups"] == control.details["control"]
    assert ask(MEMORISED, yardstick, third).passes is True


def test_the_control_takes_no_part_in_the_sorting(yardstick: Yardstick, ask: Any) -> None:
    """Whoever it is, the same examples are the most memorised ones: it is asked of them as any other model is."""
    assert yardstick.retrained is not None
    again, before = yardstick.others[0], yardstick.before
    alone, *one = (ask(MEMORISED, replace(yardstick, others=o), before) for o in ((), [again], [before]))
    assert [found.details["groups"] for found in one] == [alone.details["groups"]] * 2
    two = [ask(MEMORISED, replace(yardstick, others=[o, again]), before) for o in (yardstick.retrained, before)]
    assert two[0].details["groups"] == two[1].details["groups"] != alone.details["groups"]
    assert one[1].details["control"] == alone.details["groups"]


def test_the_rule_by_hand() -> None:
    """Where even who knows all of them would pass, a pass says nothing."""
    known = Group(10, 0.9, after=0.4, retrained=0.1, agree=0.7, not_unlearned=0.3, lost=0)
    judged = [judge(known, allowed, control)[0] for allowed, control in ((0.2, True), (0.2, False), (0.35, True))]
    assert judged == [False, None, True]
    assert judge(known, 0.9, True) == (None, "cannot tell: who knows all of so few examples would pass too")
    assert judge(replace(known, memorisation=0.05), 0.2, True)[0] is None


def test_nothing_can_be_told_of_what_was_not_memorised(yardstick: Yardstick, ask: Any) -> None:
    """The model before never knew it either."""
    assert yardstick.retrained is not None
    nothing = replace(yardstick, before=yardstick.retrained)
    assert ask(MEMORISED, nothing, yardstick.before).passes is None
    alone = replace(yardstick, others=())
    known = ask(MEMORISED, alone, yardstick.before)
    assert (known.passes, "without another retrained model" in known.said) == (None, True)
    lost = replace(alone, retrained=None)
    (failed,) = measured((MEMORISED,), lost, lost.before, lost.seen_before)["audit_metrics_failed"]
    assert failed == "metric memorised: there is no retrained model to tell what was memorised; it is left out"
