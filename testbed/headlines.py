"""The one figure of each measure that a run is long enough for, and that its noise floor is told of first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from testbed.results import Trial

# The first of these that a measure's trials have. How many copies fit is none: where it is the cap it has no spread,
# and where it is small its interval is whole copies wide, however long one measures. Of work it is the first of the
# application's own figures, which stand before what it took: many programs work for a time that they are given, and
# that has no spread.
HEADLINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "start": ("ready",),
        "density": ("memory_cgroup_further", "memory_cgroup_first"),
        "utilisation": ("cpu_per_request",),
        "work": (),
        "consolidation": ("alone_cpu",),
    }
)


def find_headline(measure: str, trials: Iterable[Trial]) -> str:
    """Return the metric that a measure is judged by, of those that these trials have; "" when they have none."""
    metrics = dict.fromkeys(metric.metric for trial in trials if trial.measure == measure for metric in trial.metrics)
    wanted = metrics if measure == "work" else HEADLINES.get(measure, ())
    return next((name for name in wanted if name in metrics), "")
