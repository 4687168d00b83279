"""The vocabulary of plans: one frozen dataclass for each thing the launcher can do.

A step holds all that its system call needs, already decided. ``tolerate`` lists the errnos after which
the plan goes on. The launcher's ``plan.h`` names the same operations in the same order.

Paths of steps with ``inside`` are resolved as if descriptor ROOT_FD were the root directory (openat2,
RESOLVE_IN_ROOT): symbolic links of an image cannot lead out of it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

# Descriptors that outlive steps: the starter's socket, the plan, the container's root, and where start connects.
SYNC_FD, PLAN_FD, ROOT_FD, LISTEN_FD = 100, 101, 102, 103


@dataclass(frozen=True)
class Step:
    """One operation. ``op`` is its code in the launcher."""

    op: ClassVar[int] = 0
    tolerate: tuple[int, ...] = field(default=(), kw_only=True)

    def numbers(self) -> tuple[int, ...]:
        """At most six unsigned integers, below 2**64."""
        return ()

    def strings(self) -> tuple[bytes, ...]:
        """The step's strings; none may hold a NUL byte unless the operation takes raw bytes."""
        return ()


@dataclass(frozen=True)
class Mkdir(Step):
    op: ClassVar[int] = 1
    path: str
    mode: int = 0o755
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.mode, self.inside)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Mount(Step):
    """mount(2). ``flags`` are MS_* bits; ``data`` is the file system's own option string.

    With ``inside`` the target is a directory below the root, made when absent, and the working directory is the
    root afterwards. ``copy_up`` copies into the new mount what it hides.
    """

    op: ClassVar[int] = 2
    source: str
    target: str
    fstype: str = ""
    flags: int = 0
    data: str = ""
    inside: bool = False
    copy_up: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.flags, self.inside, self.copy_up)

    def strings(self) -> tuple[bytes, ...]:
        return tuple(s.encode() for s in (self.source, self.target, self.fstype, self.data))


@dataclass(frozen=True)
class Unmount(Step):
    op: ClassVar[int] = 3
    target: str
    flags: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.flags,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.target.encode(),)


@dataclass(frozen=True)
class PivotRoot(Step):
    op: ClassVar[int] = 4
    new_root: str
    put_old: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.new_root.encode(), self.put_old.encode())


@dataclass(frozen=True)
class Chroot(Step):
    op: ClassVar[int] = 5
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Chdir(Step):
    """chdir(2). With ``confined``, a directory that is not below / (a leaked descriptor's) is refused with EXDEV."""

    op: ClassVar[int] = 6
    path: str
    confined: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (0, self.confined)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Symlink(Step):
    op: ClassVar[int] = 7
    target: str
    path: str
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.inside,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.target.encode(), self.path.encode())


@dataclass(frozen=True)
class Mknod(Step):
    """mknod(2); ``mode`` holds the permission bits and, unless it is a character device, the file type."""

    op: ClassVar[int] = 8
    path: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        mode = self.mode if stat.S_IFMT(self.mode) else stat.S_IFCHR | self.mode
        return (mode, self.major, self.minor, self.uid, self.gid, self.inside)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Write(Step):
    """Open ``path`` and write each of ``data`` in a write(2) of its own, as the kernel's control files need.

    ``create`` makes the file (mode 0644) or truncates it.
    """

    op: ClassVar[int] = 9
    path: str
    data: tuple[str, ...]
    create: bool = False
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.create, self.inside)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(), *(record.encode() for record in self.data))


@dataclass(frozen=True)
class SetHostname(Step):
    op: ClassVar[int] = 10
    hostname: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.hostname.encode(),)


@dataclass(frozen=True)
class SetRlimit(Step):
    op: ClassVar[int] = 11
    resource: int
    soft: int
    hard: int

    def numbers(self) -> tuple[int, ...]:
        return (self.resource, self.soft, self.hard)


@dataclass(frozen=True)
class Unshare(Step):
    op: ClassVar[int] = 12
    flags: int

    def numbers(self) -> tuple[int, ...]:
        return (self.flags,)


@dataclass(frozen=True)
class BoundingSet(Step):
    """Drop every capability outside ``mask`` from the bounding set."""

    op: ClassVar[int] = 13
    mask: int

    def numbers(self) -> tuple[int, ...]:
        return (self.mask,)


@dataclass(frozen=True)
class Capabilities(Step):
    """capset(2) with the three masks."""

    op: ClassVar[int] = 14
    effective: int
    permitted: int
    inheritable: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.effective, self.permitted, self.inheritable)


@dataclass(frozen=True)
class NoNewPrivileges(Step):
    op: ClassVar[int] = 15


@dataclass(frozen=True)
class SetUser(Step):
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


@dataclass(frozen=True)
class Umask(Step):
    op: ClassVar[int] = 17
    mask: int

    def numbers(self) -> tuple[int, ...]:
        return (self.mask,)


@dataclass(frozen=True)
class Setsid(Step):
    op: ClassVar[int] = 18


