"""Plan what containers share: the namespaces of another one, which are joined by path, and its /dev/shm."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec.structs import replace

from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.execution import NAMESPACE_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec import Spec

# These descriptors of the launcher live until exec: its own mount namespace, and the root in that.
_OWN_MOUNTS, _OWN_ROOT = 108, 111
_ATTRIBUTES = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC


def with_paths(spec: Spec, find: Callable[[str], int]) -> Spec:
    """Return a workload with the paths of the namespaces that others lend it in place of their names; ``find`` returns
    the number of another's first process, and raises what its caller is to get where there is none."""
    if not any(is_name(of) for _, of in spec.shared):
        return spec
    shared = tuple(
        (kind, f"/proc/{find(of)}/ns/{NAMESPACE_FILES[kind]}" if is_name(of) else of) for kind, of in spec.shared
    )
    return replace(spec, shared=shared)


def is_name(of: str) -> bool:
    """Return whether it is another workload whose namespace is shared, by its name."""
    return bool(of) and not of.startswith("/")


def find_lender(spec: Spec) -> str:
    """Return the directory of /proc of the process whose IPC namespace a workload has, and so /dev/shm; "" without."""
    path = dict(spec.shared).get("ipc", "")
    return os.path.dirname(os.path.dirname(path)) if spec.shm else ""


def lend_steps(lender: str, fd: int) -> tuple[s.Step, ...]:
    """Copy the lender's /dev/shm to descriptor ``fd``, before the container's process is cloned.

    The kernel copies mounts of the caller's own mount namespace only (open_tree(2)), so the launcher goes there and
    comes back."""
    return (
        s.Open("/proc/self/ns/mnt", _OWN_MOUNTS, os.O_RDONLY),
        s.Open("/", _OWN_ROOT, os.O_PATH | os.O_DIRECTORY),
        s.JoinNamespace(f"{lender}/ns/mnt", k.CLONE_NEWNS),
        s.OpenTree("/dev/shm", fd, propagation=k.MS_PRIVATE),
        s.JoinProcess(_OWN_MOUNTS, k.CLONE_NEWNS),
        s.Chroot(f"/proc/self/fd/{_OWN_ROOT}"),
        s.Chdir("/"),
    )


def lent_step(fd: int, target: str = "dev/shm") -> s.Step:
    """Attach the lender's /dev/shm, held as descriptor ``fd``, at a path below the root."""
    return s.Bind("/dev/shm", target, set=_ATTRIBUTES, held=fd)
