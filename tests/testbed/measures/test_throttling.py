"""What quotas held back, as figures: of all instances together, and of each that has one."""

from __future__ import annotations

from pathlib import Path

from runtime.cgroups import Cgroup, Hierarchies, Throttling
from runtime.spec import Process, Spec
from testbed.measures.throttling import make_metrics, name_part, read
from testbed.platforms.protocol import Instance


def test_instances_without_a_quota_have_no_figures() -> None:
    assert make_metrics({"web": Throttling()}) == ()
    limited = make_metrics({"web": Throttling(10, 5, 10**9), "store": Throttling()})
    assert [metric.metric for metric in limited] == [
        "throttled_periods", "throttled", "web.throttled_periods", "web.throttled",
    ]  # fmt: skip


def test_fractions_of_several_are_of_all_their_periods() -> None:
    both = make_metrics({"web": Throttling(90, 45, 0), "store": Throttling(10, 5, 10**9)})
    assert [(metric.value, metric.unit) for metric in both[:2]] == [(0.5, "1"), (1.0, "s")]
    assert [metric.value for metric in both if metric.metric.endswith("periods")] == [0.5, 0.5, 0.5]


def test_one_that_has_ended_by_itself_is_left_out(tmp_path: Path) -> None:
    there = Hierarchies({}, tmp_path, frozenset({"cpu"}))
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "cpu.stat").write_text("usage_usec 9\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2000\n")
    cgroups = {name: Cgroup(name, there) for name in ("web", "gone")}
    assert read(cgroups) == {"web": Throttling(4, 3, 2_000_000)}


def test_a_machine_for_all_services_is_named_after_them() -> None:
    spec = Spec(Process(("true",)), (), "web")
    assert name_part(Instance("t1-web", 0, {"web": spec}, Path("log"))) == "web"
    assert name_part(Instance("t1-clickme", 0, {"redis": spec, "web": spec}, Path("log"))) == "redis+web"
