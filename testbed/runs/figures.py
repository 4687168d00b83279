"""The figures by which runs are compared: which there are, which direction is worse, and their values in a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from testbed.analysis import Run, find_saturated, get_offered_rate
from testbed.copies import RULERS, first_bytes, further_bytes
from testbed.levels import find_level
from testbed.ramps import select_ramps
from testbed.results import Metric

Better = Literal["lower", "higher"]


class Direction(Struct, frozen=True):
    """What is better of a metric, its unit, and whether a gate judges it unless it is told which to judge."""

    better: Better
    unit: str
    gated: bool = False


class Figure(Struct, frozen=True, order=True):
    """One figure: a metric of a measure on a platform, under load at an offered rate (requests per second; 0 for none),
    or of a mix of servers ("" for none).

    ``unit`` is that of a figure of an application's own work, whose name nobody else knows; "" of all others.
    """

    platform: str
    measure: str
    metric: str
    rate_per_s: float = 0.0
    unit: str = ""
    mix: str = ""

    @property
    def name(self) -> str:
        """Its name in exports, ``container/utilisation/latency_p99@50``."""
        return f"{self.platform}/{self.test}"

    @property
    def test(self) -> str:
        """Its name without the platform."""
        return f"{self.measure}/{self.metric}{self.level}"

    @property
    def level(self) -> str:
        """What tells it from the same metric under another load, ``@50`` or ``@8%``; "" where there is one load."""
        return f"@{self.rate_per_s:g}" if self.rate_per_s else f"@{self.mix}" if self.mix else ""

    @property
    def direction(self) -> Direction:
        if self.unit:
            return Direction("higher" if self.unit.endswith("/s") else "lower", self.unit, gated=True)
        return DIRECTIONS[self.measure][self.metric]


WORK = "work"
# What else there is of work besides its own figures.
_BESIDE_WORK = ("exits", "page_faults", "major_faults", "context_switches", "host_", "counting", "throttled")
_FIRST, _FURTHER = "_first", "_further"
_LOWER_S, _LOWER = Direction("lower", "s"), Direction("lower", "1")
# What else a run has (phases of one service, parts of the host's time) explains figures and is none to compare by.
DIRECTIONS: Mapping[str, Mapping[str, Direction]] = {
    "start": {
        "created": _LOWER_S,
        "first_process": _LOWER_S,
        "port_open": _LOWER_S,
        "ready": Direction("lower", "s", gated=True),
        "steady": _LOWER_S,
        "steady_latency": _LOWER_S,
        "pool_fill": _LOWER_S,
        "pool_memory": Direction("lower", "bytes"),
        "exits": _LOWER,
        "page_faults": _LOWER,
        "context_switches": _LOWER,
    },
    "density": {
        "applications": Direction("higher", "1", gated=True),
        **{
            f"{ruler}{which}": Direction("lower", "bytes", gated=ruler == "memory_cgroup")
            for ruler in RULERS
            for which in (_FIRST, _FURTHER)
        },
    },
    "utilisation": {
        "achieved_rate": Direction("higher", "1/s", gated=True),
        "cpu_per_request": Direction("lower", "s", gated=True),
        "latency_p50": Direction("lower", "s", gated=True),
        "latency_p90": _LOWER_S,
        "latency_p99": Direction("lower", "s", gated=True),
        "latency_p99_9": _LOWER_S,
        "memory_cgroup": Direction("lower", "bytes"),
        "memory_pss": Direction("lower", "bytes"),
        "memory_metered": Direction("lower", "bytes"),
        "exits_per_request": _LOWER,
        "page_faults_per_request": _LOWER,
        "context_switches_per_request": _LOWER,
    },
    "consolidation": {
        "servers": Direction("higher", "1", gated=True),
        "servers_declared": Direction("higher", "1"),
        "utilisation_after": Direction("higher", "1"),
        "alone_cpu": Direction("lower", "1", gated=True),
        "alone_memory": Direction("lower", "bytes"),
        "packed_memory": Direction("lower", "bytes"),
        "idle_cpu": _LOWER,
        "idle_wakeups": Direction("lower", "1/s"),
        "idle_memory": Direction("lower", "bytes"),
    },
    WORK: {
        "work_duration": Direction("lower", "s", gated=True),
        "work_cpu": _LOWER_S,
        "work_memory": Direction("lower", "bytes"),
    },
}
METRICS = tuple(dict.fromkeys(metric for metrics in DIRECTIONS.values() for metric in metrics))


def list_figures(run: Run) -> dict[Figure, tuple[float, ...]]:
    """Return every figure of a run that has a direction, with its value in each trial that counts, in their order.

    Memory of copies has one value a ramp: bytes of the first copy, and the mean of what each further one adds; where
    trials do not have it as a metric, as older ones, it comes from their samples. A platform that was saturated at a
    rate in some trial has no latency there.
    """
    figures: dict[Figure, list[float]] = {}
    saturated = {platform.name: find_saturated(run, platform.name) for platform in run.platforms}
    for trial in run.trials:
        if not trial.counted or trial.measure not in DIRECTIONS:
            continue
        rate = (get_offered_rate(trial) or 0.0) if trial.measure == "utilisation" else 0.0
        level = find_level(trial)
        mix = level if isinstance(level, str) else ""
        for metric in trial.metrics:
            too_high = metric.metric.startswith("latency_") and rate in saturated.get(trial.platform, {})
            own = trial.measure == WORK and is_own_figure(metric)
            if (own or metric.metric in DIRECTIONS[trial.measure]) and not too_high:
                figure = Figure(trial.platform, trial.measure, metric.metric, rate, metric.unit if own else "", mix)
                figures.setdefault(figure, []).append(metric.value)
    for platform in run.platforms:
        if Figure(platform.name, "density", f"{RULERS[0]}{_FIRST}") not in figures:
            for metric_name, value in _list_memory(run, platform.name):
                figures.setdefault(Figure(platform.name, "density", metric_name), []).append(value)
    return {figure: tuple(values) for figure, values in figures.items()}


def is_own_figure(metric: Metric) -> bool:
    """Whether a metric of work is what the application itself answered, and its unit says what is better: more in a
    second, or fewer seconds."""
    name = metric.metric
    if metric.unit != "s" and not metric.unit.endswith("/s"):
        return False
    return not ("." in name or name in DIRECTIONS[WORK] or name.startswith(_BESIDE_WORK))


def _list_memory(run: Run, platform: str) -> list[tuple[str, float]]:
    """Return what copies take by each ruler, a value for each ramp, from its samples."""
    found = []
    for ramp in select_ramps(run, platform):
        for ruler in RULERS:
            if (first := first_bytes(ramp.points, ruler)) is not None:
                found.append((f"{ruler}{_FIRST}", max(0.0, first)))
            if further := further_bytes(ramp.points, ruler):
                found.append((f"{ruler}{_FURTHER}", max(0.0, sum(further) / len(further))))
    return found


def count_failures(run: Run) -> dict[tuple[str, str], tuple[int, int]]:
    """Return, by platform and measure, how many trials failed and how many ended at all, void ones left out."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for trial in run.trials:
        if trial.outcome in ("ok", "failed") and not trial.warmup:
            failed, ended = counts.get((trial.platform, trial.measure), (0, 0))
            counts[trial.platform, trial.measure] = (failed + (trial.outcome == "failed"), ended + 1)
    return counts
