"""Residual knowledge: by hand, and models that have it, or none."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.metrics.residual import EXAMPLES, TAU, measure, ratios, share
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.state import Arrays

RESIDUAL = replace(METRICS["residual"], measure=partial(measure, draws=8))


def test_by_hand() -> None:
    """6 of 10 against 4 of 10; the counts are smoothed by a half, so that none of none is 1."""
    r = ratios(np.array([6, 0, 10, 4]), np.array([4, 0, 10, 6]))
    assert r == pytest.approx([6.5 / 4.5, 1, 1, 4.5 / 6.5])
    assert r[0] == pytest.approx(1.4444, abs=1e-4)
    assert share(r) == 0.25


def test_who_remembers_fails_and_who_never_knew_passes(yardstick: Yardstick, third: Arrays, ask: Any) -> None:
    idle = ask(RESIDUAL, yardstick, yardstick.before)
    assert idle.passes is False
    assert idle.figures["share"] == idle.figures["share_before"] > 0.5
    assert idle.figures["excess"] == idle.figures["share"] - idle.figures["null"]
    assert (idle.details["draws"], idle.details["tau"]) == (8, TAU)
    assert 0 < idle.details["examples"] <= EXAMPLES
    control = ask(RESIDUAL, yardstick, yardstick.others[0])
    assert control.passes is True
    assert control.figures["share"] == control.figures["null"]  # the same draws around the same examples
    assert ask(RESIDUAL, yardstick, third).passes is True
    same = ask(RESIDUAL, yardstick, yardstick.retrained)
    assert (same.passes, same.figures["share"]) == (True, 0)


def test_it_cannot_be_told_without_another_retrained_model(yardstick: Yardstick, ask: Any) -> None:
    found = ask(RESIDUAL, replace(yardstick, others=()), yardstick.before)
    assert found.passes is None
    assert found.figures["share"] > 0.5
    assert "excess" not in found.figures
