"""The guest's plan is pure, and from the root file system on it is the container's."""

from __future__ import annotations

from errno import EPERM
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.types import Mount
from runtime.errors import UsageError
from runtime.plan import steps as s
from runtime.plan.constants import MOUNT_ATTR_RDONLY, MS_MOVE, MS_RDONLY
from runtime.plan.encode import encode
from runtime.plan.explain import explain
from runtime.plan.root import identity_files, written_files
from runtime.plan.workload import workload_plan
from runtime.spec import Link, Process, Resources, Spec, User
from vm_images.plans.guest import (
    DISK,
    EXECUTING,
    FIRST_USERSPACE,
    MEMORY_END,
    POOLED,
    XEN_DISK,
    guest_plan,
    memory_steps,
)

MODULES = ("/modules/virtio.ko", "/modules/virtio_blk.ko")
V1 = Hierarchies(
    {name: Path("/cg") / name for name in ("memory", "cpu", "cpuacct", "pids", "devices")}, None, frozenset()
)
LINK = Link(IPv4Interface("10.0.0.2/24"), "02:00:0a:00:00:02", IPv4Address("10.0.0.1"))
T = TypeVar("T", bound=s.Step)


def spec(*, args: tuple[str, ...] = ("server", "--port", "1"), link: Link | None = LINK, pids: int | None = 32) -> Spec:
    process = Process(args=args, env=("PATH=/bin", "A=1", "HOME=/srv"), cwd="/srv", user=User(1000, 1000, 0o027, (4,)))
    hosts = (("redis", "10.0.0.3"),)
    return Spec(process, ("/store/a", "/store/b"), "web", Resources(64 << 20, 0.5, pids), link, hosts)


def of_type(plan: s.Plan, kind: type[T]) -> list[T]:
    return [step for step in plan.steps() if isinstance(step, kind)]


def named() -> tuple[s.Step, ...]:
    """The steps that say who it is."""
    return (s.SetHostname("web"), *written_files(identity_files("web", spec().hosts)))


def is_of_entering(step: s.Step) -> bool:
    """Whether it is one of a container's own, by which it gets its root, its cgroups, its network and its streams."""
    kinds = (s.PivotRoot, s.Unmount, s.ChownStdio)
    if isinstance(step, s.Write):
        return step.path.endswith("/tasks")
    return isinstance(step, kinds) or step == s.Chdir("/") or (isinstance(step, s.Bind) and bool(step.held))


def protected(plan: s.Plan) -> list[s.Step]:
    """From the first step that protects what is the kernel's, whatever it is that directories are hidden behind. Files
    are written after all that is hidden."""
    steps = list(plan.child[plan.child.index(s.ReadonlyPath("/proc/bus")) :])
    last = max(index for index, step in enumerate(steps) if isinstance(step, s.MaskPath))
    assert set(named()[1:]) <= set(steps[last:])
    ordered = [step for step in steps if step not in (*named(), s.Setsid(tolerate=(EPERM,)))]
    return [replace(step, held=0) if isinstance(step, s.MaskPath) else step for step in ordered]


def test_the_last_steps_are_the_containers_own() -> None:
    whole = workload_plan(spec(link=None), V1, "testbed/r/i")
    container = [step for step in protected(whole) if not is_of_entering(step)]
    guest = protected(guest_plan(spec(), MODULES))
    guests_own = [step for step in guest if step not in container]
    assert any(isinstance(step, s.SeccompFilter) for step in container), "the same filter of system calls"
    assert [step for step in guest if step in container] == container
    assert set(named()) <= set(guest_plan(spec(), MODULES).child) & set(whole.child)
    # A container's standard input is opened by whoever starts it, and its phases are seen without a console.
    assert guests_own == [s.Open("/dev/null", 0), s.LogLine(EXECUTING)]


def test_proc_dev_and_sys_are_mounted_as_in_a_container() -> None:
    def mounted(plan: s.Plan) -> list[s.Mount | s.Bind]:
        """All but what hides, whatever directories they are that become /dev and /dev/shm."""
        steps = [step for step in of_type(plan, s.Mount) if not step.target.startswith(("/", "."))]
        shared = [step for step in of_type(plan, s.Bind) if step.target.startswith("dev")]
        return [*steps, *(replace(step, source=step.source.rpartition("/")[2]) for step in shared)]

    guest = mounted(guest_plan(spec(), MODULES))
    container = workload_plan(spec(link=None), V1, "testbed/r/i")
    assert guest == mounted(container)
    assert {"proc", "dev", "dev/shm", "sys"} <= {step.target for step in guest}


def test_the_host_hears_of_the_first_and_the_last_step() -> None:
    steps = list(guest_plan(spec(), MODULES).steps())
    assert steps[0] == s.LogLine(FIRST_USERSPACE)
    assert steps[-2] == s.LogLine(EXECUTING)
    assert steps[-1] == s.Exec(("server", "--port", "1"), ("PATH=/bin", "A=1", "HOME=/srv"), "/bin")


def test_modules_are_loaded_in_order_before_the_disk_is_waited_for() -> None:
    steps = list(guest_plan(spec(), MODULES).steps())
    places = [steps.index(s.LoadModule(path)) for path in MODULES]
    assert places == sorted(places)
    assert places[-1] < steps.index(s.WaitPath("/dev/vda"))


