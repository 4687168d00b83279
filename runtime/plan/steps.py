"""The vocabulary of plans: one frozen dataclass for each thing the launcher can do.

A step holds all that its system call needs, already decided. ``tolerate`` lists the errnos after which
the plan goes on. The launcher's ``plan.h`` names the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Step:
    """One operation. ``op`` is its code in the launcher."""

    op: ClassVar[int] = 0
    tolerate: tuple[int, ...] = field(default=(), kw_only=True)

    def numbers(self) -> tuple[int, ...]:
        """At most three unsigned integers, below 2**64."""
        return ()

    def strings(self) -> tuple[bytes, ...]:
        """The step's strings; none may hold a NUL byte unless the operation takes raw bytes."""
        return ()


@dataclass(frozen=True)
class Mkdir(Step):
    op: ClassVar[int] = 1
    path: str
    mode: int = 0o755

    def numbers(self) -> tuple[int, ...]:
        return (self.mode,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Mount(Step):
    """mount(2). ``flags`` are MS_* bits; ``data`` is the file system's own option string."""

    op: ClassVar[int] = 2
    source: str
    target: str
    fstype: str = ""
    flags: int = 0
    data: str = ""

    def numbers(self) -> tuple[int, ...]:
        return (self.flags,)

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
    op: ClassVar[int] = 6
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class Symlink(Step):
    op: ClassVar[int] = 7
    target: str
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.target.encode(), self.path.encode())


@dataclass(frozen=True)
class Mknod(Step):
    """A character device; ``mode`` holds the permission bits only."""

    op: ClassVar[int] = 8
    path: str
    major: int
    minor: int
    mode: int = 0o666

    def numbers(self) -> tuple[int, ...]:
        return (self.mode, self.major, self.minor)

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

    def numbers(self) -> tuple[int, ...]:
        return (int(self.create),)

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
    """setgroups, setresgid and setresuid, in that order."""

    op: ClassVar[int] = 16
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def numbers(self) -> tuple[int, ...]:
        return (self.uid, self.gid)

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

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.flags)

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
    """Hide ``path``: a file behind /dev/null, a directory behind an empty read-only tmpfs; absent is fine."""

    op: ClassVar[int] = 26
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


@dataclass(frozen=True)
class ReadonlyPath(Step):
    """Bind ``path`` on itself and make that mount read-only; absent is fine."""

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
