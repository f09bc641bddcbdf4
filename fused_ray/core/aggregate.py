"""The exact weighted mean: fixed-point integers, whose sum does not depend on the order of its terms.

Floating-point sums change with arrival order, packing and retries. Here each value x becomes the whole number
round(x * 2**bits), and int64 sums of weight * that are exact, so any grouping of clients gives the same bits. The
resolution is 2**-bits: for 60,000 examples and values up to 1,024 that is 1.5e-11. Secure aggregation needs the
same integers.

Buffers may exceed the range (BatchNorm's variance of bytes is in the tens of thousands): of such values the multiples
of 2**HIGH_BITS are summed apart, as integers too. What nobody changed, a mask of -inf, is not averaged at all.
"""

from __future__ import annotations

import numpy as np

from fused_ray.errors import NumericsError
from fused_ray.types import FloatVector, IntVector, Spans

BOUND_BITS = 10
"""Values may be as large as 2**BOUND_BITS."""
HIGH_BITS = BOUND_BITS + 1
"""A value within the bound is nearest to the zeroth multiple of 2**HIGH_BITS."""
_CHUNK = 1 << 14  # elements; small enough for the scratch arrays to stay in the cache

LOWER = (
    "lower the learning rate (train.lr; of an adapter: unlearn.lr; of an ascent: eraseclient.lr; of the server's "
    "optimiser: federation.server_args.lr) or puf.eta"
)
"""How to mend a training that diverged."""


def scale_bits(total_weight: int) -> int:
    """Fractional bits such that weights summing to `total_weight` cannot overflow int64."""
    assert total_weight > 0
    return 62 - (total_weight - 1).bit_length() - BOUND_BITS


def check_values(values: FloatVector, who: str) -> None:
    """Raise NumericsError unless all values are finite and within the bound; `who` names client, phase, round."""
    largest = np.abs(values).max(initial=0.0)
    if not np.isfinite(largest):
        raise NumericsError(f"{who}: the update has values that are not finite; {LOWER}")
    if largest > 2**BOUND_BITS:
        raise NumericsError(
            f"{who}: the update has a value of {largest:g}, more than exact aggregation takes ({2**BOUND_BITS}); "
            f"{LOWER}"
        )


def reach(bits: int) -> float:
    """The largest value of a buffer that the sum of multiples of 2**HIGH_BITS takes at that scale."""
    return 2.0 ** (bits + BOUND_BITS + HIGH_BITS)


def with_fixed(
    values: FloatVector, before: FloatVector, fixed: Spans, bits: int, who: str
) -> tuple[FloatVector, IntVector]:
    """A trained model's values [P] as they can be summed, and the positions of those fixed ones that changed.

    A fixed value that did not change may be anything, infinite too: then 0 is summed, and the mean is not used. One
    that changed may leave the bound, but not the reach. Raises NumericsError for the others.
    """
    values, positions = values.copy(), [np.zeros(0, np.int64)]
    learned = values.copy()
    for start, stop in fixed:
        part, old = values[start:stop], before[start:stop]
        moved = part.view(np.uint32) != old.view(np.uint32)
        summable = (np.abs(part) <= reach(bits)) & (np.abs(old) <= reach(bits))  # NaN is not
        if (moved & ~summable).any():
            at = int(np.flatnonzero(moved & ~summable)[0])
            raise NumericsError(
                f"{who}: training changed a buffer from {old[at]:g} to {part[at]:g}, and beyond {reach(bits):g} exact "
                f"aggregation cannot average; {LOWER}, or keep that buffer from changing"
            )
        part[~summable] = 0
        learned[start:stop] = 0
        positions.append(start + np.flatnonzero(moved))
    check_values(learned, who)
    return values, np.concatenate(positions)


class ExactSum:
    """An exact running sum of weight * values over float32 vectors of one length; int64 inside.

    The grand total of all weights that ever meet must not exceed the `total_weight` that `bits` was made for.
    """

    def __init__(self, size: int, bits: int) -> None:
        self.bits = bits
        self.total: IntVector = np.zeros(size, np.int64)
        self.high: IntVector = np.zeros(0, np.int64)
        self.weight = 0
        self._float = np.empty(min(size, _CHUNK), np.float64)
        self._int = np.empty(min(size, _CHUNK), np.int64)

    def add(self, values: FloatVector, weight: int, fixed: Spans = ()) -> None:
        """Add weight * values. They passed `check_values`, or `with_fixed` with this `fixed`: it alone may be large."""
        large = [start + np.flatnonzero(np.abs(values[start:stop]) > 2**BOUND_BITS) for start, stop in fixed]
        if any(map(len, large)):
            beyond = np.concatenate(large)
            multiples = np.rint(values[beyond].astype(np.float64) / 2**HIGH_BITS)
            values = values.copy()
            values[beyond] -= (multiples * 2**HIGH_BITS).astype(np.float32)  # exact: what is left has fewer bits
            high = np.zeros(len(values), np.int64)
            high[beyond] = weight * multiples.astype(np.int64)
            self._add_high(high)
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            scaled, whole = self._float[: len(part)], self._int[: len(part)]
            np.multiply(part, 2.0**self.bits, out=scaled, dtype=np.float64)  # exact: a power of two
            np.rint(scaled, out=scaled)
            np.copyto(whole, scaled, casting="unsafe")
            whole *= weight
            self.total[start : start + _CHUNK] += whole
        self.weight += weight

    def merge(self, total: IntVector, weight: int, high: IntVector) -> None:
        """Add another exact sum of the same scale."""
        self.total += total
        if len(high):
            self._add_high(high)
        self.weight += weight

    def mean(self) -> FloatVector:
        """The weighted mean, rounded once to float32."""
        assert self.weight > 0
        mean = self.total / (self.weight * 2.0**self.bits)
        if len(self.high):
            mean += self.high * 2.0**HIGH_BITS / self.weight
        return mean.astype(np.float32)

    def _add_high(self, high: IntVector) -> None:
        self.high = self.high + high if len(self.high) else high.copy()
