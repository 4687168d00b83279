"""Define the steps that set who the process is and what it may do."""

from runtime.plan.constants import BPF_CGROUP_DEVICE, BPF_PROG_TYPE_CGROUP_DEVICE
from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Comment, Id, Long, Word, Words
from runtime.plan.steps.base import Step
from runtime.plan.steps.words import capability_names


class SetUser(Step, frozen=True):
    """Call setgroups (unless ``keep_groups``, as a user namespace may forbid it), setresgid and setresuid, in order."""

    purpose = purposes.USER

    uid: Id
    gid: Id
    groups: Words = ()
    keep_groups: bool = False

    def describe(self) -> str:
        return f"setgroups {list(self.groups)}, setresgid {self.gid}, setresuid {self.uid}"


class BoundingSet(Step, frozen=True):
    """Drop every capability outside ``mask`` from the bounding set."""

    purpose = purposes.PRIVILEGE

    mask: Long

    def describe(self) -> str:
        return f"prctl PR_CAPBSET_DROP all but {capability_names(self.mask)}"


class Capabilities(Step, frozen=True):
    """Call capset(2) with the three masks."""

    purpose = purposes.PRIVILEGE

    effective: Long
    permitted: Long
    inheritable: Long = 0

    def describe(self) -> str:
        return f"capset permitted={capability_names(self.permitted)} effective={capability_names(self.effective)}"


class Ambient(Step, frozen=True):
    """Make the ambient set exactly ``mask``."""

    purpose = purposes.PRIVILEGE

    mask: Long

    def describe(self) -> str:
        return f"prctl PR_CAP_AMBIENT {capability_names(self.mask)}"


class KeepCapabilities(Step, frozen=True):
    """Call prctl PR_SET_KEEPCAPS, so that the permitted set survives the change of user that follows."""

    words = "prctl PR_SET_KEEPCAPS {keep:d}"
    purpose = purposes.PRIVILEGE

    keep: bool = True


class NoNewPrivileges(Step, frozen=True):
    words = "prctl PR_SET_NO_NEW_PRIVS"
    purpose = purposes.PRIVILEGE


class SetNonDumpable(Step, frozen=True):
    """Call prctl PR_SET_DUMPABLE 0: until execve, no process of the container may trace this one or read its /proc."""

    words = "prctl PR_SET_DUMPABLE 0"
    purpose = purposes.HIDDEN


class SeccompFilter(Step, frozen=True):
    """Call seccomp(2) SECCOMP_SET_MODE_FILTER with a classic BPF program; ``what`` is for the reader."""

    words = "seccomp SECCOMP_SET_MODE_FILTER flags={flags:#x} {what}"
    purpose = purposes.SECCOMP

    program: bytes
    flags: Word = 0
    what: Comment = ""


class Landlock(Step, frozen=True):
    """Restrict the process by landlock_restrict_self(2): of the accesses to files that are ``handled`` (masks of
    linux/landlock.h), only those of ``everywhere`` are left, and all of them below the directories ``writable`` that
    are there. ``scoped`` says what reaches only processes that are restricted by the same call."""

    purpose = purposes.LANDLOCK

    handled: Long
    everywhere: Long
    scoped: Long = 0
    writable: tuple[str, ...] = ()

    def describe(self) -> str:
        scoped = ", signals and abstract sockets kept inside" if self.scoped else ""
        return f"landlock_restrict_self: read and execute all, write below {' '.join(self.writable)}{scoped}"


class CgroupProgram(Step, frozen=True):
    """Load a program of the type ``kind`` (BPF_PROG_TYPE_CGROUP_...) and attach it to the cgroup v2 directory at
    ``attach`` (BPF_CGROUP_...) with bpf(2)."""

    purpose = purposes.ACCOUNT

    directory: str
    program: bytes
    kind: Word = BPF_PROG_TYPE_CGROUP_DEVICE
    attach: Word = BPF_CGROUP_DEVICE
    what: Comment = ""

    def describe(self) -> str:
        return f"bpf BPF_PROG_ATTACH {self.what} ({len(self.program) // 8} instructions) to {self.directory}"
