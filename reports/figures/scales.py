"""Scales of axes: where a value lies, and which values are marked. Pure, and defined for every finite input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from reports.quantities import format_plain

Kind = Literal["linear", "root", "log"]
# Beyond this ratio of the largest to the smallest, a linear axis would press the small ones into one dot.
_LINEAR_UP_TO = 8.0
_STEPS = (1.0, 2.0, 5.0)
_LEAST_SPAN = 1e-300  # less cannot be divided


class Scale(Struct, frozen=True):
    """An axis from ``low`` to ``high``: linear, by the square root (from 0), or logarithmic (above 0)."""

    kind: Kind
    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value lies, as a fraction of the axis; what is beyond an end lies at it."""
        low, high = _transform(self.kind, self.low), _transform(self.kind, self.high)
        if math.isnan(value) or high <= low:
            return 0.0
        if self.kind == "log" and value <= 0:
            return 0.0
        at = _transform(self.kind, value)
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """Return at most so many values to mark, ascending, with their texts."""
        values = _linear_ticks(self.low, self.high, most) if self.kind == "linear" else self._spread_ticks(most)
        return [(value, format_plain(value)) for value in values]

    def _spread_ticks(self, most: int) -> list[float]:
        """Choose among 1, 2 and 5 times powers of ten those that are far enough from each other: powers first."""
        low = self.low if self.low > 0 else self.high * 1e-4
        if not 0 < low <= self.high:
            return [0.0]
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(self.high)) + 1)
        chosen = [] if self.low > 0 else [0.0]
        for step in (1.0, 5.0, 2.0):
            # The larger first: they are what an axis ends with.
            for power in reversed(powers):
                value = step * 10.0**power
                if low <= value <= self.high * 1.0001 and self._is_free(value, chosen, 1 / most):
                    chosen.append(value)
        if len(chosen) < 2 + (self.low <= 0):  # less than a decade: as on a linear axis
            chosen = [value for value in _linear_ticks(self.low, self.high, most) if value > 0 or self.low <= 0]
        return sorted(chosen)

    def _is_free(self, value: float, chosen: Iterable[float], gap: float) -> bool:
        return all(abs(self.place(value) - self.place(other)) >= gap for other in chosen)


def _transform(kind: Kind, value: float) -> float:
    if kind == "root":
        return math.sqrt(max(value, 0.0))
    return math.log10(value) if kind == "log" else value


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    span = high - low
    if not _LEAST_SPAN < span < math.inf:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next((factor * power for factor in (*_STEPS, 10.0, 20.0) if span / (factor * power) <= most), span)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)][: most + 2]


def choose_scale(values: Sequence[float], kind: Kind | None = None) -> Scale:
    """Return the scale that shows all these values: from 0 and linear as long as the small ones can be told apart
    on it, otherwise (above 0) logarithmic."""
    finite = [value for value in values if math.isfinite(value)]
    positive = [value for value in finite if value > 0]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if kind is None:
        kind = "log" if low > 0 and high / low > _LINEAR_UP_TO else "linear"
    if kind == "log" and positive:
        low, high = min(positive), max(positive)
        room = (high / low) ** 0.06 if high / low > 1.5 else 1.25
        return Scale("log", low / room, high * room)
    if high <= 0 <= low or not finite:
        return Scale("linear" if kind == "log" else kind, 0.0, 1.0)
    room = max(high, 0.0) - min(low, 0.0)
    return Scale("root" if kind == "root" else "linear", min(low * 1.06, 0.0), max(high, 0.0) + room * 0.06)
