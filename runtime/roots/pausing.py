"""Let a root's container stand still while its changes are copied.

The container of a root has a lease of the root's own name, so there is at most one, and whoever holds the store's lock
knows which cgroup it is in. It is frozen only under that lock: the next who takes it thaws what a killed one left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from msgspec.structs import replace

from runtime.cgroups import Cgroup, hierarchies
from runtime.lease import CGROUP_ROOT, cgroup_name, is_held, leases
from runtime.roots.model import Root


def lease_of(root: Root) -> str:
    """Return the name of the lease that the container on a root has."""
    return f"root-{root.upper}"


def cgroup_of(root: Root) -> str:
    """Return the name of the cgroup of the container on a root."""
    return cgroup_name(lease_of(root), "run")


def is_running(root: Root) -> bool:
    """Return whether a container of ours runs on a root."""
    return is_held(lease_of(root)) and Cgroup(cgroup_of(root)).exists()


@contextmanager
def made_freezable(root: Root) -> Iterator[None]:
    """Have a cgroup in cgroup v1's freezer meanwhile, above that of the container on a root; v2 needs none."""
    on_host = hierarchies()
    if "freezer" not in on_host.v1:
        yield
        return
    above = Cgroup(f"{CGROUP_ROOT}/{lease_of(root)}", replace(on_host, wanted=("freezer",)))
    above.make()
    try:
        yield
    finally:
        above.remove()
        with suppress(OSError):  # another's is in it
            (on_host.v1["freezer"] / CGROUP_ROOT).rmdir()


@contextmanager
def paused(root: Root) -> Iterator[None]:
    """Freeze the container on a root meanwhile. Raises TestbedError where that cannot be done."""
    cgroup = Cgroup(cgroup_of(root))
    cgroup.freeze()
    try:
        yield
    finally:
        cgroup.freeze(False)


def thaw_all(roots: Iterable[Root]) -> None:
    """Thaw the containers that a killed process has left frozen."""
    living = set(leases())
    for root in roots:
        if lease_of(root) in living and is_running(root) and (cgroup := Cgroup(cgroup_of(root))).frozen():
            cgroup.freeze(False)
