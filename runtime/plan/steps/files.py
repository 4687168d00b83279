"""Define the steps that deal with files, directories and the working directory."""

import os
import stat
from posixpath import basename
from typing import Annotated

from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Id, Mode, Number, Positive, Word
from runtime.plan.steps.base import Step
from runtime.plan.steps.words import quoted


class Mkdir(Step, frozen=True):
    """Call mkdir(2), and with an ``owner`` other than root lchown(2), who is that user and the group of that number."""

    path: str
    mode: Mode = 0o755
    inside: bool = False
    owner: Id = 0

    def describe(self) -> str:
        return f"mkdir {self.path} {self.mode:04o}{f', chown {self.owner}' if self.owner else ''}"

    def reason(self) -> str:
        return purposes.of_path(self.path)


class Symlink(Step, frozen=True):
    words = "symlink {path} -> {target}"
    purpose = purposes.DEV
    subject = "path"

    target: str
    path: str
    inside: bool = False


def _device_mode(mode: int) -> int:
    return mode if stat.S_IFMT(mode) else stat.S_IFCHR | mode


class Mknod(Step, frozen=True):
    """Call mknod(2); ``mode`` holds the permission bits and the file type, which defaults to a character device."""

    purpose = purposes.DEV

    path: str
    major: Annotated[int, Number((1 << 12) - 1)]
    minor: Annotated[int, Number((1 << 20) - 1)]
    mode: Annotated[int, Number(0o177777, _device_mode)] = 0o666
    uid: Id = 0
    gid: Id = 0
    inside: bool = False

    def describe(self) -> str:
        kind = {stat.S_IFBLK: "b", stat.S_IFIFO: "p"}.get(stat.S_IFMT(self.mode), "c")
        return f"mknod {self.path} {kind} {self.major}:{self.minor} {stat.S_IMODE(self.mode):04o}"


class Write(Step, frozen=True):
    """Open ``path`` and write each item of ``data`` in a write(2) of its own, as the kernel's control files need.

    ``create`` makes the file (mode 0644) or truncates it. With ``inside`` a new file replaces whatever the image has
    there, even a link or a device; a directory stays, and the step fails with EISDIR.
    """

    path: str
    data: tuple[str, ...]
    create: bool = False
    inside: bool = False

    def describe(self) -> str:
        return f"write {', '.join(map(quoted, self.data))} to {self.path}"

    def reason(self) -> str:
        return purposes.of_path(self.path)


class WriteDescriptor(Step, frozen=True):
    """Write all of ``data`` to an open descriptor."""

    purpose = purposes.JOIN

    fd: Positive
    data: bytes

    def describe(self) -> str:
        return f"write {quoted(self.data.decode(errors='replace'))} to descriptor {self.fd}"


class Open(Step, frozen=True):
    """Open ``path`` as descriptor ``fd``, which is close-on-exec when above 2."""

    words = "open {path} as descriptor {fd}"

    path: str
    fd: Positive
    flags: Positive = 0

    def reason(self) -> str:
        if basename(self.path) in ("tasks", "cgroup.procs"):
            return purposes.JOIN
        if "/ns/" in self.path:
            return purposes.NETWORK if self.path.endswith("ns/net") else purposes.NAMESPACE
        return purposes.ROOT if self.flags & os.O_PATH else purposes.SESSION


class Chdir(Step, frozen=True):
    """Call chdir(2). With ``confined``, a directory not below / (from a leaked descriptor) is refused with EXDEV."""

    words = "chdir {path}"

    path: str
    confined: bool = False

    def reason(self) -> str:
        return purposes.SESSION if self.path == "/" else purposes.ROOT


class WaitPath(Step, frozen=True):
    """Wait until ``path`` exists; fail with ETIMEDOUT after ``timeout_ms``."""

    words = "wait for {path}, at most {timeout_ms} ms"
    purpose = purposes.GUEST

    path: str
    timeout_ms: Word = 10_000


class LoadModule(Step, frozen=True):
    """Call finit_module(2); the kernel decompresses files ending in .ko.xz, .ko.gz or .ko.zst."""

    words = "finit_module {path}"
    purpose = purposes.GUEST

    path: str
