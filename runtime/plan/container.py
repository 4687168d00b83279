"""A container as a plan: namespaces, an overlay root, a network interface, then the workload."""

from __future__ import annotations

import os
from functools import cache, lru_cache

from runtime import network
from runtime.cgroups import Hierarchies, create_steps, join_steps
from runtime.errors import UsageError
from runtime.frozen import dataclass
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
from runtime.plan.process import exec_step, process_steps
from runtime.plan.root import (
    HOLD_ROOT,
    filesystem_steps,
    identity_steps,
    protection_steps,
    sysfs_step,
    sysfs_tree,
)
from runtime.plan.steps import (
    Bind,
    Chdir,
    CloseOnExec,
    HandOver,
    Mkdir,
    Mount,
    Netlink,
    NetlinkSocket,
    Open,
    PivotRoot,
    Plan,
    SeccompFilter,
    Step,
    TakeOver,
    Undumpable,
    Unmount,
    Unshare,
    Write,
)
from runtime.seccomp.default import default_profile
from runtime.seccomp.filter import compile_filter
from runtime.spec import Link, Spec
from runtime.unionfs.overlay import WritableLayer, mount_steps, volatile_steps

# A directory that every host has. The tmpfs lies over it in the container's own mount namespace only.
_VOLATILE = "/tmp"
# The interface's index inside, far above what a new network namespace may hold by itself (tunnels).
_INTERFACE = network.VethEnd("eth0", 100)
# Ports have indexes of their own, above those that the kernel hands out by itself in a lab.
_FIRST_PORT_INDEX = 100_000
# Descriptors that live until exec: sockets in the lab's and in the own namespace, the own namespace, its /sys.
_LAB_SOCKET, _OWN_SOCKET, _OWN_NAMESPACE, _SYSFS = 110, 111, 112, 113


@dataclass(frozen=True)
class Attachment:
    """The lab's end of a container's network: the bridge's index, and a number for the port that no other has."""

    bridge_index: int
    port: int

    def veth(self) -> network.VethEnd:
        """The interface that is the port."""
        return network.VethEnd(f"v{self.port}", _FIRST_PORT_INDEX + self.port)


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
        *loopback,
        Netlink(_OWN_SOCKET, network.add_address(_INTERFACE.index, link.address), f"eth0 is {link.address}"),
        Netlink(_OWN_SOCKET, network.link_up(_INTERFACE.name), "bring eth0 up"),
    ]
    if link.gateway:
        route = network.add_default_route(link.gateway)
        steps.append(Netlink(_OWN_SOCKET, route, f"default route by {link.gateway}"))
    return tuple(steps)


def _root_steps(spec: Spec, writable: WritableLayer | None) -> tuple[Step, ...]:
    """The overlay, mounted and entered. On disk it covers the layers' own directory, else it is in a tmpfs."""
    common = os.path.dirname(spec.layers[0]) if spec.layers else "/"
    private = Mount("", "/", "", MS_REC | MS_PRIVATE)
    if writable is not None:
        return (private, *mount_steps(spec.layers, writable, common), Chdir(common), HOLD_ROOT)
    volatile, layer = volatile_steps(_VOLATILE)
    target = f"{_VOLATILE}/root"
    enter, overlay = mount_steps(spec.layers, layer, target)
    return (private, enter, *volatile, Mkdir(target), overlay, Chdir(target), HOLD_ROOT)


def _resolver_steps(resolver: str) -> tuple[Step, ...]:
    """Bind the host's resolver configuration over the image's without writing to the image."""
    return (
        Write("dev/resolv.conf", (resolver,), create=True, inside=True),
        Bind("/dev/resolv.conf", "etc/resolv.conf"),
    )


@cache
def _seccomp_step(capabilities: tuple[str, ...]) -> Step:
    compiled = compile_filter(default_profile(capabilities))
    return SeccompFilter(compiled.program, compiled.flags, "(the default profile)")


@lru_cache(maxsize=64)
def _processes(
    spec: Spec,
    unified_only: bool,
    attachment: Attachment | None,
    writable: WritableLayer | None,
    resolver: str | None,
) -> tuple[int, tuple[Step, ...], tuple[Step, ...]]:
    """The clone's flags, the launcher's steps beside the child, and the child's: all that the cgroup has no part in."""
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
    if not unified_only:
        flags |= CLONE_NEWCGROUP  # the launcher is in the cgroup by then, and the clone is born there
    networking: tuple[Step, ...] = () if spec.host_network else _network_steps(spec.link, attachment)
    # A network namespace takes as long as all the rest, so the launcher makes it beside, on another processor; on v2
    # the launcher is not in the cgroup that the namespace is to be charged to.
    beside: tuple[Step, ...] = ()
    taken: tuple[Step, ...] = (sysfs_step(),)
    if networking and not unified_only:
        beside = (*networking, sysfs_tree(_SYSFS), HandOver(_OWN_NAMESPACE), HandOver(_SYSFS))
        taken = (TakeOver(_OWN_NAMESPACE, CLONE_NEWNET), TakeOver(_SYSFS), Bind("", "sys", held=_SYSFS))
        networking = ()
    process = spec.process
    child: tuple[Step, ...] = (
        Undumpable(),
        *((Unshare(CLONE_NEWCGROUP),) if unified_only else ()),
        *networking,
        *_root_steps(spec, writable),
        *filesystem_steps(),
        PivotRoot(".", "."),
        Unmount(".", MNT_DETACH),
        Chdir("/"),
        *(_resolver_steps(resolver) if resolver is not None else ()),
        *identity_steps(spec, files=writable is None),
        *taken,
        *protection_steps(spec.readonly_paths, spec.masked_paths),
        CloseOnExec(),
        *process_steps(process),
        *((_seccomp_step(process.capabilities),) if process.no_new_privileges else ()),
        exec_step(process),
    )
    return flags, beside, child


def container_plan(
    spec: Spec,
    found: Hierarchies,
    cgroup: str,
    *,
    attachment: Attachment | None = None,
    writable: WritableLayer | None = None,
    resolver: str | None = None,
) -> Plan:
    """The plan that starts ``spec`` as a container in the cgroup ``cgroup``.

    ``writable`` puts the changes on disk instead of in a tmpfs; ``resolver`` is the text of /etc/resolv.conf for a
    container that shares the host's network. Raises UsageError for a spec with a link and no ``attachment``.
    """
    if spec.link is not None and attachment is None:
        raise UsageError(f"container {cgroup}: {spec.link.address} needs a bridge to be attached to")
    unified_only = not found.v1
    flags, beside, child = _processes(spec, unified_only, attachment, writable, resolver)
    return Plan(
        parent=(
            *create_steps(found, cgroup, spec.resources, confine_devices=True),
            *(() if unified_only else join_steps(found, cgroup)),
        ),
        clone_flags=flags,
        child=child,
        into_cgroup=str(found.unified / cgroup) if unified_only and found.unified else "",
        beside=beside,
    )
