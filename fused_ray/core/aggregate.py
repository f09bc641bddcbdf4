"""The exact weighted mean: fixed-point integers, whose sum does not depend on the order of its terms.

Floating-point sums change with arrival order, packing and retries. Here each value x becomes the whole number
round(x * 2**bits), and int64 sums of weight * that are exact, so any grouping of clients gives the same bits. The
resolution is 2**-bits: for 60,000 examples and values up to 1,024 that is 1.5e-11. Secure aggregation needs the
same integers.

Of more than 2**NARROW examples that resolution would be too coarse for small values. Then the sum has two limbs: of
round(x * 2**(bits + fine)), what exceeds 2**fine is summed at the scale 2**bits, and the rest apart. The resolution is
2**-44 whatever the number of examples, as exact, as free of order, and half as fast. Which of the two it is depends on
the number of examples alone.

Buffers may exceed the range (BatchNorm's variance of bytes is in the tens of thousands): of such values the multiples
of 2**HIGH_BITS are summed apart, as integers too. What nobody changed, a mask of -inf, is not averaged at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fused_ray.errors import NumericsError
from fused_ray.types import FloatVector, IntVector, PartialSum, Spans

BOUND_BITS = 10
"""Values may be as large as 2**BOUND_BITS."""
HIGH_BITS = BOUND_BITS + 1
"""A value within the bound is nearest to the zeroth multiple of 2**HIGH_BITS."""
NARROW = 22
"""One limb is enough for up to 2**NARROW examples (4,194,304): its resolution is then 2**-30 or finer."""
FINE_BITS = 27
"""Bits of the lower of two limbs."""
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


class Scale(NamedTuple):
    """What whole numbers a sum is made of."""

    bits: int
    """Fractional bits of the sum, or of its upper limb."""
    fine: int = 0
    """Further ones, of its lower limb; 0: there is none."""

    @property
    def steps(self) -> float:
        """Whole numbers from 0 to 1: what a value is multiplied by before it is rounded."""
        return 2.0 ** (self.bits + self.fine)


def scale_of(total_weight: int) -> Scale:
    """The scale for weights that sum to `total_weight`, of up to 2**35 examples."""
    if total_weight <= 1 << NARROW:
        return Scale(scale_bits(total_weight))
    # a limb's whole numbers are below 2**27, and so the weights may sum to 2**35
    bits = FINE_BITS - BOUND_BITS
    assert total_weight <= 1 << (62 - FINE_BITS)
    return Scale(bits, FINE_BITS)


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

    The grand total of all weights that ever meet must not exceed the `total_weight` that the scale was made for.
    """

    def __init__(self, size: int, bits: int, fine: int = 0) -> None:
        self.bits, self.fine = bits, fine
        self.total: IntVector = np.zeros(size, np.int64)
        self.low: IntVector = np.zeros(size if fine else 0, np.int64)
        self.high: IntVector = np.zeros(0, np.int64)
        self.weight = 0
        self._make_room(size)

    @classmethod
    def onto(cls, part: PartialSum, bits: int, fine: int = 0) -> ExactSum:
        """A sum that goes on from another one of the same scale, in that one's memory."""
        exact = cls(0, bits, fine)
        exact.total, exact.low, exact.high, exact.weight = part.total, part.low, part.high, part.weight
        exact._make_room(len(part.total))
        return exact

    def _make_room(self, size: int) -> None:
        """Scratch memory for the values of a chunk."""
        self._float = np.empty(min(size, _CHUNK), np.float64)
        self._upper = np.empty(min(size, _CHUNK) if self.fine else 0, np.float64)
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
            scaled = self._float[: len(part)]
            np.multiply(part, 2.0**self.bits, out=scaled, dtype=np.float64)  # exact: a power of two
            limb = self.total
            if self.fine:
                upper, limb = self._upper[: len(part)], self.low
                np.rint(scaled, out=upper)
                scaled -= upper  # exact: what is left has the value's last bits
                scaled *= 2.0**self.fine
                self._add_whole(self.total[start : start + _CHUNK], upper, weight)
            np.rint(scaled, out=scaled)
            self._add_whole(limb[start : start + _CHUNK], scaled, weight)
        self.weight += weight

    def merge(self, total: IntVector, weight: int, high: IntVector, low: IntVector | None = None) -> None:
        """Add another exact sum of the same scale."""
        self.total += total
        if low is not None and len(low):
            self.low += low
        if len(high):
            self._add_high(high)
        self.weight += weight

    def mean(self) -> FloatVector:
        """The weighted mean, rounded once to float32."""
        assert self.weight > 0
        mean = self.total / (self.weight * 2.0**self.bits)
        if self.fine:
            mean += self.low / (self.weight * 2.0 ** (self.bits + self.fine))
        if len(self.high):
            mean += self.high * 2.0**HIGH_BITS / self.weight
        return mean.astype(np.float32)

    def _add_whole(self, total: IntVector, numbers: NDArray[np.float64], weight: int) -> None:
        """Add weight times whole numbers to a limb."""
        whole = self._int[: len(numbers)]
        np.copyto(whole, numbers, casting="unsafe")
        whole *= weight
        total += whole

    def _add_high(self, high: IntVector) -> None:
        self.high = self.high + high if len(self.high) else high.copy()
