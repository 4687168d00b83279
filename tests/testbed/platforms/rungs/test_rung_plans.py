"""What a rung makes of a workload, as data: its configuration and its plan, without starting anything."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.cgroups.hierarchy import UNIFIED
from runtime.errors import PrerequisiteError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.explain import explain
from runtime.plan.network import Attachment
from runtime.spec import Link, Process, Resources, Spec
from testbed.platforms.rungs.landlock import landlock_step
from testbed.platforms.rungs.names import RUNGS
from testbed.platforms.rungs.plans import FIRST_ID, HOST, IDS, Made, configure, rung_plan
from testbed.platforms.rungs.tight import tight_profile
from testbed.rungs.read import find_rung
from testbed.rungs.walls import remove_walls

V1 = Hierarchies(
    {name: Path("/sys/fs/cgroup", name) for name in ("memory", "cpu", "cpuacct", "pids", "devices")}, None, frozenset()
)
HYBRID = replace(V1, unified=Path("/sys/fs/cgroup/unified"), wanted=(*V1.wanted, UNIFIED))
V2 = Hierarchies({}, Path("/sys/fs/cgroup"), frozenset({"memory", "cpu", "pids"}))
LINK = Link(IPv4Interface("10.77.1.10/16"), "02:00:0a:4d:01:0a")
SPEC = Spec(Process(("/bin/serve",)), ("/layers/a", "/layers/b"), "web", Resources(64 << 20, 0.5, 24), LINK)


def made(name: str, *without: str) -> Made:
    rung = find_rung(name)
    assert rung.isolation is not None
    return Made(remove_walls(rung, without), rung.isolation, "/run/testbed/r/rung")


def plan(name: str, *without: str, hierarchies: Hierarchies = HYBRID) -> s.Plan:
    return rung_plan(made(name, *without), SPEC, hierarchies, "testbed/r/a0-web", Attachment(2, 1))


def kinds(one: s.Plan) -> set[type]:
    return {type(step) for step in one.steps()}


@pytest.mark.parametrize("hierarchies", [HYBRID, V2], ids=["hybrid", "v2"])
@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_has_its_namespaces_and_none_more(name: str, hierarchies: Hierarchies) -> None:
    isolation = made(name).isolation
    flags = plan(name, hierarchies=hierarchies).clone_flags
    wanted = {
        "pid": k.CLONE_NEWPID, "ipc": k.CLONE_NEWIPC, "uts": k.CLONE_NEWUTS, "network": k.CLONE_NEWNET,
        "user": k.CLONE_NEWUSER,
    }  # fmt: skip
    assert flags & k.CLONE_NEWNS, "the layers are mounted in a namespace of their own"
    for kind, flag in wanted.items():
        assert bool(flags & flag) == (kind in isolation.namespaces), kind
    # Without one of its own it has the host's name, which must not change.
    assert (s.SetHostname in kinds(plan(name))) == ("uts" in isolation.namespaces)


def test_a_chroot_is_only_that() -> None:
    steps = plan("chroot-1982").child
    chroot = steps.index(s.Chroot("."))
    assert steps[chroot + 1] == s.Chdir("/")
    there = kinds(plan("chroot-1982"))
    assert not {s.PivotRoot, s.SeccompFilter, s.NoNewPrivileges, s.MaskPath, s.ReadonlyPath} & there
    assert not [step for step in plan("chroot-1982").parent if isinstance(step, s.Write) and "limit" in step.path]


def test_a_plan_promises_no_more_than_its_walls_keep() -> None:
    chroot, jail = explain(plan("chroot-1982")), explain(plan("jail-2000"))
    assert "no path leads back" in jail and "no path leads back" not in chroot
    assert "sees no other process" in jail and "sees no other process" not in chroot


@pytest.mark.parametrize(("name", "own"), [("chroot-1982", False), ("jail-2000", False), ("docker-2013", True)])
def test_what_has_no_stack_of_its_own_gets_its_address_on_the_labs_bridge(name: str, own: bool) -> None:
    parents = [step.describe() for step in plan(name).parent if isinstance(step, s.Netlink)]
    inner = [step.describe() for step in plan(name).child if isinstance(step, s.Netlink)]
    if own:
        assert not parents and any("create veth v1 on the bridge" in words for words in inner)
    else:
        assert len(parents) == 1 and "10.77.1.10/16" in parents[0] and not inner


def test_the_limits_are_those_that_the_rung_had() -> None:
    def limited(name: str) -> set[str]:
        parts = (step.path.rpartition("/")[2] for step in plan(name).parent if isinstance(step, s.Write))
        return {part.partition(".")[0] for part in parts if "." in part and not part.startswith("cgroup")}

    assert limited("chroot-1982") == set()
    assert limited("zones-2005") == {"cpu", "pids", "devices"}
    assert limited("lmctfy-2013") == {"memory", "cpu"}
    assert limited("openvz-2005") == {"memory", "cpu", "pids", "devices"}


def test_what_is_in_a_user_namespace_finds_layers_whose_ids_are_mapped() -> None:
    one = plan("rootless")
    parent = list(one.parent)
    layers = [step for step in parent if isinstance(step, s.Bind) and step.userns]
    assert [step.source for step in layers] == ["/layers/a", "/layers/b"]
    maps = next(step for step in parent if isinstance(step, s.NewUserNamespace))
    assert maps.uid_map == maps.gid_map == f"0 {FIRST_ID} {IDS}\n"
    overlay = next(step for step in parent if isinstance(step, s.Mount) and step.fstype == "overlay")
    assert overlay.target == "/run/testbed/r/rung/root" and "lowerdir=1:0," in overlay.data
    upper = next(step for step in parent if isinstance(step, s.Mkdir) and step.path.endswith("/upper"))
    assert upper.owner == FIRST_ID
    # Its ids are written, and its end of the network put there, before it does anything.
    assert isinstance(next(step for step in one.child if not isinstance(step, s.WriteDescriptor | s.Unshare)), s.Sync)
    assert not [step for step in one.child if isinstance(step, s.Netlink) and "veth" in step.describe()]


def test_a_sandbox_is_restricted_before_its_filter_and_by_what_the_kernel_has() -> None:
    steps = list(plan("sandboxed").child)
    (restriction,) = (step for step in steps if isinstance(step, s.Landlock))
    (filtered,) = (step for step in steps if isinstance(step, s.SeccompFilter))
    assert steps.index(s.NoNewPrivileges()) < steps.index(restriction) < steps.index(filtered)
    assert landlock_step(1) == replace(restriction, handled=(1 << 13) - 1, scoped=0)
    assert landlock_step(7).handled == (1 << 16) - 1 and landlock_step(7).scoped == 3
    assert s.Landlock not in kinds(plan("sandboxed", "landlock"))
    # Without no_new_privs it takes a capability, which is still there then.
    steps = list(plan("sandboxed", "no_new_privileges").child)
    assert steps.index(restriction) < next(at for at, step in enumerate(steps) if isinstance(step, s.Capabilities))


def test_one_address_is_held_by_programs_of_its_cgroup() -> None:
    held = [step for step in plan("jail-2000", hierarchies=V2).parent if isinstance(step, s.CgroupProgram)]
    assert [step.attach for step in held] == [2, 8, 10]
    assert {step.directory for step in held} == {"/sys/fs/cgroup/testbed/r/a0-web"}
    without = plan("jail-2000", "address", hierarchies=V2)
    assert s.CgroupProgram not in kinds(without)
    with pytest.raises(PrerequisiteError, match="no cgroup v2"):
        plan("jail-2000", hierarchies=V1)


def test_a_host_s_root_is_beside_the_image_s() -> None:
    mounts = {mount.destination: mount for mount in configure(made("lmctfy-2013"), SPEC).mounts}
    assert mounts[HOST].source == "/" and mounts["/dev"].source == "/dev" and "/dev/pts" not in mounts
    assert "ro" not in mounts["/sys"].options
    assert HOST not in {mount.destination for mount in configure(made("chroot-1982"), SPEC).mounts}


def test_one_wall_less_leaves_the_others_as_they_are() -> None:
    whole, open_to = configure(made("rootless"), SPEC), configure(made("rootless", "capabilities"), SPEC)
    assert whole.linux.seccomp == open_to.linux.seccomp is not None
    assert whole.process is not None and open_to.process is not None
    assert whole.process.capabilities is not None and open_to.process.capabilities is not None
    assert len(open_to.process.capabilities.bounding) > len(whole.process.capabilities.bounding)
    assert configure(made("rootless", "seccomp"), SPEC).linux.seccomp is None
    unmasked = configure(made("rootless", "masks"), SPEC).linux
    assert not unmasked.masked_paths and not unmasked.readonly_paths


def test_a_user_namespace_mounts_only_what_shows_its_own() -> None:
    def found(*without: str) -> dict[str, str]:
        return {mount.destination: mount.type for mount in configure(made("rootless", *without), SPEC).mounts}

    assert found()["/proc"] == "proc" and "/dev/mqueue" in found()
    assert found("pid")["/proc"] == "bind"
    assert "/dev/mqueue" not in found("ipc")


def test_the_tight_filter_has_fewer_calls_and_families_of_sockets() -> None:
    profile = tight_profile(())
    names = {name for rule in profile.syscalls for name in rule.names}
    assert not {"ptrace", "io_uring_setup", "chroot", "mount", "bpf", "keyctl", "personality"} & names
    assert {"read", "openat", "execve", "clone", "futex", "epoll_wait", "accept4"} <= names
    families = {rule.args[0].value for rule in profile.syscalls if rule.names == ("socket",)}
    assert families == {1, 2, 10} and profile.default_action == "SCMP_ACT_ERRNO"
