"""Make the mount of a union that is attached nowhere yet, by the kernel's overlay or by a program behind FUSE.

Where the kernel takes layers by descriptor (Linux 6.13), this process makes an overlay itself. All else is made in a
mount namespace of its own, by a child, which hands the mount over by descriptor: nobody sees it half made, and nothing
is left of it when either is killed. A FUSE program sees, of all that is mounted on the host, its branches.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeAlias

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.plan.constants import CLONE_NEWNS, MOUNT_ATTR_RDONLY, MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC
from runtime.unionfs import mount_api
from runtime.unionfs.depth import LAYERS_LIMIT
from runtime.unionfs.mount_api import FileSystem
from runtime.unionfs.overlay import WritableLayer

# The bottom layers beyond the limit are an overlay of their own, which the kernel takes as one layer of another.
NESTED_LIMIT = 2 * LAYERS_LIMIT - 1
# Two overlays may have the same writable layer for a moment, and each layer must be readable by itself.
OPTIONS = (("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off"))
# Of the child's namespace: covered by a tmpfs with the branches, and what it makes.
_HALL, _MADE, _EMPTY = "/tmp", "/tmp/made", "/tmp/empty"
# What is written must be seen by the next union of the same branches, which may be another process.
_WRITTEN_THROUGH = "writeback=0,timeout=1"
# Of a FUSE mount: others than root may look into it, and it holds what a root file system holds.
_SHARED = "allow_other,suid,dev"
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FUSE_TIMEOUT_S = 20.0
_ANSWER_BYTES = 4096

Descriptors: TypeAlias = tuple[int, ...]


class Stack(Struct, frozen=True):
    """What an overlay is made of: ``lower`` directories, the topmost first, a ``writable`` layer above them or none,
    and the ``source`` that mountinfo shows."""

    lower: tuple[str, ...]
    writable: WritableLayer | None
    source: str


def in_user_namespace() -> bool:
    """Return whether this process's user namespace is not the first one, so that trusted attributes are not its."""
    with open("/proc/self/uid_map") as ids:
        return ids.read().split() != ["0", "0", "4294967295"]


def check_depth(stack: Stack) -> None:
    """Raise UsageError for more layers than even two overlays, one in the other, show."""
    if len(stack.lower) > NESTED_LIMIT:
        raise UsageError(
            f"union: {len(stack.lower)} read-only branches, and overlay shows at most {NESTED_LIMIT}",
            "merge some of them, or use another driver",
        )


def overlay_by_descriptors(stack: Stack) -> int:
    """Return the detached mount of an overlay whose layers are given as descriptors: neither the length of their names
    nor a colon in one matters. Raises OSError."""
    check_depth(stack)
    with ExitStack() as undo:
        opened = [undo.enter_context(_opened(path)) for path in stack.lower]
        # The kernel wants two directories at least.
        if len(opened) + (stack.writable is not None) < 2:
            with FileSystem.open("tmpfs") as empty:
                opened.append(empty.mount())
                undo.callback(os.close, opened[-1])
        while len(opened) > LAYERS_LIMIT:
            inner = _overlay(opened[LAYERS_LIMIT - 1 :], None, stack.source)
            undo.callback(os.close, inner)
            opened = [*opened[: LAYERS_LIMIT - 1], inner]
        return _overlay(opened, stack.writable, stack.source)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """Hold a directory open, as a name only."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _overlay(lower: Sequence[int], writable: WritableLayer | None, source: str) -> int:
    with FileSystem.open("overlay") as overlay:
        overlay.set_string("source", source)
        for descriptor in lower:
            overlay.set_descriptor("lowerdir+", descriptor)
        for key, value in OPTIONS:
            overlay.set_string(key, value)
        if in_user_namespace():
            overlay.set_flag("userxattr")
        if writable is None:
            return overlay.mount(MOUNT_ATTR_RDONLY)
        with _opened(writable.upper) as upper, _opened(writable.work) as work:
            overlay.set_descriptor("upperdir", upper)
            overlay.set_descriptor("workdir", work)
            return overlay.mount()


def overlay_options(lower: Sequence[str], writable: Sequence[str], userxattr: bool) -> str:
    """Return the options of an overlay for mount(2). ``lower`` has the topmost first, ``writable`` is empty or has
    upper and work."""
    words = [f"lowerdir={':'.join(lower)}"]
    words += [f"upperdir={writable[0]}", f"workdir={writable[1]}"] if writable else []
    words += [f"{key}={value}" for key, value in OPTIONS]
    return ",".join([*words, *["userxattr"] * userxattr])


def overlay_by_options(stack: Stack) -> int:
    """Return the detached mount of an overlay as kernels before 6.13 make it, from one page of options.

    The layers' names are as short as can be, so the page holds all the 500 that the kernel takes. Raises OSError, and
    UsageError for more.
    """
    if len(stack.lower) > LAYERS_LIMIT:
        raise UsageError(
            f"union: {len(stack.lower)} read-only branches; this kernel's overlay shows {LAYERS_LIMIT}",
            f"merge some of them, or use Linux 6.13, which shows {NESTED_LIMIT}",
        )
    writable = _directories(stack.writable)
    source, split = stack.source, len(stack.lower)

    def make(opened: Descriptors) -> None:
        _mount_overlay(opened[:split], opened[split:], source, _MADE)

    return in_namespace((*stack.lower, *writable), make)


def _directories(writable: WritableLayer | None) -> tuple[str, ...]:
    return (writable.upper, writable.work) if writable else ()


def _mount_overlay(lower: Descriptors, writable: Descriptors, source: str, target: str) -> None:
    """Mount an overlay in the child's namespace."""
    names = [str(descriptor) for descriptor in lower]
    if len(lower) + bool(writable) < 2:
        names.append(str(os.open(_EMPTY, _DIRECTORY)))
    options = overlay_options(names, [str(one) for one in writable], in_user_namespace())
    os.chdir("/proc/self/fd")
    mount_api.mount(source, target, "overlay", 0 if writable else MS_RDONLY, options)
    os.chdir("/")


