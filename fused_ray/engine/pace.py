"""How long a client's work takes, fitted to what earlier rounds took: a fixed part and one per example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Pace:
    """Seconds of a client by its number of examples. Until there is something to learn from, an example takes one."""

    def __init__(self) -> None:
        self._fixed, self._each = 0.0, 1.0

    def learn(self, examples: Sequence[int], seconds: Sequence[float]) -> None:
        """Fit a line by least squares to what clients took, in place of what was known; no part of it is negative."""
        held, took = np.asarray(examples, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
        if not took.any():
            return
        beside = held - held.mean()
        spread = beside @ beside
        each = float(beside @ took / spread) if spread else 0.0
        fixed = float(took.mean() - each * held.mean())
        if each < 0:
            each, fixed = 0.0, float(took.mean())
        elif fixed < 0:
            each, fixed = float(held @ took / (held @ held)), 0.0
        self._fixed, self._each = fixed, each

    def seconds(self, examples: int) -> float:
        return self._fixed + self._each * examples
