"""What all steps have, and the plan that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from msgspec import Struct

# Descriptors that outlive steps: the starter's socket, the plan, the container's root, and where start connects.
SYNC_FD, PLAN_FD, ROOT_FD, LISTEN_FD = 100, 101, 102, 103


class Step(Struct, frozen=True, kw_only=True):
    """One operation. ``op`` is its code in the launcher."""

    op: ClassVar[int] = 0
    tolerate: tuple[int, ...] = ()

    def numbers(self) -> tuple[int, ...]:
        """At most six unsigned integers, below 2**64."""
        return ()

    def strings(self) -> tuple[bytes, ...]:
        """The step's strings; none may hold a NUL byte unless the operation takes raw bytes."""
        return ()


class Plan(Struct, frozen=True):
    """What the launcher does: ``parent`` steps, clone3 with ``clone_flags``, then, at the same time, its own steps
    ``beside`` and the new process's ``child`` steps.

    ``into_cgroup`` is a cgroup v2 directory the child is cloned into (CLONE_INTO_CGROUP), or empty.
    A launcher that is PID 1, or a wrapper, performs all of them in place, one after the other.
    """

    child: tuple[Step, ...]
    parent: tuple[Step, ...] = ()
    clone_flags: int = 0
    into_cgroup: str = ""
    beside: tuple[Step, ...] = ()

    def steps(self) -> Iterator[Step]:
        """All steps in the order of their indexes in error reports: the parent's, those beside, the child's."""
        yield from self.parent
        yield from self.beside
        yield from self.child
