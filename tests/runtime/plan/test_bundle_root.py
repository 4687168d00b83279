"""What is decided about a container's root: how it is entered, what is mounted in it, where its devices come from."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from runtime.config.types import Device, Linux, Mount, Root
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.root import HOLD_ROOT
from tests.runtime.plan.bundles import (
    BUNDLE,
    MAPPED,
    PROCESS,
    ROOTFS,
    assert_order,
    config,
    made,
    of_type,
    planned,
    positions,
)

DEV = Mount("/dev", "tmpfs", "tmpfs")
BOUND_DEV = Mount("/dev", "bind", "/dev", ("rbind",))
DATA = Mount("/data", "bind", "/srv/data", ("rbind",))
NAMES = ["null", "zero", "full", "random", "urandom", "tty"]


def binds(plan: s.Plan) -> dict[str, s.Bind]:
    return {step.target: step for step in of_type(plan.child, s.Bind)}


def held(plan: s.Plan) -> dict[int, s.OpenTree]:
    return {step.fd: step for step in of_type(plan.parent, s.OpenTree)}


# --- entering the root


def test_without_a_mount_namespace_nothing_is_mounted() -> None:
    """It would be mounted on the host, and stay there."""
    process = replace(PROCESS, cwd="/a/b")
    plan = planned(config("pid", process, mounts=(DEV, DATA)), notify="/n")
    assert not positions(plan.steps(), lambda step: isinstance(step, s.Mount | s.Bind | s.MountAttributes))
    assert not of_type(plan.steps(), s.PivotRoot)
    assert_order(
        plan.child, s.Chdir(ROOTFS), HOLD_ROOT, s.Mknod, s.Chroot("."), s.Chdir("/"), made("a"), made("a/b"), s.Exec
    )


@pytest.mark.parametrize("pivot", [True, False])
def test_the_root_is_pivoted_to_or_moved(pivot: bool) -> None:
    child = planned(config("mount"), pivot=pivot).child
    moved = (s.Mount(".", "/", "", k.MS_MOVE), s.Chroot("."), s.Chdir("/"))
    pivoted = (s.PivotRoot(".", "."), s.Unmount(".", k.MNT_DETACH), s.Chdir("/"))
    assert_order(child, HOLD_ROOT, *(pivoted if pivot else moved), s.Exec)
    assert not [step for step in child if step in (moved if pivot else pivoted) and step != s.Chdir("/")]


@pytest.mark.parametrize("kinds", ["mount", "mount=/ns/mnt"])
def test_a_joined_mount_namespace_is_treated_as_its_own(kinds: str) -> None:
    assert of_type(planned(config(kinds)).child, s.PivotRoot)


@pytest.mark.parametrize("readonly", [True, False])
def test_the_root_is_write_protected_where_asked_for(readonly: bool) -> None:
    plan = planned(replace(config("mount"), root=Root("rootfs", readonly)))
    assert (s.MountAttributes("/", k.MOUNT_ATTR_RDONLY) in plan.child) == readonly


@pytest.mark.parametrize(
    ("mounts", "readonly"),
    [
        ((), False),
        ((DEV,), False),
        ((replace(DEV, options=("ro",)),), True),
        ((replace(DEV, options=("ro", "rw")),), False),
        ((replace(DEV, options=("ro",)), DEV), False),
        ((DEV, replace(DEV, options=("ro",))), True),
        ((DEV, replace(DATA, options=("rbind", "ro"))), False),
        ((replace(BOUND_DEV, options=("rbind", "ro")),), False),
        ((replace(DEV, destination="/dev/", options=("ro",)),), True),
    ],
)
def test_a_write_protected_dev_becomes_so_once_it_is_filled(mounts: tuple[Mount, ...], readonly: bool) -> None:
    """The last of what is mounted there counts; the host's is bound with its attributes at once."""
    child = planned(config("mount", mounts=mounts)).child
    protecting = s.MountAttributes("/dev", k.MOUNT_ATTR_RDONLY)
    assert (protecting in child) == readonly
    if readonly:
        assert not [step for step in of_type(child, s.Mount) if step.target == "dev" and step.flags & k.MS_RDONLY]
        assert_order(child, s.Mknod, s.Symlink, protecting)


