"""Decide which process makes a container's cgroups and network namespace, and in which order."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.resources import Resources
from runtime.config.types import Config
from runtime.plan import constants as k
from runtime.plan import network
from runtime.plan import steps as s
from runtime.plan.cgroup import clone_into, join_in_two, join_steps, limit_steps, make_steps
from runtime.plan.execution import kinds_of

_OWN_CGROUP = s.Unshare(k.CLONE_NEWCGROUP)  # its root is the cgroup that the process is in when it unshares


class Provision(Struct, frozen=True):
    """Holds the parent's steps and the child's: those that come ``first`` of all, and ``networking``, which fills its
    network namespace.

    ``flags`` are additional flags for clone3; ``into_cgroup`` is the directory of a v2 cgroup to clone into, or empty.
    """

    parent: tuple[s.Step, ...] = ()
    first: tuple[s.Step, ...] = ()
    networking: tuple[s.Step, ...] = ()
    flags: int = 0
    into_cgroup: str = ""


def provide(
    config: Config,
    hierarchies: Hierarchies,
    cgroup: str,
    limits: Resources,
    connection: network.Connection | None,
    *,
    make: bool,
) -> Provision:
    """Return the steps: the parent sets the cgroup's limits and, with ``make``, makes it first; the child fills its
    network namespace."""
    parts = Provision()
    kinds = kinds_of(config)
    if kinds.get("network") == "":
        held = network.hold_steps() if connection else ()
        filled = (*held, *network.namespace_steps(connection))
        parts = Provision(parent=network.outside_steps(connection), networking=filled, flags=k.CLONE_NEWNET)
    if not cgroup:
        own = k.CLONE_NEWCGROUP if kinds.get("cgroup") == "" else 0
        return replace(parts, flags=parts.flags | own)
    into = clone_into(hierarchies, cgroup) if make else ""
    charged: tuple[s.Step, ...] = ()
    if make and _is_charged_first(hierarchies):
        first, hierarchies = hierarchies.split
        memory, limits = Resources(memory=limits.memory), replace(limits, memory=None)
        charged = (*make_steps(first, cgroup), *limit_steps(first, cgroup, memory), *join_steps(first, cgroup))
    made = make_steps(hierarchies, cgroup) if make else ()
    limited = limit_steps(hierarchies, cgroup, limits)
    joining, joined = ((), ()) if into else join_in_two(hierarchies, cgroup)
    return replace(
        parts,
        # The caller may be confined to few processors; the container's cpuset says which ones it may use.
        parent=(*charged, *made, *limited, *joining, s.Affinity(), *parts.parent),
        first=(*joined, _OWN_CGROUP) if kinds.get("cgroup") == "" else joined,
        into_cgroup=into,
    )


def _is_charged_first(hierarchies: Hierarchies) -> bool:
    """Return whether the parent can enter the memory controller's cgroup before it makes the others, so that they are
    charged to it too. It can on v1, unless that hierarchy also counts tasks (pids)."""
    memory = hierarchies.v1.get("memory")
    return memory is not None and hierarchies.used[0] == memory != hierarchies.mount_of("pids")
