"""Files, directories and mounts."""

from __future__ import annotations

import stat
from typing import ClassVar

from runtime.plan.steps.base import Step


class Mkdir(Step, frozen=True):
    op: ClassVar[int] = 1
    path: str
    mode: int = 0o755
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.mode, self.inside)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class Symlink(Step, frozen=True):
    op: ClassVar[int] = 7
    target: str
    path: str
    inside: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.inside,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.target.encode(), self.path.encode())


class Mknod(Step, frozen=True):
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


class Write(Step, frozen=True):
    """Open ``path`` and write each of ``data`` in a write(2) of its own, as the kernel's control files need.

    ``create`` makes the file (mode 0644) or truncates it. With ``inside`` it is a new file that takes the place of
    whatever lies there, a link or a device of the image's too; a directory stays, and EISDIR says so.
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


class WriteDescriptor(Step, frozen=True):
    """write(2) to an open descriptor."""

    op: ClassVar[int] = 31
    fd: int
    data: bytes

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.data,)


class Open(Step, frozen=True):
    """Open ``path`` and put it at descriptor ``fd``, close-on-exec when ``fd`` is above 2."""

    op: ClassVar[int] = 19
    path: str
    fd: int
    flags: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.flags)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class Mount(Step, frozen=True):
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


class Unmount(Step, frozen=True):
    op: ClassVar[int] = 3
    target: str
    flags: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.flags,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.target.encode(),)


class PivotRoot(Step, frozen=True):
    op: ClassVar[int] = 4
    new_root: str
    put_old: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.new_root.encode(), self.put_old.encode())


class Chroot(Step, frozen=True):
    op: ClassVar[int] = 5
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class Chdir(Step, frozen=True):
    """chdir(2). With ``confined``, a directory that is not below / (a leaked descriptor's) is refused with EXDEV."""

    op: ClassVar[int] = 6
    path: str
    confined: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (0, self.confined)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class Bind(Step, frozen=True):
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


class HoldTree(Step, frozen=True):
    """Copy the mount at ``source`` to descriptor ``fd``, attached nowhere: while the caller's rights reach it.

    The copy belongs to the peer groups of what it is a copy of, and so do the mounts in it, unless ``propagation``
    (MS_PRIVATE or MS_SLAVE) takes them all out.
    """

    op: ClassVar[int] = 49
    source: str
    fd: int
    recursive: bool = False
    userns: str = ""
    map_all: bool = False
    propagation: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.recursive, self.map_all, self.propagation)

    def strings(self) -> tuple[bytes, ...]:
        return (self.source.encode(), self.userns.encode())


class NewTree(Step, frozen=True):
    """A new file system of the caller's namespaces at descriptor ``fd``, attached nowhere: fsopen(2), fsmount(2) with
    MOUNT_ATTR_* ``attributes``."""

    op: ClassVar[int] = 52
    fstype: str
    fd: int
    attributes: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.attributes)

    def strings(self) -> tuple[bytes, ...]:
        return (self.fstype.encode(),)


class MountAttributes(Step, frozen=True):
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


class MaskPath(Step, frozen=True):
    """Hide ``path``, below the root: a file behind the container's null device, which is checked to be that, a
    directory behind an empty read-only one; absent is fine. ``held`` is the descriptor of a tree that HoldTree made of
    an empty directory, or 0: then it is a tmpfs. All directories that a plan hides share one."""

    op: ClassVar[int] = 26
    path: str
    held: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.held,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class ReadonlyPath(Step, frozen=True):
    """Bind ``path``, below the root, on itself and make that mount read-only; absent is fine."""

    op: ClassVar[int] = 27
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class WaitPath(Step, frozen=True):
    """Wait until ``path`` exists, at most ``timeout_ms``, then fail with ETIMEDOUT."""

    op: ClassVar[int] = 24
    path: str
    timeout_ms: int = 10_000

    def numbers(self) -> tuple[int, ...]:
        return (self.timeout_ms,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class LoadModule(Step, frozen=True):
    """finit_module(2); files ending in .ko.xz, .ko.gz or .ko.zst are decompressed by the kernel."""

    op: ClassVar[int] = 23
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)
