"""The root file system as a workload finds it: /proc, /dev, /sys, its name and its neighbours.

Both platforms use these steps, the container after its overlay is mounted and the guest likewise. The file
systems and devices are the runtime-spec's (config-linux.md, "Default Filesystems", "Default Devices" and
"Dev symbolic links") with runc's mount options. /sys/fs/cgroup is not among them and is not mounted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EEXIST
from functools import cache, lru_cache

from runtime.plan.constants import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_STRICTATIME,
)
from runtime.plan.steps import (
    ROOT_FD,
    Bind,
    FsMount,
    MaskPath,
    Mkdir,
    Mknod,
    Mount,
    Open,
    ReadonlyPath,
    SetHostname,
    Step,
    Symlink,
    Write,
)
from runtime.spec import Spec

_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)
# The root's descriptor, from the working directory: what later steps do inside, they do below it.
HOLD_ROOT = Open(".", ROOT_FD, os.O_PATH | os.O_DIRECTORY)
_TIGHT = MS_NOSUID | MS_NODEV | MS_NOEXEC


def _directory(path: str) -> Mkdir:
    return Mkdir(path, tolerate=(EEXIST,), inside=True)


def _mount(fstype: str, target: str, flags: int, data: str = "", source: str = "") -> Mount:
    return Mount(source or fstype, target, fstype, flags, data, inside=True)


@cache
def filesystem_steps(dev: str = "") -> tuple[Step, ...]:
    """Mount /proc and /dev below the root; the working directory is the root then.

    ``dev`` is a directory of a tmpfs of the container's own that becomes /dev; without one /dev is a tmpfs by itself.
    /dev/shm is a directory of /dev's file system, to be bound on itself by ``protection_steps``: for every superblock
    the kernel keeps 16 bytes in each memory cgroup of the host (mm/shrinker.c), so that what one superblock more in
    each of N containers takes grows as N squared.
    """
    own = _mount("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k")
    return (
        _mount("proc", "proc", _TIGHT),
        Bind(dev, "dev", clear=MOUNT_ATTR_NODEV) if dev else own,
        *(Mknod(f"dev/{name}", major, minor, inside=True) for name, major, minor in _DEVICES),
        *(Symlink(target, f"dev/{name}", inside=True) for target, name in _LINKS),
        _mount("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        Mkdir("dev/shm", 0o1777, inside=True),
        _mount("mqueue", "dev/mqueue", _TIGHT),
    )


def sysfs_step() -> Step:
    """Mount /sys, which shows the network namespace that the process is in by then."""
    return _mount("sysfs", "sys", _TIGHT | MS_RDONLY)


def sysfs_tree(fd: int) -> Step:
    """The same, by the launcher in that namespace, attached nowhere yet."""
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY
    return FsMount("sysfs", fd, attributes)


def hosts_file(spec: Spec) -> str:
    """/etc/hosts: the loopback names, then the application's services."""
    lines = ["127.0.0.1\tlocalhost", *(f"{address}\t{name}" for name, address in spec.hosts)]
    return "\n".join(lines) + "\n"


def identity_steps(spec: Spec, *, files: bool = True) -> tuple[Step, ...]:
    """Once inside, and after ``protection_steps``: the host name and, with ``files``, those below /etc that name host
    and neighbours. Whatever the image has in their place is replaced, a link too, and not followed.

    An image build goes without the files: what it writes becomes the image.
    """
    if not files:
        return (SetHostname(spec.hostname),)
    return (
        SetHostname(spec.hostname),
        _directory("etc"),
        Write("etc/hostname", (f"{spec.hostname}\n",), create=True, inside=True),
        Write("etc/hosts", (hosts_file(spec),), create=True, inside=True),
    )


def shared_memory_step() -> Step:
    """Take devices and programs from /dev/shm; the root has been entered."""
    return Bind("/dev/shm", "dev/shm", set=MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)


def hiding_steps(readonly_paths: Sequence[str], masked_paths: Sequence[str], empty: int = 0) -> tuple[Step, ...]:
    """Write-protect and hide what the runtime-spec's readonlyPaths and maskedPaths name; ``empty`` is the descriptor of
    a held empty directory to hide directories behind."""
    return (*(ReadonlyPath(path) for path in readonly_paths), *(MaskPath(path, empty) for path in masked_paths))


@lru_cache(maxsize=64)
def protection_steps(readonly_paths: tuple[str, ...], masked_paths: tuple[str, ...]) -> tuple[Step, ...]:
    """All that keeps a workload from what is the whole kernel's, in a system that is the workload's alone."""
    return (shared_memory_step(), *hiding_steps(readonly_paths, masked_paths))
