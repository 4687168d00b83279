"""By which figure it is judged whether a run has been long enough."""

from __future__ import annotations

from testbed.headlines import find_headline
from testbed.results import Metric, Trial


def trial(measure: str, *names: str) -> Trial:
    return Trial(1, 1, "container", measure, "ok", metrics=tuple(Metric(name, 1.0, "s") for name in names))


def test_work_is_judged_by_what_it_gave() -> None:
    """And not by the time that it took, which fio, nuttcp and sysbench are given."""
    record = [trial("start", "created", "ready"), trial("work", "seq_read", "rand_read_rate", "work_duration")]
    assert find_headline("work", record) == "seq_read"
    assert find_headline("start", record) == "ready"
    assert find_headline("density", record) == ""
    assert find_headline("work", record[:1]) == ""


def test_density_is_judged_by_each_further_copy_where_there_is_one() -> None:
    assert find_headline("density", [trial("density", "memory_cgroup_first")]) == "memory_cgroup_first"
    both = [trial("density", "memory_cgroup_first", "memory_cgroup_further")]
    assert find_headline("density", both) == "memory_cgroup_further"