def test_the_disk_is_read_only_below_a_volatile_overlay() -> None:
    mounts = {step.fstype: step for step in of_type(guest_plan(spec(), MODULES), s.Mount) if step.fstype}
    assert mounts["erofs"].source == "/dev/vda"
    assert mounts["erofs"].flags & MS_RDONLY
    assert mounts["overlay"].data.startswith("lowerdir=lower,upperdir=/volatile/")


def test_a_disk_of_its_own_is_the_root() -> None:
    plan = guest_plan(spec(), MODULES, file_system="ext4", writable_disk=True)
    (root,) = (step for step in of_type(plan, s.Mount) if step.source == "/dev/vda")
    assert (root.fstype, root.flags & MS_RDONLY) == ("ext4", 0)
    assert not any(step.fstype == "overlay" for step in of_type(plan, s.Mount))
    shared = protected(guest_plan(spec(), MODULES))
    assert protected(plan) == shared, "from there on nothing differs"


def test_the_shared_disk_has_the_file_system_that_is_named() -> None:
    mounts = [step for step in of_type(guest_plan(spec(), MODULES, file_system="ext4"), s.Mount)]
    (disk,) = (step for step in mounts if step.source == "/dev/vda")
    assert (disk.fstype, disk.flags & MS_RDONLY) == ("ext4", MS_RDONLY)
    assert any(step.fstype == "overlay" for step in mounts)


def test_the_root_is_moved_and_entered() -> None:
    plan = guest_plan(spec(), MODULES)
    moves = [step for step in of_type(plan, s.Mount) if step.flags == MS_MOVE]
    assert [(step.source, step.target) for step in moves] == [(".", "/")]
    assert of_type(plan, s.Chroot) == [s.Chroot(".")]
    assert of_type(plan, s.PivotRoot) == []


def test_the_network_is_lo_address_up_route() -> None:
    assert [step.what for step in of_type(guest_plan(spec(), MODULES), s.Netlink)] == [
        "bring lo up",
        "eth0 is 10.0.0.2/24",
        "bring eth0 up",
        "default route by 10.0.0.1",
    ]
    assert len(of_type(guest_plan(spec(link=None), MODULES), s.Netlink)) == 1


def test_the_task_limit_is_the_containers() -> None:
    plan = guest_plan(spec(pids=32), MODULES)
    limits = [step for step in of_type(plan, s.Write) if step.path.endswith("pids.max")]
    assert [step.data for step in limits] == [("32",)]
    assert not any(step.fstype == "cgroup2" for step in of_type(guest_plan(spec(pids=None), MODULES), s.Mount))


def test_what_tells_of_the_memory_is_outside_the_workloads_root_and_limit() -> None:
    steps = list(guest_plan(spec(), MODULES).steps())
    answer = steps.index(s.ServeFile("/proc/meminfo", 0, MEMORY_END))
    assert steps[answer - 1] == s.Fork(1)
    assert answer < min(index for index, step in enumerate(steps) if "pids.max" in getattr(step, "path", ""))
    assert answer < steps.index(s.Chroot("."))


def test_it_is_encodable_and_can_be_explained() -> None:
    plan = guest_plan(spec(), MODULES)
    assert encode(plan).startswith(b"TBPLAN")
    assert "erofs" in explain(plan)


def test_a_pooled_guest_waits_when_nothing_but_the_execve_is_left() -> None:
    plan, cold = guest_plan(spec(), MODULES, pooled=True), guest_plan(spec(), MODULES)
    *_, told, waiting, executing, execution = plan.child
    assert (told, waiting, executing) == (s.LogLine(POOLED), s.WaitInput(2), s.LogLine(EXECUTING))
    assert isinstance(execution, s.Exec)
    others = [step for step in plan.child if step not in (told, waiting)]
    assert others == [step for step in cold.child if step not in memory_steps()], "one process reads the console"


def test_a_guest_needs_a_command() -> None:
    with pytest.raises(UsageError, match="no command"):
        guest_plan(spec(args=()), MODULES)


@pytest.mark.parametrize("writable", [False, True])
def test_a_disk_of_another_kind_is_where_the_root_is(writable: bool) -> None:
    plan = guest_plan(spec(), MODULES, disk=XEN_DISK, writable_disk=writable)
    assert [step.path for step in of_type(plan, s.WaitPath)] == [XEN_DISK]
    assert XEN_DISK in [step.source for step in of_type(plan, s.Mount)]
    assert DISK not in explain(plan)


def test_what_is_bound_is_of_the_hosts_directories() -> None:
    mounts = (Mount("/data", "bind", "/shares/0", ("rbind", "rprivate", "ro")), Mount("/memory", "tmpfs", "tmpfs"))
    steps = list(guest_plan(replace(spec(), mounts=mounts), MODULES).steps())
    (shares,) = [step for step in steps if isinstance(step, s.Mount) and step.fstype == "virtiofs"]
    (bound,) = [step for step in steps if isinstance(step, s.Bind) and step.source == "/shares/0"]
    assert (shares.source, shares.target) == ("testbed", "/shares")
    assert (bound.target, bound.set, bound.recursive) == ("data", MOUNT_ATTR_RDONLY, True)
    assert steps.index(shares) < steps.index(bound)
    assert "virtiofs" not in explain(guest_plan(replace(spec(), mounts=mounts[1:]), MODULES))