@pytest.mark.parametrize(
    ("name", "of_host", "of_root"),
    [
        ("", k.MS_SLAVE, 0),
        ("slave", k.MS_SLAVE, 0),
        ("rprivate", k.MS_PRIVATE, 0),
        ("private", k.MS_SLAVE, k.MS_PRIVATE),
        ("rshared", k.MS_SLAVE, k.MS_SHARED | k.MS_REC),
        ("unbindable", k.MS_SLAVE, k.MS_UNBINDABLE),
    ],
)
def test_the_propagation_of_the_copy_and_of_the_root(name: str, of_host: int, of_root: int) -> None:
    child = planned(config("mount", linux=Linux(rootfs_propagation=name))).child
    flags = [step.flags for step in of_type(child, s.Mount) if step.target == "/"]
    assert flags == [of_host | k.MS_REC, *([of_root] if of_root else [])]


# --- mounts


def test_mounts_are_made_in_the_order_of_the_configuration() -> None:
    """A later one lies on an earlier one, and may hide it."""
    mounts = tuple(Mount(f"/m{n}", "tmpfs", "tmpfs") for n in (3, 1, 2))
    child = planned(config("mount", mounts=(mounts[0], DATA, *mounts[1:]))).child
    targets = [step.target for step in child if isinstance(step, s.Mount | s.Bind) and step.target != "/"]
    assert targets == [ROOTFS, "m3", "data", "m1", "m2"]


@pytest.mark.parametrize("destination", ["/", "//", "/a/.."])
def test_what_is_mounted_on_the_root_is_the_root_from_then_on(destination: str) -> None:
    mounts = (Mount(destination, "tmpfs", "tmpfs"), DATA)
    child = planned(config("mount", mounts=mounts)).child
    held_again = [index for index in positions(child, HOLD_ROOT) if child[index - 1] == s.Chdir(ROOTFS)]
    over, data = positions(child, lambda step: isinstance(step, s.Mount | s.Bind) and step.target in (".", "data"))
    assert len(held_again) == 2 and held_again[0] < over < held_again[1] < data


@pytest.mark.parametrize(
    ("kinds", "bound"),
    [
        ("mount network", False),
        ("mount", False),
        ("mount user network", False),
        ("mount user", True),
        ("mount user network=/ns/net", True),
        ("mount user=/ns/user network=/ns/net", False),
    ],
)
def test_a_new_user_namespace_sees_the_hosts_sys_where_it_has_no_network_of_its_own(kinds: str, bound: bool) -> None:
    """Only the owner of the network namespace may mount a sysfs."""
    mounts = (Mount("/sys", "sysfs", "sysfs", ("nosuid", "ro")), DATA)
    plan = planned(config(kinds, linux=MAPPED, mounts=mounts))
    found = [step for step in plan.child if isinstance(step, s.Mount | s.Bind) and step.target == "sys"]
    assert [type(step) for step in found] == [s.Bind if bound else s.Mount]
    if bound:
        assert binds(plan)["sys"].set_all == k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID
    assert binds(plan)["data"].source == "/srv/data", "and nothing else is"


# --- copies that the launcher takes


@pytest.mark.parametrize(("name", "taken_out"), [("", k.MS_SLAVE), ("rprivate", k.MS_PRIVATE), ("shared", k.MS_SLAVE)])
def test_in_a_user_namespace_all_binds_are_copies_out_of_the_hosts_peer_groups(name: str, taken_out: int) -> None:
    """The sources may lie where its root may not look."""
    shared = Mount("/shared", "bind", "vol", ("bind", "rshared"))
    plan = planned(config("mount user", linux=replace(MAPPED, rootfs_propagation=name), mounts=(DATA, DEV, shared)))
    copies, attached = held(plan), binds(plan)
    data, volume = copies[attached["data"].held], copies[attached["shared"].held]
    assert (data.source, data.recursive, data.propagation) == ("/srv/data", True, taken_out)
    assert (volume.source, volume.recursive, volume.propagation) == (f"{BUNDLE}/vol", False, taken_out)
    assert len(copies) == len(of_type(plan.parent, s.OpenTree)), "each has a descriptor of its own"
    assert sorted(copies) == sorted(bind.held for bind in attached.values())


def test_a_mapping_of_ids_is_the_copys() -> None:
    mapped = replace(DATA, options=("rbind", "ridmap"))
    plan = planned(config("mount user", linux=MAPPED, mounts=(mapped,)))
    bind = binds(plan)["data"]
    assert bind.userns == "" and held(plan)[bind.held].map_all
    assert held(plan)[bind.held].userns == f"/proc/self/fd/{of_type(plan.parent, s.NewUserNamespace)[0].fd}"


