"""A container as a plan: namespaces, an overlay root, a network interface, then the workload."""

from __future__ import annotations

import os
from errno import ENOSYS
from functools import lru_cache
from signal import SIGKILL

from msgspec import Struct
from msgspec.structs import replace

from runtime import network
from runtime.cgroups import Hierarchies
from runtime.errors import UsageError
from runtime.plan.cgroup import create_steps, join_steps, workload_limit_steps
from runtime.plan.constants import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MNT_DETACH,
    MS_PRIVATE,
    MS_REC,
)
from runtime.plan.filter import confined_steps
from runtime.plan.process import exec_step
from runtime.plan.root import (
    HOLD_ROOT,
    filesystem_steps,
    hiding_steps,
    identity_steps,
    shared_memory_step,
    sysfs_step,
    sysfs_tree,
)
from runtime.plan.steps import (
    Bind,
    Chdir,
    CloseOnExec,
    DeathSignal,
    Mkdir,
    Mount,
    Netlink,
    NetlinkSocket,
    Open,
    OpenTree,
    PivotRoot,
    Plan,
    ReceiveFd,
    SendFd,
    SessionKeyring,
    SetNonDumpable,
    Signal,
    Step,
    Sync,
    Unmount,
    Unshare,
    WaitSignal,
    Write,
)
from runtime.spec import Link, Resources, Spec
from runtime.unionfs.overlay import DEV, WritableLayer, mount_steps, volatile_steps

# A directory that every host has. The tmpfs lies over it in the container's own mount namespace only.
_VOLATILE = "/tmp"
# The interface's index inside, far above what a new network namespace may hold by itself (tunnels).
_INTERFACE = network.VethEnd("eth0", 100)
# Ports have indexes of their own, above those that the kernel hands out by itself in a lab.
_FIRST_PORT_INDEX = 100_000
# Descriptors that live until exec: sockets in the lab's and in the own namespace, the own namespace, its /sys, an empty
# directory.
_LAB_SOCKET, _OWN_SOCKET, _OWN_NAMESPACE, _SYSFS, _EMPTY = 110, 111, 112, 113, 114


_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
_CGROUPS_MADE = "the other cgroups are made"
# The stage at which whoever builds an image connects the container to a network.
CONNECTED = 1


class Attachment(Struct, frozen=True):
    """The lab's end of a container's network: the bridge's index, and a number for the port that no other has."""

    bridge_index: int
    port: int

    def veth(self) -> network.VethEnd:
        """The interface that is the port."""
        return network.VethEnd(f"v{self.port}", _FIRST_PORT_INDEX + self.port)


class Building(Struct, frozen=True):
    """What a container that makes a layer of an image has besides its ``Spec``.

    Its changes go to ``writable``, on disk. ``files`` are names below /etc and the texts that it reads there, which do
    not become the image's. It ends with the thread that started it. With ``connected``, its parent is told when its
    network namespace is there, and the command is executed on the parent's word.
    """

    writable: WritableLayer
    files: tuple[tuple[str, str], ...] = ()
    connected: bool = False


def _network_steps(link: Link | None, attachment: Attachment | None) -> tuple[Step, ...]:
    """A network namespace with its loopback interface up and, for a link, one end of a veth pair."""
    own = (Unshare(CLONE_NEWNET), Open("/proc/thread-self/ns/net", _OWN_NAMESPACE))
    loopback = (NetlinkSocket(_OWN_SOCKET), Netlink(_OWN_SOCKET, network.loopback_up(), "bring lo up"))
    if link is None or attachment is None:
        return (*own, *loopback)
    port = attachment.veth()
    veth = network.create_veth(port, attachment.bridge_index, _INTERFACE, link.mac, _OWN_NAMESPACE)
    steps: list[Step] = [
        NetlinkSocket(_LAB_SOCKET),
        *own,
        Netlink(_LAB_SOCKET, veth, f"create veth {port.name} on the bridge, its peer eth0 here"),
        Netlink(_LAB_SOCKET, network.fix_port(port.index), f"the bridge learns nothing from {port.name}"),
        Netlink(_LAB_SOCKET, network.add_port_address(port.index, link.mac), f"{link.mac} is at {port.name}"),
        *loopback,
        Netlink(_OWN_SOCKET, network.add_address(_INTERFACE.index, link.address), f"eth0 is {link.address}"),
        Netlink(_OWN_SOCKET, network.link_up(_INTERFACE.name), "bring eth0 up"),
    ]
    if link.gateway:
        route = network.add_default_route(link.gateway)
        steps.append(Netlink(_OWN_SOCKET, route, f"default route by {link.gateway}"))
    return tuple(steps)


def _root_steps(spec: Spec, writable: WritableLayer | None) -> tuple[Step, ...]:
    """The overlay, mounted and entered, and /proc and /dev in it.

    On disk it covers the layers' own directory. Else it is in a tmpfs that also has what becomes /dev and an empty
    directory to hide others behind: one superblock for all (``root.filesystem_steps``).
    """
    common = os.path.dirname(spec.layers[0]) if spec.layers else "/"
    private = Mount("", "/", "", MS_REC | MS_PRIVATE)
    if writable is not None:
        mounted = mount_steps(spec.layers, writable, common)
        return (private, *mounted, Chdir(common), HOLD_ROOT, *filesystem_steps())
    volatile, layer = volatile_steps(_VOLATILE)
    target = f"{_VOLATILE}/root"
    *enter, overlay = mount_steps(spec.layers, layer, target)
    empty = f"{_VOLATILE}/empty"
    return (
        private,
        *enter,
        *volatile,
        Mkdir(target),
        Mkdir(empty),
        OpenTree(empty, _EMPTY),
        overlay,
        Chdir(target),
        HOLD_ROOT,
        *filesystem_steps(f"{_VOLATILE}/{DEV}"),
    )


