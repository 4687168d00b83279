"""Directories of the host that a guest mounts: lent by a virtiofsd of its own, over a device of its machine.

QEMU runs as an account that owns nothing (``account``), so it could neither keep owners and modes nor should it be able
to: virtio-9p in QEMU is no choice. virtiofsd is root, and what a guest asks of it is hostile. It sees nothing of the
host but what is lent: a tree in a mount namespace of its own, in which it confines itself (namespaces, pivot_root(2),
seccomp, few capabilities), so that no link and no ``..`` leads out. What is read-only is so by its mount there,
whatever the guest does. It makes no device nodes, is in the machine's cgroup, and has as many files open as we may.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from errno import EPERM
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.container import reap
from runtime.errors import PrerequisiteError
from runtime.launcher import Launch
from runtime.output import printable
from runtime.plan import constants as k
from runtime.plan.cgroup import clone_into, join_steps
from runtime.plan.mounts import FIRST_HELD, is_bind
from runtime.plan.root import HOLD_ROOT
from runtime.plan.steps import Bind, Chdir, CloseOnExec, Exec, Mount, MountAttributes, OpenTree, Plan, Setsid, Unshare
from runtime.spec import Spec
from testbed.qemu.variants import Variant
from vm_images.kernel import GuestKernel
from vm_images.plans.guest import SHARES

DRIVER = "virtiofs"
# Where programs that serve devices to QEMU say what they are (QEMU, docs/interop/vhost-user.json, "Discovery").
_DESCRIPTIONS = (Path("/etc/qemu/vhost-user"), Path("/usr/share/qemu/vhost-user"))
_INSTALL = "apt-get install virtiofsd (Debian 12: qemu-system-common)"
# What is lent is mounted here, in the program's own mount namespace; every host has this directory.
_TREE = "/tmp"
_ALL = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
# The descriptor at which it is connected to.
_LISTENING = 3
_MOST_WORDS_BYTES = 4096


class Export(Struct, frozen=True):
    """A directory or file of the host's, by its absolute path, that a guest mounts."""

    source: str
    read_only: bool


def list_exports(specs: Mapping[str, Spec]) -> tuple[Export, ...]:
    """Return what a guest that runs these services mounts of the host, each once."""
    mounts = (mount for spec in specs.values() for mount in spec.mounts if is_bind(mount))
    return tuple(dict.fromkeys(Export(mount.source, "ro" in mount.options) for mount in mounts))


def place_in_guest(spec: Spec, exports: tuple[Export, ...]) -> Spec:
    """Return a service as it runs in the guest, where what is lent lies below SHARES by its number."""
    mounts = tuple(
        replace(one, source=f"{SHARES}/{exports.index(Export(one.source, 'ro' in one.options))}")
        if is_bind(one)
        else one
        for one in spec.mounts
    )
    return replace(spec, mounts=mounts)


def find_virtiofsd() -> Path:
    """Return the program. Raises PrerequisiteError when QEMU is told of none."""
    for path in (path for folder in _DESCRIPTIONS for path in sorted(folder.glob("*.json"))):
        with suppress(OSError, msgspec.MsgspecError):
            told = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
            program = Path(str(told.get("binary", "")))
            if told.get("type") == "fs" and os.access(program, os.X_OK):
                return program
    raise PrerequisiteError("no virtiofsd, which lends directories of the host to virtual machines", _INSTALL)


def read_version(program: Path) -> str:
    """Return the first line of what it says of its version."""
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    return printable((done.stdout or done.stderr).partition("\n")[0].strip())


def find_refusal(variant: Variant, kernel: GuestKernel) -> str:
    """Return why guests of a variant, with this kernel, can mount nothing of the host; empty when they can."""
    if variant.boot == "cloud":
        return "its system boots from a disk of its own, and mounts nothing of ours"
    if variant.start == "restored":
        return "no guest can be saved while virtiofsd serves it"
    if variant.memory.ksm:
        return "KSM merges no memory that QEMU shares with virtiofsd"
    if not kernel.can_share:
        return f"its kernel, {kernel.release}, has no virtiofs that we know of"
    try:
        find_virtiofsd()
    except PrerequisiteError as error:
        return f"{error.message} ({error.hint})"
    return ""


