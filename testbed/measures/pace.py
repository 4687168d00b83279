"""Estimates how far a run is, and how long the rest will take: from what its trials have taken so far, and from the
scenario's settings for what has not been tried yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import fmean

from msgspec import Struct

from testbed.measures.level import AGAIN_WARMUP_S, count_windows
from testbed.measures.schedule import Group
from testbed.measures.steady import choose_window_s
from testbed.neighbours.cases import list_cases
from testbed.scenario.consolidation import Mix
from testbed.scenario.model import Settings

# What a start takes in all, by whether a kernel boots for it: seconds on an ordinary host, the emulated guest's.
TYPICAL_START_S, TYPICAL_BOOT_S = 1.0, 12.0
# How many copies a ramp gets to, as a part of its cap.
_TYPICAL_RAMP = 0.5
# Of the processors that servers fill before their service level breaks.
_TYPICAL_USE = 0.7


class Step(Struct, frozen=True):
    """One measure of a group of platforms, with so many trials of each."""

    measure: str
    group: Group
    count: int = 1


def describe_time(seconds: float) -> str:
    """Return a time in words, no more exact than it is known."""
    if seconds < 90:
        return f"about {max(10, round(seconds / 10) * 10)} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def show_seconds(seconds: float) -> str:
    """Return a time that was asked for: ``90 s``, ``30 min``, ``2 h``."""
    for unit, length_s in (("h", 3600), ("min", 60)):
        if seconds >= length_s and seconds % length_s == 0:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:g} s"


def guess_s(measure: str, settings: Settings, boots: bool) -> float:
    """Return the seconds that one measure of one platform takes on an ordinary host; ``boots``: a kernel does for
    every instance. It is told before anything has been measured, and only then."""
    load, density = settings.load, settings.density
    start_s = TYPICAL_BOOT_S if boots else TYPICAL_START_S
    if measure == "start":
        return start_s + choose_window_s(load)
    if measure == "density":
        looks = density.steps or range(1, 1 + max(1, round(_TYPICAL_RAMP * density.cap)))
        requests = density.rate_per_s * density.window_s
        windows = sum(count_windows(round(copies * requests), settings.slo) for copies in looks)
        again_s = (windows - len(looks)) * min(density.settle_s, AGAIN_WARMUP_S)
        settled_s = (1 + len(looks)) * density.settle_s
        return looks[-1] * start_s + settled_s + windows * density.window_s + again_s
    if measure == "neighbours":
        cases = list_cases(settings.neighbours.kinds)
        starts = len(cases) + sum(bool(case.kind) for case in cases)
        return starts * start_s + len(cases) * (load.warmup_s + settings.neighbours.window_s + 0.5)
    if measure == "consolidation":
        return sum(_guess_mix_s(mix, settings, start_s) for mix in settings.consolidation.mixes)
    return start_s + len(load.rates_per_s) * (load.warmup_s + load.duration_s + 0.5)


def _guess_mix_s(mix: Mix, settings: Settings, start_s: float) -> float:
    packed = settings.consolidation
    servers = max(1, min(packed.cap, round(_TYPICAL_USE / mix.fraction / (1 - mix.zombies))))
    return packed.settle_s + packed.idle_s + servers * (start_s + packed.settle_s + packed.window_s)


class Pace:
    """Takes the time of each step. ``guess`` gives the seconds of one that none is like on record yet."""

    def __init__(
        self,
        guess: Callable[[str, Group], float] = lambda measure, group: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guess = guess
        self._clock = clock
        self._took_s: dict[tuple[str, frozenset[str]], list[float]] = {}
        self._begun: tuple[Step, float] | None = None

    def begin(self, step: Step) -> None:
        """Begin to take the time of a step."""
        self._begun = step, self._clock()

    def end(self) -> None:
        """Take the time of the step that has begun."""
        assert self._begun is not None, "a step ends that has not begun"
        step, since_s = self._begun
        self._took_s.setdefault((step.measure, frozenset(step.group)), []).append(self._clock() - since_s)
        self._begun = None

    def expect_s(self, steps: Sequence[Step]) -> float:
        """Return the seconds that these steps will take."""
        return sum(self._expected_s(step) for step in steps)

    def _expected_s(self, step: Step) -> float:
        """Return what this measure took of this group so far; else what was guessed, by as much more or less as it was
        wrong of others."""
        if took_s := self._took_s.get((step.measure, frozenset(step.group))):
            return fmean(took_s)
        guessed_s = self._guess(step.measure, step.group)
        errors = [
            fmean(took_s) / guess
            for (measure, group), took_s in self._took_s.items()
            if measure == step.measure and (guess := self._guess(measure, tuple(group)))
        ]
        return guessed_s * max(errors, default=1.0)
