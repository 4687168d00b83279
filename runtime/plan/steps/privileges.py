"""Who the process is and what it may do."""

from __future__ import annotations

from typing import ClassVar

from runtime.plan.steps.base import Step


class SetUser(Step, frozen=True):
    """setgroups (unless ``keep_groups``: a user namespace may forbid it), setresgid and setresuid, in that order."""

    op: ClassVar[int] = 16
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    keep_groups: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.uid, self.gid, self.keep_groups)

    def strings(self) -> tuple[bytes, ...]:
        return (b"".join(group.to_bytes(4, "little") for group in self.groups),)


class BoundingSet(Step, frozen=True):
    """Drop every capability outside ``mask`` from the bounding set."""

    op: ClassVar[int] = 13
    mask: int

    def numbers(self) -> tuple[int, ...]:
        return (self.mask,)


class Capabilities(Step, frozen=True):
    """capset(2) with the three masks."""

    op: ClassVar[int] = 14
    effective: int
    permitted: int
    inheritable: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.effective, self.permitted, self.inheritable)


class Ambient(Step, frozen=True):
    """Make the ambient set exactly ``mask``."""

    op: ClassVar[int] = 33
    mask: int

    def numbers(self) -> tuple[int, ...]:
        return (self.mask,)


class KeepCapabilities(Step, frozen=True):
    """prctl PR_SET_KEEPCAPS: the permitted set outlives the change of user that follows."""

    op: ClassVar[int] = 34
    keep: bool = True

    def numbers(self) -> tuple[int, ...]:
        return (self.keep,)


class NoNewPrivileges(Step, frozen=True):
    op: ClassVar[int] = 15


class Undumpable(Step, frozen=True):
    """prctl PR_SET_DUMPABLE 0: until it executes, no process of the container may trace it or look into its /proc."""

    op: ClassVar[int] = 47


class SeccompFilter(Step, frozen=True):
    """seccomp(2) SECCOMP_SET_MODE_FILTER with a classic BPF program; ``what`` is for the reader."""

    op: ClassVar[int] = 41
    program: bytes
    flags: int = 0
    what: str = ""

    def numbers(self) -> tuple[int, ...]:
        return (self.flags,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.program,)


class DeviceFilter(Step, frozen=True):
    """bpf(2): load a BPF_PROG_TYPE_CGROUP_DEVICE program and attach it to the cgroup v2 directory."""

    op: ClassVar[int] = 46
    directory: str
    program: bytes
    what: str = ""

    def strings(self) -> tuple[bytes, ...]:
        return (self.directory.encode(), self.program)
