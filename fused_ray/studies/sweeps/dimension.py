"""One field's values in a sweep: a list of them, or a range that numbers are drawn from, called as in Ray Tune."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import Field, model_validator

from fused_ray.config import Section
from fused_ray.seeding import generator

_Real = Annotated[float, Field(allow_inf_nan=False)]
_Whole = Annotated[int, Field(strict=True, ge=-(2**53), le=2**53)]
_Bounds: TypeAlias = tuple[_Real, _Real]
_Steps: TypeAlias = tuple[_Real, _Real, _Real]
_WholeBounds: TypeAlias = tuple[_Whole, _Whole]
_WholeSteps: TypeAlias = tuple[_Whole, _Whole, _Whole]


class Dimension(Section):
    """One field's values: exactly one of these."""

    grid: tuple[Any, ...] | None = None
    """Every one of these values."""
    choice: tuple[Any, ...] | None = None
    """One of these values, drawn evenly."""
    uniform: _Bounds | None = None
    """A number between the two, drawn evenly."""
    loguniform: _Bounds | None = None
    """A positive number between the two, its logarithm drawn evenly."""
    quniform: _Steps | None = None
    """A multiple of the third between the first two, drawn evenly."""
    qloguniform: _Steps | None = None
    """A positive multiple of the third: the one nearest to a number whose logarithm is drawn evenly."""
    randint: _WholeBounds | None = None
    """A whole number from the first up to, but without, the second, drawn evenly."""
    lograndint: _WholeBounds | None = None
    """The same above 0, the logarithm drawn evenly."""
    qrandint: _WholeSteps | None = None
    """A whole multiple of the third from the first to the second, both included, drawn evenly."""
    qlograndint: _WholeSteps | None = None
    """The same above 0, the logarithm drawn evenly."""

    @model_validator(mode="after")
    def _one(self) -> Dimension:
        if len(given := [kind for kind in KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"it has {' and '.join(given) or 'nothing'}; write one of {', '.join(KINDS)}")
        if isinstance(self.values, tuple):
            if not self.values:
                raise ValueError(f"{self.kind}: name at least one value")
            if value := twice(self.values):
                raise ValueError(f"{self.kind}: {value} is there twice")
            return self
        low, high = self.range[:2]
        if not low < high or (self.logarithmic and low <= 0):
            raise ValueError(f"{self.kind}: [{low:g}, {high:g}] is no range" + (" above 0" if self.logarithmic else ""))
        if self.step is not None:
            if self.step <= 0 or not (high - low) / self.step <= 1e9:
                raise ValueError(f"{self.kind}: {self.step:g} is no step between {low:g} and {high:g}")
            first, last = self._multiples
            if first > last:
                raise ValueError(f"{self.kind}: no multiple of {self.step:g} lies in [{low:g}, {high:g}]")
        return self

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values; None for a range."""
        return self.grid if self.grid is not None else self.choice

    @property
    def range(self) -> tuple[float, ...]:
        """A range as it was given: low, high, and the step of a quantised one."""
        ends: tuple[float, ...] = getattr(self, self.kind)
        return ends

    @property
    def logarithmic(self) -> bool:
        """Whether a range's logarithm is drawn evenly."""
        return "log" in self.kind

    @property
    def whole(self) -> bool:
        """Whether a range is one of whole numbers."""
        return self.kind.endswith("randint")

    @property
    def step(self) -> float | None:
        """What a quantised range has multiples of."""
        return self.range[2] if self.kind.startswith("q") else None

    @property
    def _multiples(self) -> tuple[int, int]:
        """The first and the last multiple of the step, counted in steps; ends that miss one by rounding are it."""
        low, high, step = self.range
        return math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value of a range."""
        if self.step is not None:
            first, last = self._multiples
            return self._multiple(first), self._multiple(last)
        low, high = self.range
        return (low, high - 1) if self.whole else (low, high)

    def _multiple(self, count: int) -> float:
        return count * self.range[2] if self.whole else float(f"{count * self.range[2]:.12g}")  # 0.3, not 0.1 + 0.2

    @property
    def samples(self) -> tuple[Any, ...]:
        """All values, or a range's ends."""
        return self.values or self.ends

    def draw(self, seed: int, key: str, number: int) -> Any:
        """A value for the draw of that number, from the seed."""
        chance = float(generator(seed, f"sweep/{key}", number).random())
        if self.values is not None:
            return self.values[min(int(chance * len(self.values)), len(self.values) - 1)]
        low, high = self.ends
        if not self.logarithmic:
            if self.step is None and not self.whole:
                return low + chance * (high - low)
            first, last = self._multiples if self.step is not None else (int(low), int(high))
            count = min(last, first + int(chance * (last - first + 1)))
            return self._multiple(count) if self.step is not None else count
        beyond = high + 1 if self.whole and self.step is None else high
        drawn = min(high, max(low, math.exp(math.log(low) + chance * (math.log(beyond) - math.log(low)))))
        if self.step is not None:
            return min(high, max(low, self._multiple(round(drawn / self.step))))
        return math.floor(drawn) if self.whole else drawn


KINDS = tuple(Dimension.model_fields)


def twice(values: Sequence[Any]) -> str:
    """The first value, as JSON, that is there before, if any is; 1 and 1.0 are one value."""
    seen: set[str] = set()
    for value in values:
        text = json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
        if text in seen:
            return text
        seen.add(text)
    return ""