def _is_of_sysfs(path: str) -> bool:
    return path == "/sys" or path.startswith("/sys/")


def _hiding_steps(spec: Spec, writable: WritableLayer | None, *, of_sysfs: bool) -> tuple[Step, ...]:
    """What is hidden or write-protected below /sys, or everywhere else."""
    readonly, masked = (
        tuple(path for path in paths if _is_of_sysfs(path) == of_sysfs)
        for paths in (spec.readonly_paths, spec.masked_paths)
    )
    return hiding_steps(readonly, masked, 0 if writable else _EMPTY)


def _bound_files(building: Building | None) -> tuple[Step, ...]:
    """Bind the files of a build over the image's without writing to the image."""
    return tuple(
        step
        for name, text in (building.files if building else ())
        for step in (
            Write(f"dev/{name.replace('/', '-')}", (text,), create=True, inside=True),
            Bind(f"/dev/{name.replace('/', '-')}", f"etc/{name}"),
        )
    )


def _parent_steps(building: Building | None) -> tuple[Step, ...]:
    """What ties a build's command to its parent: after the change of user, which would forget the signal, and before
    the last word of a parent that may have died unseen."""
    if building is None:
        return ()
    connected = Sync(CONNECTED, "its network namespace is there, to be connected")
    return (DeathSignal(SIGKILL), *((connected,) if building.connected else ()))


@lru_cache(maxsize=64)
def _processes(
    spec: Spec,
    alone: bool,
    attachment: Attachment | None,
    building: Building | None,
) -> tuple[tuple[Step, ...], tuple[Step, ...], tuple[Step, ...]]:
    """All that the cgroup has no part in: what the launcher makes beside the child, and the child's steps while it has
    the host's root and once it has its own; ``alone``, the child does everything."""
    networking: tuple[Step, ...] = () if spec.host_network else _network_steps(spec.link, attachment)
    beside: tuple[Step, ...] = ()
    taken: tuple[Step, ...] = (sysfs_step(),)
    if networking and not alone:
        beside = (*networking, sysfs_tree(_SYSFS))
        taken = (ReceiveFd(_OWN_NAMESPACE, CLONE_NEWNET), ReceiveFd(_SYSFS), Bind("", "sys", held=_SYSFS))
        networking = ()
    process = spec.process
    writable = building.writable if building else None
    keyring = (SessionKeyring("build", tolerate=(ENOSYS,)),) if building else ()
    outside: tuple[Step, ...] = (SetNonDumpable(), *keyring, *networking, *_root_steps(spec, writable))
    inside: tuple[Step, ...] = (
        PivotRoot(".", "."),
        Unmount(".", MNT_DETACH),
        Chdir("/"),
        shared_memory_step(),
        *_hiding_steps(spec, writable, of_sysfs=False),  # before anything is written in a root of the image's
        *_bound_files(building),
        *identity_steps(spec, files=writable is None),
        *taken,  # late: it takes the launcher as long as all the above
        *_hiding_steps(spec, writable, of_sysfs=True),
        CloseOnExec(),
        *confined_steps(spec, *_parent_steps(building)),
        exec_step(process),
    )
    return beside, outside, inside


def container_plan(
    spec: Spec,
    found: Hierarchies,
    cgroup: str,
    *,
    attachment: Attachment | None = None,
    building: Building | None = None,
) -> Plan:
    """The plan that starts ``spec`` as a container in the cgroup ``cgroup``; with ``building``, one that makes a layer.

    Raises UsageError for a spec with a link and no ``attachment``.
    """
    if spec.link is not None and attachment is None:
        raise UsageError(f"container {cgroup}: {spec.link.address} needs a bridge to be attached to")
    beside, outside, inside = _processes(spec, not found.v1, attachment, building)
    own_cgroup = Unshare(CLONE_NEWCGROUP)  # its root is the cgroup that the child is in by then
    if not found.v1:
        return Plan(
            parent=create_steps(found, cgroup, spec.resources, confine_devices=True),
            clone_flags=_NAMESPACES,
            child=(*outside, own_cgroup, *inside),
            into_cgroup=str(found.unified / cgroup) if found.unified else "",
        )
    # Launcher and child enter the memory controller's cgroup before anything is made, so that all of it is charged.
    # The other cgroups and the network namespace, which take as long as all the rest, the launcher makes beside, on
    # another processor; last the share of the processors, for which the kernel looks at every cgroup of the host.
    first, others = found.split
    early, late = spec.resources, Resources()
    if beside:
        early, late = replace(early, cpus=None), Resources(cpus=early.cpus)
        beside = (*beside, *workload_limit_steps(others, cgroup, late), SendFd(_OWN_NAMESPACE), SendFd(_SYSFS))
    made = (*create_steps(others, cgroup, early, confine_devices=True), Signal(_CGROUPS_MADE))
    return Plan(
        parent=(*create_steps(first, cgroup, early, confine_devices=False), *join_steps(first, cgroup)),
        clone_flags=_NAMESPACES,
        beside=(*made, *beside),
        child=(*outside, WaitSignal(_CGROUPS_MADE), *join_steps(others, cgroup), own_cgroup, *inside),
    )
