"""Where a run should have repeated: how much instances and the requests within them vary, and what each costs.

The levels of a run's own data are instances (trials of `start`) and the requests that each was asked once its latency
was steady. Builds and runs are repeated by benchmarks/pilot.py only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from msgspec import Struct

from testbed.analysis import Run, read_points
from testbed.results import Trial
from testbed.statistics import LevelCost, Repetition, VarianceComponents, find_components, plan_repetitions

INSTANCE, REQUEST = "instance", "request"
# Of an instance with fewer requests nothing is learned of how they vary.
FEWEST_REQUESTS = 10
# So many instances are enough to see how they vary, and their files are read in a second.
_MOST_INSTANCES = 50


class Repetitions(Struct, frozen=True):
    """How logarithms of latencies vary by level, from the highest down, and how often to repeat each; ``counts`` are
    those that were measured."""

    levels: tuple[Repetition, ...]
    components: tuple[float, ...]
    counts: tuple[int, ...]


def find_repetitions(run: Run, platform: str) -> Repetitions | None:
    """Return where to repeat on a platform; None where fewer than two instances were asked often enough."""
    trials = list_starts(run, platform)[-_MOST_INSTANCES:]
    measured = [logs for trial in trials if len(logs := read_steady_logs(run, trial)) >= FEWEST_REQUESTS]
    if len(measured) < 2:
        return None
    least = min(map(len, measured))
    found = find_components([logs[-least:] for logs in measured])
    costs = (LevelCost(INSTANCE, cost_of_instance(trials)), LevelCost(REQUEST, cost_of_request(run, trials[0])))
    return summarise(found, costs)


def summarise(found: VarianceComponents, costs: Sequence[LevelCost]) -> Repetitions:
    """Return components with what follows from them and from costs."""
    return Repetitions(plan_repetitions(found.components, costs), found.components, found.counts)


def read_steady_logs(run: Run, trial: Trial) -> list[float]:
    """Return the natural logarithms of latencies (s) of the requests that an instance was asked once it was steady."""
    points = read_points(run, trial)
    steady = trial.value("steady")
    begin = math.inf if steady is None else steady
    pairs = zip(points.get("due_s", ()), points.get("latency_s", ()), strict=False)
    return [math.log(latency) for due, latency in pairs if due >= begin and 0 < latency < math.inf]


def cost_of_instance(trials: Sequence[Trial]) -> float:
    """Return the seconds until an instance is ready: what one more costs, but for its requests."""
    return median(value for trial in trials if (value := trial.value("ready")) is not None)


def cost_of_request(run: Run, trial: Trial) -> float:
    """Return the seconds from one request of an instance to the next; 0 where it has fewer than two."""
    gaps = [b - a for a, b in pairwise(read_points(run, trial).get("due_s", ())) if b > a]
    return median(gaps) if gaps else 0.0


def list_starts(run: Run, platform: str) -> list[Trial]:
    """Return the trials of ``start`` that became ready."""
    return [
        trial
        for trial in run.trials
        if trial.counted and (trial.measure, trial.platform) == ("start", platform) and trial.value("ready") is not None
    ]
