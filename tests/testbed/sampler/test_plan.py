"""Which files are read on hosts of either cgroup version, and how often."""

from __future__ import annotations

from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.cgroups.hierarchy import Hierarchies
from testbed.sampler.plan import BUDGETS, LIMIT, Group, Target, describe_groups, plan_network, plan_sampling

ROOT = Path("/sys/fs/cgroup")
V1 = Hierarchies({name: ROOT / name for name in ("memory", "cpu", "cpuacct", "pids", "devices")}, None, frozenset())
V2 = Hierarchies({}, ROOT, frozenset({"memory", "cpu", "pids", "io"}))
# As the kernel writes it, in fewer columns of blanks.
NETDEV = """Inter-|   Receive            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  100 1 0 0 0 0 0 0  100 1 0 0 0 0 0 0
    v2:  500 5 0 0 0 0 0 0  900 9 0 0 0 0 0 0
    v1:  300 3 0 0 0 0 0 0  700 7 0 0 0 0 0 0
"""


def plan(hierarchies: Hierarchies, *interfaces: str) -> dict[str, Group]:
    target = Target(Cgroup("testbed/run/web", hierarchies), interfaces)
    return {group.name: group for group in plan_sampling({"web": target}, hierarchies, NETDEV)}


def test_on_v1_each_controller_has_its_own_file() -> None:
    groups = plan(V1)
    assert list(groups) == ["cpu", "host", "memory", "throttling", "io", "pss"]
    (cpu,) = groups["cpu"].sources
    assert (cpu.kind, str(cpu.path)) == ("number", "/sys/fs/cgroup/cpuacct/testbed/run/web/cpuacct.usage")
    (held_back,) = groups["throttling"].sources
    assert [column.name for column in held_back.columns] == ["nr_periods", "nr_throttled", "throttled_ns"]
    assert "throttled_time " in held_back.keys
    assert groups["io"].sources[0].kind == "each io", "no cgroup is counted: its processes are asked"


def test_on_v2_one_file_has_time_and_throttling_and_the_cgroup_has_its_pressure(tmp_path: Path) -> None:
    groups = plan(V2)
    assert list(groups) == ["cpu", "host", "memory", "io", "pressure", "pss"]
    (cpu,) = groups["cpu"].sources
    assert str(cpu.path).endswith("/web/cpu.stat")
    assert [(column.name, column.factor) for column in cpu.columns] == [
        ("cpu_ns", 1000), ("nr_periods", 1), ("nr_throttled", 1), ("throttled_ns", 1000),
    ]  # fmt: skip
    assert [source.path.name for source in groups["pressure"].sources] == [
        "cpu.pressure", "memory.pressure", "io.pressure",
    ]  # fmt: skip
    counted = Hierarchies({}, tmp_path, V2.v2)
    (tmp_path / "testbed/run/web").mkdir(parents=True)
    (tmp_path / "testbed/run/web/io.stat").touch()
    (source,) = plan(counted)["io"].sources
    assert (source.kind, source.keys) == ("keys", ("rbytes=+", "wbytes=+"))


def test_charges_are_read_at_every_tick_and_the_rest_once_a_second_within_a_hundredth_of_a_processor() -> None:
    groups = plan(V1, "v1")
    assert {name: group.every for name, group in groups.items() if group.every == 1} == {
        "cpu": 1,
        "host": 1,
        "memory": 1,
    }
    assert {group.every for group in groups.values()} == {1, 10}
    assert sum(BUDGETS.values()) <= LIMIT < 10_000
    assert [name for name, group in groups.items() if group.is_slow] == ["io", "pss"]


def test_interfaces_are_sought_in_the_order_of_the_file_and_seen_from_the_instance() -> None:
    (source,) = plan_network({"web": ("v1",), "store": ("v2", "gone")}, NETDEV)
    assert source.keys == ("v2:", "v2:@8", "v1:", "v1:@8")
    assert [(column.owner, column.name) for column in source.columns] == [
        ("store", "sent_bytes"), ("store", "received_bytes"), ("web", "sent_bytes"), ("web", "received_bytes"),
    ]  # fmt: skip
    assert plan_network({"web": ()}, NETDEV) == plan_network({"web": ("gone",)}, NETDEV) == ()
    assert plan_network({"web": ("odd|name",)}, "a\nb\nodd|name: 1\n") == ()


def test_the_program_is_told_in_lines() -> None:
    lines = describe_groups(plan_sampling({}, V2), 0.1).splitlines()
    assert lines[:3] == ["interval 100000000", f"limit {LIMIT}", f"group 1 {BUDGETS['host']}"]
    assert lines[4] == "keys /proc/meminfo\tMemAvailable:"
    assert "group 1 0" in describe_groups(plan_sampling({}, V2), 0.1, limited=False)
