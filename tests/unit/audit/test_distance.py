from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.distance import distance


def logits(*rows: Any) -> Any:
    return np.log(np.array(rows, np.float32))


def test_by_hand() -> None:
    """p = (1/2, 1/2) and q = (1, 0), with m = (3/4, 1/4)."""
    found = distance(logits((0.5, 0.5)), np.array([[0, -1000]], np.float32))
    half = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found.js == pytest.approx((half + math.log(1 / 0.75)) / 2)
    assert found.kl == pytest.approx(math.log(1 / 0.5))
    assert found.disagreement == 0.0


def test_means_over_examples() -> None:
    """The first example is the same in both, the second one's classes are swapped."""
    found = distance(logits((0.2, 0.8), (0.25, 0.75)), logits((0.2, 0.8), (0.75, 0.25)))
    kl = 0.75 * math.log(3) + 0.25 * math.log(1 / 3)
    js = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert found.kl == pytest.approx(kl / 2)
    assert found.js == pytest.approx(js / 2)
    assert found.disagreement == 0.5


def test_bounds() -> None:
    certain = np.array([[500, 0]], np.float32), np.array([[0, 500]], np.float32)
    assert distance(*certain).js == pytest.approx(math.log(2))
    same = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    found = distance(same, same)
    assert (found.js, found.kl, found.disagreement) == (pytest.approx(0, abs=1e-15), 0.0, 0.0)