@dataclass(frozen=True)
class Open(Step):
    """Open ``path`` and put it at descriptor ``fd``, close-on-exec when ``fd`` is above 2."""

    op: ClassVar[int] = 19
    path: str
    fd: int
    flags: int = 0
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.flags, self.inside)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class CloseOnExec(Step):
    """Mark every descriptor from ``first`` up close-on-exec."""

    op: ClassVar[int] = 20
    first: int = 3

    def numbers(self) -> tuple[int, ...]:
        return (self.first,)


@dataclass(frozen=True)
class NetlinkSocket(Step):
    """Open a route netlink socket in the current network namespace, at descriptor ``fd``."""

    op: ClassVar[int] = 21
    fd: int

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)


@dataclass(frozen=True)
class Netlink(Step):
    """Send one rtnetlink request on ``fd`` and take the kernel's answer; ``what`` is for the reader."""

    op: ClassVar[int] = 22
    fd: int
    message: bytes
    what: str = ""

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.message,)


@dataclass(frozen=True)
class LoadModule(Step):
    """finit_module(2); files ending in .ko.xz, .ko.gz or .ko.zst are decompressed by the kernel."""

    op: ClassVar[int] = 23
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class WaitPath(Step):
    """Wait until ``path`` exists, at most ``timeout_ms``, then fail with ETIMEDOUT."""

    op: ClassVar[int] = 24
    path: str
    timeout_ms: int = 10_000

    def numbers(self) -> tuple[int, ...]:
        return (self.timeout_ms,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Message(Step):
    """Write one line to descriptor 2 (in a guest: the console), for whoever times the phases."""

    op: ClassVar[int] = 25
    text: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.text.encode() + b"\n",)


@dataclass(frozen=True)
class MaskPath(Step):
    """Hide ``path``, below the root: a file behind the container's null device, which is checked to be that, a
    directory behind an empty read-only tmpfs; absent is fine."""

    op: ClassVar[int] = 26
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class ReadonlyPath(Step):
    """Bind ``path``, below the root, on itself and make that mount read-only; absent is fine."""

    op: ClassVar[int] = 27
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Exec(Step):
    """execve(2). A name without a slash is looked up in ``search``, a PATH, as execvpe would.

    ``append_arguments`` adds the launcher's own command-line arguments and keeps its environment: the
    launcher then is a wrapper around the program.
    """

    op: ClassVar[int] = 28
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    search: str = ""
    append_arguments: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (int(self.append_arguments), len(self.args), len(self.env))

    def strings(self) -> tuple[bytes, ...]:
        return tuple(s.encode() for s in (self.search, *self.args, *self.env))


@dataclass(frozen=True)
class Bind(Step):
    """Attach a copy of the mount at ``source``, on the host, at ``target`` below the root, made when absent.

    ``set`` and ``clear`` are MOUNT_ATTR_* bits for the topmost mount, ``set_all`` and ``clear_all`` for every mount of
    the tree; ``userns`` is the path of the user namespace whose mapping of ids the mount gets, or empty. ``held`` is
    the descriptor of a copy that HoldTree made, or 0.
    """

    op: ClassVar[int] = 29
    source: str
    target: str
    recursive: bool = False
    set: int = 0
    clear: int = 0
    set_all: int = 0
    clear_all: int = 0
    propagation: int = 0
    propagate_all: bool = False
    userns: str = ""
    map_all: bool = False
    held: int = 0

    def numbers(self) -> tuple[int, ...]:
        propagation = self.propagation | self.propagate_all << 32
        bits = self.recursive | self.map_all << 1 | self.held << 8
        return (bits, self.set, self.clear, self.set_all, self.clear_all, propagation)

    def strings(self) -> tuple[bytes, ...]:
        return (self.source.encode(), self.target.encode(), self.userns.encode())


@dataclass(frozen=True)
class MountAttributes(Step):
    """mount_setattr(2): set and clear MOUNT_ATTR_* bits and set the propagation (MS_SHARED and its kin, or 0)."""

    op: ClassVar[int] = 30
    path: str
    set: int = 0
    clear: int = 0
    propagation: int = 0
    recursive: bool = False
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.inside, self.recursive, self.set, self.clear, self.propagation)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class WriteDescriptor(Step):
    """One write(2) to an open descriptor."""

    op: ClassVar[int] = 31
    fd: int
    data: str

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.data.encode(),)


