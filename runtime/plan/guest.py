"""A guest as a plan: what PID 1 of a virtual machine does between the kernel and the workload.

From the root's file systems on, the steps are the container's own (``root``, ``process``). What differs is how
the layers get there (a disk with all of them merged, instead of their directories) and that the namespaces
are missing: the guest's kernel has nothing else to keep the workload from. There is no pivot_root, which
the kernel refuses for the initial RAM file system; moving the mount over it and chroot take its place
(Documentation/filesystems/ramfs-rootfs-initramfs.rst).

Memory is limited by the guest's RAM, processors by their number and by the quota of QEMU's own cgroup.
Only the number of tasks has no limit from outside, so a cgroup v2 in the guest sets it, made by the same
steps as on a v2 host. It is mounted outside the workload's root; a container's root holds no cgroup file
system either.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runtime import network
from runtime.cgroups import Hierarchies, create_steps, join_steps
from runtime.plan.constants import CLONE_NEWCGROUP, MS_MOVE, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from runtime.plan.process import exec_step, process_steps
from runtime.plan.root import HOLD_ROOT, filesystem_steps, identity_steps, protection_steps, sysfs_step
from runtime.plan.steps import (
    Chdir,
    Chroot,
    CloseOnExec,
    LoadModule,
    Message,
    Mkdir,
    Mount,
    Netlink,
    NetlinkSocket,
    Open,
    Plan,
    Step,
    Unshare,
    WaitPath,
    Write,
)
from runtime.spec import Link, Resources, Spec
from runtime.unionfs.overlay import mount_steps, volatile_steps

# Lines on the console that the host times. The first is written before anything is done, the second right
# before the workload's execve.
FIRST_USERSPACE = "testbed: first userspace"
EXECUTING = "testbed: exec"

DISK = "/dev/vda"
_LOWER, _VOLATILE, _ROOT, _CGROUP = "/lower", "/volatile", "/merged", "/cgroup"
_SOCKET = 110
# The guest's only network card; index 1 is the loopback interface.
_INTERFACE_INDEX = 2


def _device_steps(modules: Sequence[str]) -> tuple[Step, ...]:
    return (
        Mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC),
        *(LoadModule(path) for path in modules),
    )


def _network_steps(link: Link | None) -> tuple[Step, ...]:
    steps: list[Step] = [NetlinkSocket(_SOCKET), Netlink(_SOCKET, network.loopback_up(), "bring lo up")]
    if link is not None:
        address = network.add_address(_INTERFACE_INDEX, link.address)
        steps += [
            Netlink(_SOCKET, address, f"eth0 is {link.address}"),
            Netlink(_SOCKET, network.link_up("eth0"), "bring eth0 up"),
        ]
        if link.gateway:
            route = network.add_default_route(link.gateway)
            steps.append(Netlink(_SOCKET, route, f"default route by {link.gateway}"))
    return tuple(steps)


def _task_limit_steps(pids: int | None) -> tuple[Step, ...]:
    if pids is None:
        return ()
    found = Hierarchies({}, Path(_CGROUP), frozenset({"pids"}))
    return (
        Mkdir(_CGROUP),
        Mount("cgroup2", _CGROUP, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        Write(f"{_CGROUP}/cgroup.subtree_control", ("+pids",)),
        *create_steps(found, "workload", Resources(pids=pids), confine_devices=False),
        *join_steps(found, "workload"),
        Unshare(CLONE_NEWCGROUP),
    )


def _root_steps() -> tuple[Step, ...]:
    volatile, writable = volatile_steps(_VOLATILE)
    return (
        WaitPath(DISK),
        Mkdir(_LOWER),
        Mount(DISK, _LOWER, "erofs", MS_RDONLY),
        Mkdir(_VOLATILE),
        *volatile,
        Mkdir(_ROOT),
        *mount_steps((_LOWER,), writable, _ROOT),
        Chdir(_ROOT),
        HOLD_ROOT,
    )


def guest_plan(spec: Spec, modules: Sequence[str]) -> Plan:
    """The plan of the guest that runs ``spec`` from a disk with the spec's layers.

    ``modules`` are the files to load, in order, by their paths in the initial RAM disk. Raises UsageError for
    an empty command or an unknown capability or limit.
    """
    return Plan(
        child=(
            Message(FIRST_USERSPACE),
            *_device_steps(modules),
            *_network_steps(spec.link),
            *_task_limit_steps(spec.resources.pids),
            *_root_steps(),
            *filesystem_steps(),
            sysfs_step(),
            Mount(".", "/", "", MS_MOVE),
            Chroot("."),
            Chdir("/"),
            *identity_steps(spec),
            *protection_steps(spec.readonly_paths, spec.masked_paths),
            Open("/dev/null", 0, os.O_RDONLY),
            CloseOnExec(),
            *process_steps(spec.process),
            Message(EXECUTING),
            exec_step(spec.process),
        )
    )
