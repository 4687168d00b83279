"""What stands beside the application in a trial: nobody, or one kind of neighbour with or without limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from runtime.spec import Resources

ALONE = "alone"
LIMITED, UNLIMITED = "limits on", "limits off"
MIB = 1 << 20
# A small tenant, with the limits that its owner would set.
TENANT = Resources(memory_bytes=256 * MIB, cpus=1.0, pids=128)
# A machine has a size in any case; without limits it may be this large, and have all of the host's processors.
LARGE_MACHINE_BYTES = 512 * MIB
# What the application's machine has besides for a neighbour within it: as much memory, and all processors.
MACHINE_ROOM = Resources(memory_bytes=LARGE_MACHINE_BYTES)
# What a neighbour without limits finds to take, besides what the application may have.
ROOM_BYTES = 1024 * MIB
# Room for what QEMU takes besides its guest's RAM: its heap and page tables, and under TCG its translations.
MACHINE_BYTES = 256 * MIB
# All tasks of a run, the application's included: what a fork bomb without limits finds to take.
MOST_TASKS = 1024
# The neighbour's own ceilings, which hold wherever it runs: a fork bomb that nothing else stops goes beyond the run's.
OWN_TASKS = 4 * MOST_TASKS
OWN_DISK_BYTES = 256 * MIB


# What the application and its neighbour share, as trials record it, and in words.
HOST_KERNEL, GUEST_KERNEL, HYPERVISOR = "host kernel", "guest kernel", "hypervisor"
SHARED: Mapping[str, str] = MappingProxyType(
    {
        HOST_KERNEL: "the host's kernel",
        GUEST_KERNEL: "a guest's kernel, as containers in one virtual machine",
        HYPERVISOR: "the hardware and its hypervisor, as a virtual machine each",
    }
)


class Case(Struct, frozen=True):
    """A neighbour of a ``kind`` ("" for nobody), with limits of its own or without."""

    kind: str = ""
    limited: bool = False

    @property
    def name(self) -> str:
        """What trials, run folders and reports call it."""
        return f"{self.kind}, {LIMITED if self.limited else UNLIMITED}" if self.kind else ALONE


class Ceiling(Struct, frozen=True):
    """What a whole run may take, applications and neighbour together, whatever their own limits are."""

    memory_bytes: int
    tasks: int = MOST_TASKS


def list_cases(kinds: Sequence[str]) -> tuple[Case, ...]:
    """Return what a block holds: the application alone, and beside each kind with limits and without."""
    return (Case(), *(Case(kind, limited) for kind in kinds for limited in (True, False)))


def find_case(name: str, kinds: Sequence[str]) -> Case:
    """Return the case of a name. Raises ValueError for what is none of these kinds."""
    for case in list_cases(kinds):
        if case.name == name:
            return case
    raise ValueError(f"{name!r} is no case of {', '.join(kinds)}")


def find_shared(virtual: bool, hosted: bool) -> str:
    """Return what the application and its neighbour share: nothing but the hypervisor as machines of their own, but for
    one that is ``hosted`` in the application's."""
    return GUEST_KERNEL if hosted else HYPERVISOR if virtual else HOST_KERNEL


def choose_resources(case: Case, machine: bool, processors: int) -> Resources:
    """Return the limits of a neighbour on a host with so many processors; for a ``machine`` they are its size."""
    if case.limited:
        return TENANT
    return Resources(memory_bytes=LARGE_MACHINE_BYTES, cpus=float(processors)) if machine else Resources()


def compute_ceiling(application_bytes: int, instances: int, virtual: bool) -> Ceiling:
    """Return the ceiling of a run whose application may take so much memory in so many instances."""
    machines_bytes = (instances + 1) * MACHINE_BYTES if virtual else 0
    return Ceiling(application_bytes + machines_bytes + ROOM_BYTES)


def choose_own_bytes(kind: str, ceiling: Ceiling) -> int:
    """Return the neighbour's own ceiling of memory, and of what it writes: with that of the run it is reached first
    only where nothing else holds it."""
    return OWN_DISK_BYTES if kind == "disk" else ceiling.memory_bytes
