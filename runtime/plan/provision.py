"""Who makes a container's cgroups and network namespace, and when: the launcher or the new process, in turn or at the
same time.

Both take the kernel long. A new process for which nobody waits goes on meanwhile, where that costs nothing: on cgroup
v1 the launcher is in the container's memory cgroup already, to which all of it is charged. On v2 it is not in the one
cgroup that there is, for it would count as one of the container's tasks.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config import mount_options
from runtime.config.resources import Resources
from runtime.config.types import Config, Hooks
from runtime.plan import constants as k
from runtime.plan import network
from runtime.plan import steps as s
from runtime.plan.cgroup import join_in_two, join_steps, limit_steps, make_steps
from runtime.plan.execution import kinds_of
from runtime.plan.mounts import inside

_CGROUPS_MADE = "the other cgroups are made"
# Descriptor of a /sys that shows the network namespace, until it is mounted.
_SYSFS = 108
_OWN_CGROUP = s.Unshare(k.CLONE_NEWCGROUP)  # its root is the cgroup that the process is in by then
# The bits of mount(2) and of fsmount(2) that a sysfs may have for the launcher to make it.
_ATTRIBUTES = {
    k.MS_RDONLY: k.MOUNT_ATTR_RDONLY,
    k.MS_NOSUID: k.MOUNT_ATTR_NOSUID,
    k.MS_NODEV: k.MOUNT_ATTR_NODEV,
    k.MS_NOEXEC: k.MOUNT_ATTR_NOEXEC,
}


class Provision(Struct, frozen=True):
    """Steps of the launcher before the clone (``parent``) and after it (``beside``), and of the new process: ``first``,
    on the host's tree once it is alone (``networking``), last there (``leaving``), and in its root (``inside``).

    ``flags`` are further ones for clone3, ``into_cgroup`` the directory of a cgroup v2 to clone into. With ``sysfs``
    the last mount of the configuration is among the steps.
    """

    parent: tuple[s.Step, ...] = ()
    beside: tuple[s.Step, ...] = ()
    first: tuple[s.Step, ...] = ()
    networking: tuple[s.Step, ...] = ()
    leaving: tuple[s.Step, ...] = ()
    inside: tuple[s.Step, ...] = ()
    flags: int = 0
    into_cgroup: str = ""
    sysfs: bool = False


def provided_in_turn(
    config: Config,
    hierarchies: Hierarchies,
    cgroup: str,
    limits: Resources,
    connection: network.Connection | None,
    *,
    make: bool,
) -> Provision:
    """The launcher makes the cgroup, if it is to, and sets its limits; the new process fills its network namespace."""
    parts = Provision()
    kinds = kinds_of(config)
    if kinds.get("network") == "":
        held = network.hold_steps() if connection else ()
        filled = (*held, *network.namespace_steps(connection))
        parts = Provision(parent=network.outside_steps(connection), networking=filled, flags=k.CLONE_NEWNET)
    if not cgroup:
        own = k.CLONE_NEWCGROUP if kinds.get("cgroup") == "" else 0
        return replace(parts, flags=parts.flags | own)
    made = make_steps(hierarchies, cgroup) if make else ()
    limited = limit_steps(hierarchies, cgroup, limits)
    into = f"{hierarchies.used[0]}/{cgroup}" if make and not hierarchies.v1 else ""
    joining, joined = ((), ()) if into else join_in_two(hierarchies, cgroup)
    return replace(
        parts,
        # The caller may be kept on few processors; what the container may use its cpuset says.
        parent=(*made, *limited, *joining, s.Affinity(), *parts.parent),
        first=(*joined, _OWN_CGROUP) if kinds.get("cgroup") == "" else joined,
        into_cgroup=into,
    )


def may_be_beside(config: Config, hierarchies: Hierarchies) -> bool:
    """Whether cgroups and network may be made at the same time as the rest: on v1, in namespaces that are all new and
    the host's user namespace's, with nothing in between that shows or changes them."""
    kinds, mounts = kinds_of(config), config.mounts
    return (
        "memory" in hierarchies.v1
        and hierarchies.used[0] == hierarchies.v1["memory"]
        and not any(kinds.values())
        and {"user", "time"}.isdisjoint(kinds)
        and {"mount", "cgroup"} <= {*kinds}
        and not config.linux.sysctl
        and config.hooks == Hooks()
        and not any(mount.type in ("cgroup", "cgroup2") for mount in mounts)
        and not any(mount.type == "sysfs" for mount in mounts[:-1])
        and (sysfs_attributes(config) is not None or not mounts or mounts[-1].type != "sysfs")
    )


def sysfs_attributes(config: Config) -> int | None:
    """The attributes of the sysfs that is the configuration's last mount; None for another, and for one with more than
    the launcher can give it."""
    mount = config.mounts[-1] if config.mounts else None
    if mount is None or mount.type != "sysfs":
        return None
    options = mount_options.parse(mount.options)
    plain = options.data == "" and not (options.propagation or options.set_all or options.clear_all or options.copy_up)
    if not plain or options.flags & ~sum(_ATTRIBUTES):
        return None
    return sum(attribute for flag, attribute in _ATTRIBUTES.items() if options.flags & flag)


def provided_beside(
    config: Config, hierarchies: Hierarchies, cgroup: str, limits: Resources, connection: network.Connection | None
) -> Provision:
    """Both enter the memory controller's cgroup before anything is made, so that all of it is charged. The rest the
    launcher makes on another processor; last the share of the processors, for which the kernel looks at every cgroup of
    the host. ``may_be_beside`` holds."""
    first, others = hierarchies.split
    in_turn, late = replace(limits, memory=None, cpu=None), Resources(cpu=limits.cpu)
    networking, inside_steps, sysfs = _network_beside(config, connection)
    early = () if networking else limit_steps(hierarchies, cgroup, late)
    handed = networking[-2 if sysfs else -1 :] if networking else ()
    return Provision(
        parent=(
            *make_steps(first, cgroup),
            *limit_steps(hierarchies, cgroup, Resources(memory=limits.memory)),
            *join_steps(first, cgroup),
            s.Affinity(),
        ),
        beside=(
            *make_steps(others, cgroup),
            *limit_steps(hierarchies, cgroup, in_turn),
            *early,
            s.Signal(_CGROUPS_MADE),
            *networking[: len(networking) - len(handed)],
            *(() if early else limit_steps(hierarchies, cgroup, late)),
            *handed,
        ),
        leaving=(s.WaitSignal(_CGROUPS_MADE), *join_steps(others, cgroup), _OWN_CGROUP),
        inside=inside_steps,
        sysfs=sysfs,
    )


def _network_beside(
    config: Config, connection: network.Connection | None
) -> tuple[tuple[s.Step, ...], tuple[s.Step, ...], bool]:
    """What the launcher does for the network namespace, which it hands over at last, what the new process takes, and
    whether that is a /sys as well."""
    if kinds_of(config).get("network") != "":
        return (), (), False
    attributes = sysfs_attributes(config)
    made: tuple[s.Step, ...] = (
        *network.outside_steps(connection),
        s.Unshare(k.CLONE_NEWNET),
        *network.hold_steps(),
        *network.namespace_steps(connection),
    )
    taken: tuple[s.Step, ...] = (s.ReceiveFd(network.OWN_NAMESPACE, k.CLONE_NEWNET),)
    if attributes is None:
        return (*made, s.SendFd(network.OWN_NAMESPACE)), taken, False
    target = inside(config.mounts[-1].destination)
    return (
        (*made, s.FsMount("sysfs", _SYSFS, attributes), s.SendFd(network.OWN_NAMESPACE), s.SendFd(_SYSFS)),
        (*taken, s.ReceiveFd(_SYSFS), s.Bind("", target, held=_SYSFS)),
        True,
    )
