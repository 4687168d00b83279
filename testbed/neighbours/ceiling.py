"""Holds a whole run below a ceiling, so that the host keeps its reserve whatever a neighbour without limits does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.cgroups import Cgroup
from runtime.cgroups.resources import settings
from runtime.config.resources import Memory, Pids, Resources
from runtime.errors import PrerequisiteError
from testbed.neighbours.cases import MIB, Ceiling

# Where the limits of one cgroup do not hold for those below it, which kernels before 5.11 leave to choice on v1.
_HIERARCHY = "memory.use_hierarchy"
# Files with these in their names are not there where the kernel does not account for swap.
_SWAP = ("memsw", "swap")
_UNLIMITED = Resources(memory=Memory(limit=-1, swap=-1), pids=Pids(-1))


def require_headroom(ceiling: Ceiling, available_bytes: int, reserve_bytes: int) -> None:
    """Raise PrerequisiteError when the host would not keep its reserve below the ceiling."""
    if available_bytes < ceiling.memory_bytes + reserve_bytes:
        raise PrerequisiteError(
            f"neighbours: {available_bytes // MIB} MiB of memory are available, and the application with a neighbour"
            f" may take {ceiling.memory_bytes // MIB} MiB and leave {reserve_bytes // MIB} MiB in reserve",
            "end what uses memory on this host, or lower the services' limits of memory",
        )


@contextmanager
def hold_below(cgroup: Cgroup, ceiling: Ceiling) -> Iterator[None]:
    """Within, all that is in the cgroup and in those below it takes at most so much, swap included.

    The kernel kills within it when it is full. Raises PrerequisiteError when the kernel does not take the limits.
    """
    limits = Resources(memory=Memory(limit=ceiling.memory_bytes, swap=ceiling.memory_bytes), pids=Pids(ceiling.tasks))
    _require_inheritance(cgroup)
    writes = settings(cgroup.hierarchies, limits)
    try:
        _write(cgroup, writes)
        yield
    finally:
        _write(cgroup, tuple(reversed(settings(cgroup.hierarchies, _UNLIMITED))))


def _require_inheritance(cgroup: Cgroup) -> None:
    file = cgroup.file("memory", _HIERARCHY, _HIERARCHY)
    if file.exists() and file.read_text().strip() == "0":
        raise PrerequisiteError(
            f"neighbours: the kernel does not hold what is below {file.parent} to its limit of memory",
            "use Linux 5.11 or newer, or cgroup v2",
        )


def _write(cgroup: Cgroup, writes: Sequence[tuple[str, str, str]]) -> None:
    for controller, name, value in writes:
        file = cgroup.file(controller, name, name)
        try:
            file.write_text(value)
        except FileNotFoundError:
            if not any(part in name for part in _SWAP):
                raise
        except OSError as error:
            raise PrerequisiteError(
                f"neighbours: write {value} to {file}: {error.strerror}", "./invoke doctor says what is missing"
            ) from error