def fuse_overlay(stack: Stack, program: str) -> int:
    """Return the detached mount that fuse-overlayfs makes of a stack. Raises OSError, and PrerequisiteError with the
    program's words when it fails."""
    beside = tuple(map(os.path.dirname, _directories(stack.writable)[:1]))

    def make(opened: Descriptors) -> None:
        names = show(opened)
        lower = ":".join(names[len(beside) :] or (_EMPTY,))
        words = [f"lowerdir={lower}", f"fsname={stack.source}", _WRITTEN_THROUGH, _SHARED]
        for key, path in zip(("upperdir", "workdir"), _directories(stack.writable), strict=False):
            # Both must be in one mount. The links keep what separates options out of their names.
            os.symlink(f"{names[0]}/{os.path.basename(path)}", f"{_HALL}/{key}")
            words.append(f"{key}={_HALL}/{key}")
        _run_fuse(program, "-o", ",".join([*words, *([] if beside else ["ro"])]), _MADE)

    return in_namespace((*beside, *stack.lower), make)


def mergerfs(branches: Sequence[str], below: Stack | None, source: str, policy: str, program: str) -> int:
    """Return the detached mount that mergerfs makes of several writable branches, the topmost first, by one of its own
    create policies.

    ``below`` comes under them: the last writable branch over the read-only ones, as an overlay, so a write to what only
    those have goes to that branch. Raises OSError, and PrerequisiteError with the program's words when it fails.
    """
    layers = (*below.lower, *_directories(below.writable)) if below else ()

    def make(opened: Descriptors) -> None:
        names = show(opened[: len(branches)])
        if below is not None:
            names = (*names, f"{_HALL}/below")
            os.mkdir(names[-1])
            lower = opened[len(branches) : len(branches) + len(below.lower)]
            _mount_overlay(lower, opened[len(branches) + len(below.lower) :], source, names[-1])
        options = f"use_ino,cache.files=off,category.create={policy},fsname={source},{_SHARED}"
        _run_fuse(program, "-o", options, ":".join(f"{name}=RW" for name in names), _MADE)

    return in_namespace((*branches, *layers), make)


def show(opened: Descriptors) -> tuple[str, ...]:
    """Bind directories to short names in the child's namespace; the names."""
    names = tuple(f"{_HALL}/{number}" for number in range(len(opened)))
    for name, descriptor in zip(names, opened, strict=True):
        os.mkdir(name)
        mount_api.mount(f"/proc/self/fd/{descriptor}", name, "", MS_BIND)
    return names


def _run_fuse(program: str, *arguments: str) -> None:
    """Start a FUSE program, which goes on by itself once it has mounted, and take from its namespace what else is
    mounted there: of what a device holds, it would keep it busy."""
    try:
        done = subprocess.run(
            (program, *arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=_FUSE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteError(f"{program}: it has not mounted within {error.timeout} s") from error
    if done.returncode or not os.path.ismount(arguments[-1]):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:400]
        raise PrerequisiteError(f"{program}: it ended with {done.returncode}: {last}", "is /dev/fuse there?")
    for one in reversed(mount_api.mounts()):
        if not one.target.startswith((_HALL, "/dev", "/proc")) and one.target != "/":
            with suppress(OSError):  # in a user namespace, some are not its own to unmount
                mount_api.unmount(one.target, lazy=True)


def in_namespace(paths: Sequence[str], make: Callable[[Descriptors], None]) -> int:
    """Have ``make`` mount something at _MADE in a mount namespace of its own, where it gets the directories ``paths``
    as descriptors; return the descriptor of that mount, which is then attached nowhere.

    Raises the OSError or UsageError of ``make``, and PrerequisiteError for whatever else happens to the child.
    """
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        pid = os.fork()
        if pid == 0:
            _be_child(paths, make, there)
        there.close()
        try:
            answer, descriptors, _, _ = socket.recv_fds(here, _ANSWER_BYTES, 1)
        finally:
            os.waitpid(pid, 0)
    if descriptors:
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]
    kind, _, words = answer.decode(errors="replace").partition(" ")
    if kind.isdigit():
        raise OSError(int(kind), words)
    raise PrerequisiteError(words or "make a union in a namespace of its own: the process that does it was killed")


def _be_child(paths: Sequence[str], make: Callable[[Descriptors], None], parent: socket.socket) -> None:
    """Do it and end, whatever happens."""
    try:
        os.setsid()  # Ctrl-C is for the parent, with which all that is made here goes
        mount_api.unshare(CLONE_NEWNS)
        mount_api.mount("none", "/", "", MS_REC | MS_PRIVATE)
        opened = tuple(os.open(path, _DIRECTORY) for path in paths)
        mount_api.mount("tmpfs", _HALL, "tmpfs")
        os.mkdir(_MADE)
        os.mkdir(_EMPTY)
        make(opened)
        made = mount_api.clone_tree(_MADE)
        mount_api.unmount(_MADE, lazy=True)
        socket.send_fds(parent, [b"made"], [made])
    except BaseException as error:
        number = (error.errno or 0) if isinstance(error, OSError) else ""
        words = error.message if isinstance(error, TestbedError) else getattr(error, "strerror", "") or repr(error)
        with suppress(OSError):
            parent.send(f"{number or 'failed'} {words}".encode(errors="replace")[:_ANSWER_BYTES])
    finally:
        os._exit(0)