def test_an_unprivileged_user_can_copy_no_mount_out_here() -> None:
    mounts = (DATA, Mount("/shared", "bind", "/vol", ("bind", "rshared")))
    linux = replace(MAPPED, rootfs_propagation="rshared")
    plan = planned(config("mount user", linux=linux, mounts=mounts), rootless=True, host_nodes=True)
    assert not held(plan) and not any(bind.held for bind in binds(plan).values())


@pytest.mark.parametrize("name", ["", "slave", "private", "shared", "rshared"])
def test_peers_of_the_hosts_mounts_are_copies_where_the_root_is_shared(name: str) -> None:
    """The copy of the host's tree that the container gets has left their groups."""
    mounts = (DATA, Mount("/peer", "bind", "/vol", ("bind", "shared")), Mount("/slave", "bind", "/vol", ("rslave",)))
    plan = planned(config("mount", linux=Linux(rootfs_propagation=name), mounts=mounts))
    copies = held(plan)
    assert [copy.source for copy in copies.values()] == (["/vol"] if "shared" in name else [])
    assert all(copy.propagation == 0 for copy in copies.values()), "it stays a peer"
    assert [bind.target for bind in binds(plan).values() if bind.held] == (["peer"] if copies else [])


# --- devices


OWN = Device("/dev/own", "c", 10, 229, uid=3, gid=4)


@pytest.mark.parametrize(
    ("kinds", "choices", "way"),
    [
        ("mount", {}, "nodes"),
        ("mount", {"host_nodes": True}, "nodes"),  # the user namespace is what stands in the way
        ("mount", {"mapped": True}, "host"),
        ("mount user", {}, "outside"),
        ("mount user=/ns/user", {}, "outside"),
        ("mount user", {"host_nodes": True}, "host"),
        ("mount user", {"mapped": True}, "host"),
        ("mount user", {"rootless": True, "host_nodes": True}, "host"),
    ],
)
def test_where_devices_come_from(kinds: str, choices: dict[str, Any], way: str) -> None:
    plan = planned(config(kinds, linux=replace(MAPPED, devices=(OWN,)), mounts=(DEV,)), **choices)
    inside, outside = of_type(plan.child, s.Mknod), of_type(plan.parent, s.Mknod)
    paths = [f"dev/{name}" for name in (*NAMES, "own")]
    assert [node.path for node in inside] == (paths if way == "nodes" else [])
    assert len(outside) == (len(paths) if way == "outside" else 0)
    bound = binds(plan)
    assert list(bound) == ([] if way == "nodes" else paths)
    if way == "host":
        assert [bind.source for bind in bound.values()] == [f"/{path}" for path in paths]
    if way == "outside":
        sources = [held(plan)[bind.held].source for bind in bound.values()]
        assert sources == [node.path for node in outside]
        assert (outside[-1].uid, outside[-1].gid) == (100_003, 100_004)


def test_copies_of_mounts_and_of_devices_have_descriptors_beside_each_other() -> None:
    plan = planned(config("mount user", linux=MAPPED, mounts=(DATA,)))
    numbers = [step.fd for step in of_type(plan.parent, s.OpenTree)]
    assert len(numbers) == len(NAMES) + 1 == len(set(numbers))
    assert binds(plan)["data"].held == max(numbers)
    assert held(plan)[binds(plan)["data"].held].source == "/srv/data"


@pytest.mark.parametrize("choices", [{}, {"mapped": True}])
@pytest.mark.parametrize("kinds", ["mount", "mount user"])
def test_a_dev_that_is_the_hosts_stays_as_it_is(kinds: str, choices: dict[str, Any]) -> None:
    plan = planned(config(kinds, linux=replace(MAPPED, devices=(OWN,)), mounts=(BOUND_DEV,)), **choices)
    assert not of_type(plan.steps(), s.Mknod) and not of_type(plan.steps(), s.Symlink)
    assert list(binds(plan)) == ["dev"]
    assert s.Unshare(k.CLONE_NEWNS) not in plan.parent, "there is nothing to make outside"


def test_what_is_bound_elsewhere_leaves_dev_the_containers() -> None:
    plan = planned(config("mount", mounts=(Mount("/dev/shm", "bind", "/shm", ("bind",)),)))
    assert len(of_type(plan.child, s.Mknod)) == len(NAMES)
