"""A pod's plan is pure: the containers' own steps, forked, in a machine that is brought up as any guest."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path
from stat import S_ISFIFO

from runtime.cgroups import Hierarchies
from runtime.plan import steps as s
from runtime.plan.encode import encode
from runtime.plan.workload import workload_plan
from runtime.spec import CALLERS_NETWORK, Link, Process, Resources, Spec
from vm_images.plans.guest import FIRST_USERSPACE, guest_plan
from vm_images.plans.pod import executing, pod_plan

LINK = Link(IPv4Interface("10.0.0.2/24"), "02:00:0a:00:00:02")
MODULES = ("/modules/virtio.ko",)
V2 = Hierarchies({}, Path("/cgroup"), frozenset({"cpu", "memory", "pids"}))


def spec(name: str) -> Spec:
    return Spec(Process((name,)), ("/store/a", "/store/b"), name, Resources(64 << 20, 0.5, 32), LINK)


def plan() -> s.Plan:
    names = ("redis", "web", "log")
    disks = {"redis": "/dev/vda", "web": "/dev/vdb", "log": "/dev/vda"}
    return pod_plan({name: spec(name) for name in names}, disks, LINK, MODULES)


def forks() -> dict[str, list[s.Step]]:
    """The steps of each service's process, by the program that it becomes."""
    steps = plan().child
    children = {}
    for index, step in enumerate(steps):
        if isinstance(step, s.Fork):
            own = list(steps[index + 1 : index + 1 + step.count])
            last = own[-1]
            if isinstance(last, s.ServeFile):  # tells of the memory, and is no service
                continue
            assert isinstance(last, s.Exec)
            children[last.args[0]] = own
    return children


def test_the_machine_is_brought_up_as_any_guest() -> None:
    pod, guest = plan().child, guest_plan(spec("web"), MODULES).child
    same = guest[: next(index for index, step in enumerate(guest) if isinstance(step, s.Netlink)) + 3]
    assert pod[: len(same)] == same
    assert same[0] == s.LogLine(FIRST_USERSPACE)
    assert pod[-1] == s.WaitFirstExit(("", "redis", "web", "log"))


def test_a_service_is_started_by_a_containers_steps_in_its_own_cgroup() -> None:
    for name, own in forks().items():
        hosts = dict.fromkeys(("/lower/vda", "/lower/vdb"))
        alone = [
            workload_plan(Spec(Process((name,)), (lower,), name, shared=CALLERS_NETWORK), V2, name) for lower in hosts
        ]
        wanted = next(list(plan.child) for plan in alone if all(mount in own for mount in mounts(plan.child)))
        added = [s.Write(f"/cgroup/{name}/cgroup.procs", ("0",)), s.LogLine(executing(name))]
        assert [step for step in own if step not in added] == wanted
        assert isinstance(own[-3], s.SeccompFilter)
        assert [own[0], own[-2]] == added
        assert s.Write(f"/cgroup/{name}/memory.max", (str(64 << 20),)) in plan().child


def test_those_that_are_held_wait_for_a_word_each() -> None:
    names = ("redis", "web", "log")
    disks = dict.fromkeys(names, "/dev/vda")
    specs = {name: spec(name) for name in names}
    steps = pod_plan(specs, disks, LINK, MODULES, held=("web", "log"), leaving=("redis", "log")).child
    fifos = [step.path for step in steps if isinstance(step, s.Mknod) and S_ISFIFO(step.mode)]
    first = next(index for index, step in enumerate(steps) if isinstance(step, s.Fork))
    words = [step for fifo in fifos for step in (s.WaitInput(2), s.Write(fifo, ("go",)))]
    assert list(steps[first + 1 : first + 5]) == words
    assert isinstance(steps[first + 5], s.ServeFile), "and then it tells of the memory"
    waiting = [steps[index + 1] for index, step in enumerate(steps) if isinstance(step, s.Fork)]
    assert [step.path for step in waiting if isinstance(step, s.Open)] == fifos
    assert steps[-1] == s.WaitFirstExit(("", *names), leaving=0b1010)
    stays = pod_plan(specs, disks, LINK, MODULES, commands=True, leaving=names, stays=True).child[-1]
    assert stays == s.WaitFirstExit(("", *names, "(commands)"), leaving=0b1110), "the last never leaves"
    assert "but for redis, log, as long as another is there" in steps[-1].describe()
    assert encode(s.Plan(steps))


def mounts(steps: tuple[s.Step, ...]) -> list[s.Step]:
    return [step for step in steps if isinstance(step, s.Mount)]


def test_services_of_one_image_share_its_disk() -> None:
    mounts = [step for step in plan().child if isinstance(step, s.Mount) and step.fstype == "erofs"]
    assert [(mount.source, mount.target) for mount in mounts] == [
        ("/dev/vda", "/pod/lower/vda"),
        ("/dev/vdb", "/pod/lower/vdb"),
    ]
    overlays = {
        name: next(step.data for step in own if isinstance(step, s.Mount) and step.fstype == "overlay")
        for name, own in forks().items()
    }
    assert overlays["redis"].startswith("lowerdir=vda,") and overlays["web"].startswith("lowerdir=vdb,")
    assert overlays["log"] == overlays["redis"]


def test_a_service_has_the_machines_network() -> None:
    for own in forks().values():
        assert not [step for step in own if isinstance(step, s.Netlink | s.NetlinkSocket)]
    assert encode(plan())
