"""The root file system as a workload finds it: /proc, /dev, /sys, its name and its neighbours.

Both platforms use these steps, the container after its overlay is mounted and the guest likewise. The file
systems and devices are the runtime-spec's (config-linux.md, "Default Filesystems", "Default Devices" and
"Dev symbolic links") with runc's mount options. /sys/fs/cgroup is not among them and is not mounted.
"""

from __future__ import annotations

from errno import EEXIST
from functools import cache

from runtime.plan.constants import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_STRICTATIME
from runtime.plan.steps import MaskPath, Mkdir, Mknod, Mount, ReadonlyPath, SetHostname, Step, Symlink, Write
from runtime.spec import Spec

_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)
_TIGHT = MS_NOSUID | MS_NODEV | MS_NOEXEC


def _directory(path: str) -> Mkdir:
    return Mkdir(path, tolerate=(EEXIST,))


@cache
def filesystem_steps() -> tuple[Step, ...]:
    """Mount /proc, /dev and /sys below the working directory, which is the new root."""
    return (
        _directory("proc"),
        Mount("proc", "proc", "proc", _TIGHT),
        _directory("dev"),
        Mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"),
        *(Mknod(f"dev/{name}", major, minor) for name, major, minor in _DEVICES),
        *(Symlink(target, f"dev/{name}") for target, name in _LINKS),
        Mkdir("dev/pts"),
        Mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        Mkdir("dev/shm"),
        Mount("shm", "dev/shm", "tmpfs", _TIGHT, "mode=1777,size=65536k"),
        Mkdir("dev/mqueue"),
        Mount("mqueue", "dev/mqueue", "mqueue", _TIGHT),
        _directory("sys"),
        Mount("sysfs", "sys", "sysfs", _TIGHT | MS_RDONLY),
    )


def hosts_file(spec: Spec) -> str:
    """/etc/hosts: the loopback names, then the application's services."""
    lines = ["127.0.0.1\tlocalhost", *(f"{address}\t{name}" for name, address in spec.hosts)]
    return "\n".join(lines) + "\n"


def identity_steps(spec: Spec, *, files: bool = True) -> tuple[Step, ...]:
    """Once inside: the host name and, with ``files``, those below /etc that name host and neighbours.

    An image build goes without the files: what it writes becomes the image.
    """
    if not files:
        return (SetHostname(spec.hostname),)
    return (
        SetHostname(spec.hostname),
        _directory("/etc"),
        Write("/etc/hostname", (f"{spec.hostname}\n",), create=True),
        Write("/etc/hosts", (hosts_file(spec),), create=True),
    )


def protection_steps(spec: Spec) -> tuple[Step, ...]:
    """Hide and write-protect what the runtime-spec's maskedPaths and readonlyPaths name."""
    return (
        *(ReadonlyPath(path) for path in spec.readonly_paths),
        *(MaskPath(path) for path in spec.masked_paths),
    )
