"""The container's plan is pure: it is decided without root and without touching the host."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path
from typing import TypeVar

import pytest

from runtime.cgroups import Hierarchies
from runtime.errors import UsageError
from runtime.plan import steps as s
from runtime.plan.constants import CLONE_NEWCGROUP, CLONE_NEWNET
from runtime.plan.explain import explain
from runtime.plan.network import OWN_NAMESPACE, Attachment
from runtime.plan.workload import Building, workload_plan
from runtime.spec import CALLERS_NETWORK, Link, Process, Resources, Spec, User
from runtime.unionfs.overlay import WritableLayer

V1 = Hierarchies(
    {name: Path("/cg") / name for name in ("memory", "cpu", "cpuacct", "pids", "devices")}, None, frozenset()
)
V2 = Hierarchies({}, Path("/cg"), frozenset({"memory", "cpu", "pids"}))
T = TypeVar("T", bound=s.Step)
LINK = Link(IPv4Interface("10.0.0.2/24"), "02:00:0a:00:00:02")


def spec(**changes: object) -> Spec:
    values: dict[str, object] = {
        "process": Process(args=("server",), user=User(1000, 1000, additional_gids=(4, 5))),
        "layers": ("/store/layers/a", "/store/layers/b"),
        "hostname": "web",
        "resources": Resources(64 << 20, 0.5, 32),
    }
    return Spec(**{**values, **changes})  # type: ignore[arg-type]


def of_type(steps: tuple[s.Step, ...], kind: type[T]) -> list[T]:
    return [step for step in steps if isinstance(step, kind)]


def test_lower_directories_are_relative_and_the_top_layer_comes_first() -> None:
    plan = workload_plan(spec(), V1, "testbed/r/i")
    overlay = next(step for step in of_type(plan.child, s.Mount) if step.fstype == "overlay")
    assert overlay.data.startswith("lowerdir=b:a,upperdir=/")
    assert s.Chdir("/store/layers") in plan.child


def test_the_memory_limit_is_written_and_its_cgroup_joined_before_anything_is_made() -> None:
    """On v1 the other cgroups are charged to it as well."""
    plan = workload_plan(spec(), V1, "testbed/r/i")
    assert plan.parent[:3] == (
        s.Mkdir("/cg/memory/testbed/r/i"),
        s.Write("/cg/memory/testbed/r/i/memory.limit_in_bytes", (str(64 << 20),)),
        s.Write("/cg/memory/testbed/r/i/tasks", ("0",)),
    )
    assert plan.parent[-1] == s.Affinity()


@pytest.mark.parametrize("shared", [(), CALLERS_NETWORK])
def test_the_other_cgroups_are_limited_and_joined_while_the_hosts_root_is_there(
    shared: tuple[tuple[str, str], ...],
) -> None:
    plan = workload_plan(spec(shared=shared), V1, "testbed/r/i")
    written = {step.path: step.data[0] for step in of_type(plan.parent, s.Write)}
    assert written["/cg/cpu/testbed/r/i/cpu.cfs_quota_us"] == "50000"
    assert written["/cg/pids/testbed/r/i/pids.max"] == "32"
    for controller in ("cpu", "cpuacct", "devices"):
        path = f"/cg/{controller}/testbed/r/i"
        assert plan.parent.index(s.Mkdir(path)) < plan.parent.index(s.Write(f"{path}/tasks", ("0",)))


def test_only_the_child_enters_the_cgroup_that_counts_tasks() -> None:
    """A limit would have to leave room for the launcher too."""
    plan = workload_plan(spec(), V1, "testbed/r/i")
    (opened,) = (step for step in of_type(plan.parent, s.Open) if step.path == "/cg/pids/testbed/r/i/tasks")
    assert plan.parent.index(s.Mkdir("/cg/pids/testbed/r/i")) < plan.parent.index(opened)
    joined = s.WriteDescriptor(opened.fd, b"0")
    assert plan.child.index(joined) < plan.child.index(s.PivotRoot(".", "."))
    assert s.Write(opened.path, ("0",)) not in plan.steps()


def test_nor_where_memory_is_counted_together_with_tasks() -> None:
    together = Hierarchies({**V1.v1, "pids": Path("/cg/memory")}, None, frozenset())
    plan = workload_plan(spec(), together, "testbed/r/i")
    assert s.Write("/cg/memory/testbed/r/i/tasks", ("0",)) not in plan.steps()


@pytest.mark.parametrize("found", [V1, V2])
def test_the_cgroup_namespace_is_made_after_joining(found: Hierarchies) -> None:
    """Its root is the cgroup that the process is in when the namespace is made."""
    plan = workload_plan(spec(), found, "testbed/r/i")
    joins = [plan.child.index(step) for step in of_type(plan.child, s.WriteDescriptor)]
    assert len(joins) == (1 if found.v1 else 0) and not plan.clone_flags & CLONE_NEWCGROUP
    assert max(joins, default=-1) < plan.child.index(s.Unshare(CLONE_NEWCGROUP))


def test_version_two_clones_into_the_cgroup_and_filters_devices() -> None:
    plan = workload_plan(spec(), V2, "testbed/r/i")
    assert plan.into_cgroup == "/cg/testbed/r/i"
    assert {step.path: step.data[0] for step in of_type(plan.parent, s.Write)}[
        "/cg/testbed/r/i/cpu.max"
    ] == "50000 100000"
    (filtering,) = of_type(plan.parent, s.CgroupProgram)
    assert filtering.directory == "/cg/testbed/r/i"


def test_privileges_are_dropped_last_and_in_order() -> None:
    kinds: list[object] = [type(step) for step in workload_plan(spec(), V1, "testbed/r/i").child]
    order = [s.MaskPath, s.PivotRoot, s.BoundingSet, s.SetUser, s.NoNewPrivileges, s.Exec]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    assert kinds[-1] is s.Exec


def test_dev_and_what_hides_directories_share_the_file_system_of_the_writable_layer() -> None:
    """A superblock is dear where there are many containers."""
    plan = workload_plan(spec(masked_paths=("/proc/acpi", "/sys/firmware")), V1, "testbed/r/i")
    assert [step.target for step in of_type(plan.child, s.Mount) if step.fstype == "tmpfs"] == ["/tmp"]
    (held,) = of_type(plan.child, s.OpenTree)
    assert {step.held for step in of_type(plan.child, s.MaskPath)} == {held.fd}


@pytest.mark.parametrize("found", [V1, V2])
def test_without_a_link_there_is_only_loopback(found: Hierarchies) -> None:
    plan = workload_plan(spec(), found, "testbed/r/i")
    assert plan.clone_flags & CLONE_NEWNET
    assert [step.what for step in of_type(tuple(plan.steps()), s.Netlink)] == ["bring lo up"]
    assert of_type(plan.parent, s.Netlink) == []


def test_a_link_is_made_from_the_labs_socket() -> None:
    plan = workload_plan(spec(link=LINK), V1, "testbed/r/i", attachment=Attachment(2, 1))
    first, *_ = of_type(plan.child, s.Netlink)
    assert "veth v1" in first.what
    assert plan.clone_flags & CLONE_NEWNET and first.fd in [step.fd for step in of_type(plan.parent, s.NetlinkSocket)]


@pytest.mark.parametrize("found", [V1, V2])
def test_the_sockets_and_the_namespace_of_a_link_are_opened_where_they_are_used(found: Hierarchies) -> None:
    plan = workload_plan(spec(link=LINK), found, "testbed/r/i", attachment=Attachment(2, 1))
    steps = list(plan.steps())
    veth = next(index for index, step in enumerate(steps) if isinstance(step, s.Netlink) and "veth" in step.what)
    before = [step.fd for step in steps[:veth] if isinstance(step, s.NetlinkSocket | s.Open)]
    assert OWN_NAMESPACE in before
    for index, step in enumerate(steps):
        if isinstance(step, s.Netlink):
            assert step.fd in [each.fd for each in steps[:index] if isinstance(each, s.NetlinkSocket)]


def test_a_link_without_a_bridge_is_refused() -> None:
    with pytest.raises(UsageError, match=r"10\.0\.0\.2/24 needs a bridge"):
        workload_plan(spec(link=LINK), V1, "testbed/r/i")


def test_a_callers_network_is_no_new_namespace() -> None:
    plan = workload_plan(spec(shared=CALLERS_NETWORK), V1, "testbed/r/i")
    assert not plan.clone_flags & CLONE_NEWNET
    assert of_type(tuple(plan.steps()), s.Netlink) == []


def test_a_build_has_the_filter_before_its_privileges_go_and_dies_with_its_parent() -> None:
    """Without no_new_privs only CAP_SYS_ADMIN may load a filter, and a change of user forgets the death signal."""
    process = Process(("make",), user=User(1000, 1000), no_new_privileges=False)
    building = Building(WritableLayer("/u", "/w"), connected=True)
    kinds = [type(step) for step in workload_plan(spec(process=process), V1, "testbed/r/i", building=building).child]
    order: list[type[s.Step]] = [
        s.SessionKeyring, s.PivotRoot, s.SeccompFilter, s.BoundingSet, s.SetUser, s.DeathSignal, s.Sync, s.Exec,
    ]  # fmt: skip
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(UsageError, match="no command"):
        workload_plan(spec(process=Process(args=())), V1, "testbed/r/i")


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(UsageError, match="CAP_FLY"):
        workload_plan(spec(process=Process(args=("a",), capabilities=("CAP_FLY",))), V1, "testbed/r/i")


def test_explain_prints_every_step_with_its_index() -> None:
    plan = workload_plan(spec(link=LINK), V1, "testbed/r/i", attachment=Attachment(2, 1))
    text = explain(plan)
    numbered = [line for line in text.splitlines() if line[:3].strip().isdigit()]
    assert [int(line[:3]) for line in numbered] == list(range(len(list(plan.steps()))))
    assert "clone3 CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWPID" in text
    assert f"{len(list(plan.steps())) - 1:3}  execve server" in text