def lending_plan(
    program: Path, exports: tuple[Export, ...], cgroup: Cgroup, *, coherent: bool, most_files: int
) -> Plan:
    """Return the plan by which virtiofsd lends ``exports`` to the one that connects at the descriptor _LISTENING.

    With ``coherent`` the guest keeps nothing that it has read, so what another one writes is seen at once.
    """
    options = (
        *(f"source={_TREE}", f"cache={'none' if coherent else 'auto'}", "sandbox=namespace"),
        *("xattr", "posix_acl", "announce_submounts", "modcaps=-mknod"),
    )
    words = (f"--fd={_LISTENING}", f"--rlimit-nofile={most_files}", "-o", ",".join(options))
    held = [OpenTree(one.source, FIRST_HELD + number, recursive=True) for number, one in enumerate(exports)]
    attached = [
        Bind(one.source, str(number), set_all=_ALL | k.MOUNT_ATTR_RDONLY * one.read_only, held=FIRST_HELD + number)
        for number, one in enumerate(exports)
    ]
    into = clone_into(cgroup.hierarchies, cgroup.name)
    return Plan(
        into_cgroup=into,
        child=(
            *(() if into else join_steps(cgroup.hierarchies, cgroup.name)),
            Setsid(tolerate=(EPERM,)),
            *held,
            Unshare(k.CLONE_NEWNS),
            Mount("", "/", "", k.MS_REC | k.MS_SLAVE),
            Mount("tmpfs", _TREE, "tmpfs", k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC, "mode=0755"),
            Chdir(_TREE),
            HOLD_ROOT,
            *attached,
            MountAttributes(_TREE, k.MOUNT_ATTR_RDONLY),
            CloseOnExec(_LISTENING + 1),
            Exec((str(program), *words)),
        ),
    )


def _find_session(pid: int) -> int:
    """Return the session of a process; 0 when it has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


class Lending:
    """A virtiofsd that runs, and ends with the guest that it serves, or by ``end``."""

    def __init__(self, pid: int, words: int) -> None:
        self._pid, self._words = pid, words
        self._process = os.pidfd_open(pid)

    def choose(self, pids: Iterable[int]) -> frozenset[int]:
        """Return those of some processes that are its own: it has begun a session."""
        return frozenset(pid for pid in pids if _find_session(pid) == self._pid)

    def read_words(self) -> str:
        """Return what it has said that nobody has read yet: why it has ended, perhaps."""
        with suppress(BlockingIOError):
            return printable(os.read(self._words, _MOST_WORDS_BYTES).decode(errors="replace")).strip()
        return ""

    def end(self) -> None:
        """End it, if its cgroup's end has not; harmless when that has been done."""
        if self._process < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        reap(self._pid)
        os.close(self._process)
        os.close(self._words)
        self._process = -1


def start_lending(exports: tuple[Export, ...], path: Path, cgroup: Cgroup, *, coherent: bool) -> Lending:
    """Start a virtiofsd in ``cgroup`` that lends ``exports`` to the one that connects to a socket at ``path``.

    Raises StepError when something cannot be lent. What it says goes into a pipe, and nowhere when that is full: a
    guest could have it say a lot.
    """
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    plan = lending_plan(find_virtiofsd(), exports, cgroup, coherent=coherent, most_files=most_files)
    with ExitStack() as undo, ExitStack() as failed:
        listening = undo.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen(1)
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        undo.callback(os.close, nowhere)
        words, said = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        undo.callback(os.close, said)
        failed.callback(os.close, words)
        with Launch(plan, {0: nowhere, 1: said, 2: said, _LISTENING: listening.fileno()}) as launching:
            launching.next()
        failed.pop_all()
        return Lending(launching.pid, words)
