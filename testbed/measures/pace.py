"""Estimates how far a run is, and how long the rest will take, from what its trials have taken so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from testbed.measures.schedule import PlannedTrial


def describe_duration(seconds: float) -> str:
    """Return a time left in words, no more exact than it is known."""
    if seconds < 90:
        return f"about {max(10, round(seconds / 10) * 10)} s left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 90 else f"about {minutes / 60:.1f} h left"


class Pace:
    """Takes the time of each planned trial; one that stands for several rates counts as so many trials."""

    def __init__(self, planned: Sequence[PlannedTrial] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._planned = tuple(planned)
        self._clock = clock
        self._took_s: dict[tuple[str, str], list[float]] = {}
        self._last: PlannedTrial | None = None
        self._since_s = 0.0

    def begin(self, planned: PlannedTrial) -> str:
        """Return ``trial 3 of 12``, of the trial that begins now."""
        now_s = self._clock()
        if self._last is not None:
            self._took_s.setdefault((self._last.measure, self._last.platform), []).append(now_s - self._since_s)
        self._last, self._since_s = planned, now_s
        last = planned.trial + len(planned.rates_per_s[1:])
        number = f"{planned.trial}" if last == planned.trial else f"{planned.trial} to {last}"
        total = sum(len(one.rates_per_s) or 1 for one in self._planned)
        return f"trial{'s' if last > planned.trial else ''} {number}" + (f" of {total}" if total else "")

    def left(self) -> str:
        """Return the time that the trial that has begun and all after it will take, in words; empty while it is not
        known."""
        if self._last not in self._planned:
            return ""
        rest = self._planned[self._planned.index(self._last) :]
        expected_s = [self._expected_s(one) for one in rest]
        estimated_s = [seconds for seconds in expected_s if seconds is not None]
        return describe_duration(sum(estimated_s)) if len(estimated_s) == len(expected_s) else ""

    def _expected_s(self, planned: PlannedTrial) -> float | None:
        """Return what this measure took on this platform so far; else what it took on the slowest of the others."""
        if took_s := self._took_s.get((planned.measure, planned.platform)):
            return sum(took_s) / len(took_s)
        others = [max(took_s) for (measure, _), took_s in self._took_s.items() if measure == planned.measure]
        return max(others, default=None)