@dataclass(frozen=True)
class JoinNamespace(Step):
    """setns(2) to the namespace at ``path``, which must be of the type ``flag`` (CLONE_NEW...)."""

    op: ClassVar[int] = 32
    path: str
    flag: int

    def numbers(self) -> tuple[int, ...]:
        return (self.flag,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Ambient(Step):
    """Make the ambient set exactly ``mask``."""

    op: ClassVar[int] = 33
    mask: int

    def numbers(self) -> tuple[int, ...]:
        return (self.mask,)


@dataclass(frozen=True)
class KeepCapabilities(Step):
    """prctl PR_SET_KEEPCAPS: the permitted set outlives the change of user that follows."""

    op: ClassVar[int] = 34
    keep: bool = True

    def numbers(self) -> tuple[int, ...]:
        return (self.keep,)


@dataclass(frozen=True)
class SetScheduler(Step):
    """sched_setattr(2); times in nanoseconds."""

    op: ClassVar[int] = 35
    policy: int
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0

    def numbers(self) -> tuple[int, ...]:
        nice = self.nice & (1 << 64) - 1
        return (self.policy | self.flags << 32, nice, self.priority, self.runtime, self.deadline, self.period)


@dataclass(frozen=True)
class Affinity(Step):
    """sched_setaffinity(2): the processors it may run on."""

    op: ClassVar[int] = 36
    processors: tuple[int, ...]

    def strings(self) -> tuple[bytes, ...]:
        mask = sum(1 << number for number in set(self.processors))
        return (mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little"),)


@dataclass(frozen=True)
class IOPriority(Step):
    """ioprio_set(2): the class in the bits from 13 up, the level below."""

    op: ClassVar[int] = 37
    value: int

    def numbers(self) -> tuple[int, ...]:
        return (self.value,)


@dataclass(frozen=True)
class Personality(Step):
    op: ClassVar[int] = 38
    persona: int

    def numbers(self) -> tuple[int, ...]:
        return (self.persona,)


@dataclass(frozen=True)
class SessionKeyring(Step):
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: a new session keyring, so that the caller's keys stay the caller's."""

    op: ClassVar[int] = 39
    name: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.name.encode(),)


@dataclass(frozen=True)
class SetDomainname(Step):
    op: ClassVar[int] = 40
    domainname: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.domainname.encode(),)


@dataclass(frozen=True)
class SeccompFilter(Step):
    """seccomp(2) SECCOMP_SET_MODE_FILTER with a classic BPF program; ``what`` is for the reader."""

    op: ClassVar[int] = 41
    program: bytes
    flags: int = 0
    what: str = ""

    def numbers(self) -> tuple[int, ...]:
        return (self.flags,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.program,)


@dataclass(frozen=True)
class Terminal(Step):
    """A new terminal of the devpts at dev/pts becomes the standard streams; its master goes to the starter."""

    op: ClassVar[int] = 42
    uid: int
    rows: int = 0
    columns: int = 0
    console: bool = True

    def numbers(self) -> tuple[int, ...]:
        return (self.uid, self.rows, self.columns, self.console)


@dataclass(frozen=True)
class Sync(Step):
    """Tell the starter that point ``number`` is reached and wait for its word to go on."""

    op: ClassVar[int] = 43
    number: int
    what: str = ""

    def numbers(self) -> tuple[int, ...]:
        return (self.number,)


@dataclass(frozen=True)
class AwaitStart(Step):
    """The container is created: wait until somebody connects to LISTEN_FD and gives the word."""

    op: ClassVar[int] = 44


@dataclass(frozen=True)
class LookUp(Step):
    """Fail as Exec would when the program is absent or not executable."""

    op: ClassVar[int] = 45
    program: str
    search: str = ""

    def strings(self) -> tuple[bytes, ...]:
        return (self.search.encode(), self.program.encode())


@dataclass(frozen=True)
class DeviceFilter(Step):
    """bpf(2): load a BPF_PROG_TYPE_CGROUP_DEVICE program and attach it to the cgroup v2 directory."""

    op: ClassVar[int] = 46
    directory: str
    program: bytes
    what: str = ""

    def strings(self) -> tuple[bytes, ...]:
        return (self.directory.encode(), self.program)


@dataclass(frozen=True)
class Undumpable(Step):
    """prctl PR_SET_DUMPABLE 0: until it executes, no process of the container may trace it or look into its /proc."""

    op: ClassVar[int] = 47


@dataclass(frozen=True)
class OwnStreams(Step):
    """fchown(2) pipes among the standard streams to ``uid``, which can then open /dev/stdin and its like."""

    op: ClassVar[int] = 48
    uid: int

    def numbers(self) -> tuple[int, ...]:
        return (self.uid,)


@dataclass(frozen=True)
class HoldTree(Step):
    """Copy the mount at ``source`` to descriptor ``fd``, attached nowhere: while the caller's rights reach it."""

    op: ClassVar[int] = 49
    source: str
    fd: int
    recursive: bool = False
    userns: str = ""
    map_all: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.recursive, self.map_all)

    def strings(self) -> tuple[bytes, ...]:
        return (self.source.encode(), self.userns.encode())


@dataclass(frozen=True)
class Plan:
    """What the launcher does: ``parent`` steps, clone3 with ``clone_flags``, then ``child`` steps.

    ``into_cgroup`` is a cgroup v2 directory the child is cloned into (CLONE_INTO_CGROUP), or empty.
    A launcher that is PID 1, or a wrapper, performs the parent's and the child's steps in place.
    """

    child: tuple[Step, ...]
    parent: tuple[Step, ...] = ()
    clone_flags: int = 0
    into_cgroup: str = ""

    def steps(self) -> Iterator[Step]:
        """All steps in the order of their indexes in error reports: the parent's, then the child's."""
        yield from self.parent
        yield from self.child
