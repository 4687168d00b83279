"""The one figure of each measure that a run is long enough for, and that its noise floor is told of first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from testbed.results import Trial

# The first of these that a measure's trials have. How many copies fit is none: where it is the cap it has no spread,
# and where it is small its interval is whole copies wide, however long one measures.
HEADLINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "start": ("ready",),
        "density": ("memory_cgroup_further", "memory_cgroup_first"),
        "utilisation": ("cpu_per_request",),
        "work": ("work_duration",),
        "consolidation": ("alone_cpu",),
    }
)


def find_headline(measure: str, trials: Iterable[Trial]) -> str:
    """Return the metric that a measure is judged by, of those that these trials have; "" when they have none."""
    metrics = {metric.metric for trial in trials if trial.measure == measure for metric in trial.metrics}
    return next((name for name in HEADLINES.get(measure, ()) if name in metrics), "")
