"""A guest as a plan: what PID 1 of a virtual machine does between the kernel and the workload.

From the root's file systems on, the steps are the container's own, of the same OCI
configuration (``runtime.plan.devices``, ``root`` and ``execution``). What differs is how
the layers get there (a disk with all of them merged, instead of their directories) and that the namespaces
are missing: the guest's kernel has nothing else to keep the workload from. There is no pivot_root, which
the kernel refuses for the initial RAM file system; moving the mount over it and chroot take its place
(Documentation/filesystems/ramfs-rootfs-initramfs.rst).

Memory is limited by the guest's RAM, processors by their number and by the quota of QEMU's own cgroup.
Only the number of tasks has no limit from outside, so a cgroup v2 in the guest sets it, made by the same
steps as on a v2 host. It is mounted outside the workload's root; a container's root holds no cgroup file
system either.

The other plans in a virtual machine take what they share with this one from here: how a machine comes up, a root on a
disk of layers, how it is entered, and how a workload begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from errno import EPERM
from pathlib import Path
from stat import S_IFIFO

from runtime.cgroups import Hierarchies
from runtime.config.resources import Pids, Resources
from runtime.config.types import Mount as OciMount
from runtime.plan.cgroup import join_steps, limit_steps, make_steps
from runtime.plan.constants import (
    CLONE_NEWCGROUP,
    MOUNT_ATTR_RDONLY,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
)
from runtime.plan.devices import own_mounts
from runtime.plan.execution import directory_steps, process_end, seccomp_step
from runtime.plan.mounts import is_bind
from runtime.plan.network import OWN_SOCKET, link_steps, loopback_steps
from runtime.plan.root import HOLD_ROOT, hiding_steps, identity_files, written_files
from runtime.plan.steps import (
    Chdir,
    Chroot,
    LoadModule,
    LogLine,
    Mkdir,
    Mknod,
    Mount,
    MountAttributes,
    Open,
    OpenProcess,
    Plan,
    ServeCommands,
    ServeFile,
    ServePlans,
    SetHostname,
    Setsid,
    Step,
    Unshare,
    WaitInput,
    WaitPath,
    Write,
    forked,
)
from runtime.spec import WORKLOAD_MOUNTS, Link, Spec, configuration
from runtime.unionfs.overlay import mount_steps, volatile_steps

# Lines on the console that the host times. The first is written before anything is done, the second right
# before the workload's execve.
FIRST_USERSPACE = "testbed: first userspace"
EXECUTING = "testbed: exec"
# And one in between, of a guest that waits in a pool.
POOLED = "testbed: waiting in the pool"
# Where the guest keeps account of its memory, and the line that ends its report of it.
MEMORY = "/proc/meminfo"
MEMORY_END = "testbed: end of memory"

DISK, XEN_DISK, SCSI_DISK = "/dev/vda", "/dev/xvda", "/dev/sda"
# Where a root on a disk of layers is made: the disk, what is written, and both together.
LOWER, VOLATILE, ROOT = "/lower", "/volatile", "/merged"
# Where a guest has the directories of the host that its services mount, each by a number, and by which tag its device
# is known.
SHARES, SHARE_TAG = "/shares", "testbed"
# Into the new root without pivot_root.
MOVE_IN: tuple[Step, ...] = (Mount(".", "/", "", MS_MOVE), Chroot("."), Chdir("/"))
NO_INPUT = Open("/dev/null", 0, os.O_RDONLY)
_CGROUP = "/cgroup"
_MOST_DEVICES = 64
# The cgroup of a workload whose tasks have a limit, and the hierarchy that it is in.
WORKLOAD, TASKS = "workload", Hierarchies({}, Path(_CGROUP), frozenset({"pids"}))
# The kernel opens it for PID 1; the second one stays when the workload has its input.
_CONSOLE, CONSOLE_TOO = 0, 2
# Where the server of commands has the workload's first process or, of several services, that of the first; the others'
# follow.
FIRST_PROCESS = 200
# The guest's only network card; index 1 is the loopback interface.
INTERFACE_INDEX = 2


def network_steps(link: Link | None) -> tuple[Step, ...]:
    """Return steps for the loopback interface and, with a link, the network card with its address."""
    return (*loopback_steps(), *(link_steps(OWN_SOCKET, INTERFACE_INDEX, link) if link else ()))


def memory_steps() -> tuple[Step, ...]:
    """Return a process next to the workload, outside its root and its task limit, which reports what the memory
    holds."""
    return (
        Mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        *forked(ServeFile(MEMORY, _CONSOLE, MEMORY_END)),
    )


def console_steps(held: Sequence[str], directory: str) -> tuple[Step, ...]:
    """Return a process that lets services begin, one for each word that comes through the console, in the order of
    ``held``, by their FIFOs in the ``directory``, and then reports the memory. It has /proc, and descriptor 2 is the
    console."""
    fifos = [f"{directory}/{name}" for name in held]
    words = (step for path in fifos for step in (WaitInput(CONSOLE_TOO), Write(path, ("go",))))
    return (
        *((Mkdir(directory), *(Mknod(path, 0, 0, S_IFIFO | 0o600) for path in fifos)) if fifos else ()),
        *forked(*words, ServeFile(MEMORY, CONSOLE_TOO, MEMORY_END)),
    )


def boot_steps(modules: Sequence[str], network: Sequence[Step], *, reports_memory: bool = True) -> tuple[Step, ...]:
    """Return the steps from the kernel to a machine with devices, a network and, with ``reports_memory``, a process
    that reports its memory."""
    return (
        LogLine(FIRST_USERSPACE),
        Mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC),
        *(LoadModule(path) for path in modules),
        *network,
        *(memory_steps() if reports_memory else ()),
    )


def overlay_steps(
    disk: str, file_system: str = "erofs", *, prefix: str = "", layers: Sequence[str] = ()
) -> tuple[Step, ...]:
    """Return a root at ROOT below ``prefix``: the disk, read-only, and above it what is written, in memory.

    ``layers`` are directories of the disk, bottom first; without any the disk is the one layer.
    """
    lower, above, root = f"{prefix}{LOWER}", f"{prefix}{VOLATILE}", f"{prefix}{ROOT}"
    volatile, writable = volatile_steps(above)
    return (
        WaitPath(disk),
        Mkdir(lower),
        Mount(disk, lower, file_system, MS_RDONLY),
        Mkdir(above),
        *volatile,
        Mkdir(root),
        *mount_steps(tuple(f"{lower}/{layer}" for layer in layers) or (lower,), writable, root),
    )


def share_steps(mounts: Iterable[OciMount], prefix: str = "") -> tuple[Step, ...]:
    """Return steps that mount the host's directories at SHARES below ``prefix``, where one of ``mounts`` is of them;
    the devices in them are none of the guest's."""
    if not any(is_bind(mount) for mount in mounts):
        return ()
    where = f"{prefix}{SHARES}"
    return (Mkdir(where), Mount(SHARE_TAG, where, "virtiofs", MS_NODEV))


def root_steps(
    prefix: str = "", *, volatile: bool = True, mounts: tuple[OciMount, ...] = WORKLOAD_MOUNTS
) -> tuple[Step, ...]:
    """Go to the new root, hold it, and make the ``mounts`` in it: the kernel's own file systems, as every container has
    them, each tmpfs, and what is bound of SHARES; /dev and each tmpfs are in the ``volatile`` one of ``overlay_steps``,
    if there is that."""
    memory = f"{prefix}{VOLATILE}" if volatile else ""
    return (Chdir(f"{prefix}{ROOT}"), HOLD_ROOT, *own_mounts(mounts, memory))


def workload_steps(spec: Spec, *streams: Step, hold: tuple[Step, ...] = ()) -> tuple[Step, ...]:
    """Return the steps from inside the root to the workload's execve; ``streams`` open those that it does not have
    already, ``hold`` are done when nothing but the execve is left."""
    return (
        *hiding_steps(spec.readonly_paths, spec.masked_paths),
        *naming_steps(spec),
        *closing_steps(spec),
        *streams,
        *executing_steps(spec, EXECUTING, hold),
    )


def closing_steps(spec: Spec) -> tuple[Step, ...]:
    """Make the working directory, if it is missing, and then write-protect a root that is to be so."""
    process = configuration(spec).process
    assert process is not None
    protecting = (MountAttributes("/", MOUNT_ATTR_RDONLY),) if spec.read_only else ()
    return (*directory_steps(process), *protecting)


def naming_steps(spec: Spec) -> tuple[Step, ...]:
    """The host name, and the files below /etc that name host and neighbours; the root has been entered."""
    return (SetHostname(spec.hostname), *written_files(identity_files(spec.hostname, spec.hosts, spec.resolver)))


def executing_steps(spec: Spec, line: str, hold: tuple[Step, ...] = ()) -> tuple[Step, ...]:
    """A container's own last steps, with ``line`` on the console right before the execve, and ``hold`` before that."""
    config = configuration(spec)
    assert config.process is not None
    *before, execution = process_end(config.process, seccomp=seccomp_step(config), check=False)
    return (Setsid(tolerate=(EPERM,)), *before, *hold, LogLine(line), execution)


def _task_limit_steps(pids: int | None) -> tuple[Step, ...]:
    if pids is None:
        return ()
    return (
        Mkdir(_CGROUP),
        Mount("cgroup2", _CGROUP, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        Write(f"{_CGROUP}/cgroup.subtree_control", ("+pids",)),
        *make_steps(TASKS, WORKLOAD),
        *limit_steps(TASKS, WORKLOAD, Resources(pids=Pids(pids))),
        *join_steps(TASKS, WORKLOAD),
        Unshare(CLONE_NEWCGROUP),
    )


def serve_commands(devices: str = "/dev") -> ServeCommands:
    """Return what the process does that executes what comes through the machine's port; ``devices`` is a devtmpfs.

    The port is the first of its device, whose number says which of the machine's virtio devices it is
    (drivers/char/virtio_console.c; port 0 is a console's).
    """
    return ServeCommands(tuple(f"{devices}/vport{number}p1" for number in range(_MOST_DEVICES)))


def _server(pids: int | None, *serving: Step) -> tuple[Step, ...]:
    """Return a process next to the workload, outside its task limit and its root."""
    leave = () if pids is None else (Write(f"{_CGROUP}/cgroup.procs", ("0",)),)
    return forked(*leave, *serving)


def guest_plan(
    spec: Spec,
    modules: Sequence[str],
    *,
    disk: str = DISK,
    file_system: str = "erofs",
    writable_disk: bool = False,
    served: bool = False,
    pooled: bool = False,
    commands: bool = False,
) -> Plan:
    """Return the plan of the guest that runs ``spec`` from ``disk``, its device with the spec's layers.

    ``modules`` are the files to load, in order, by their paths in the initial RAM disk. What the workload writes
    goes to memory, above the disk with its ``file_system``, or onto the disk when it is the guest's own,
    ``writable_disk``. A ``served`` guest performs further plans that come through its console (``restored``); a
    ``pooled`` one waits before the execve until a byte comes there; with ``commands`` it has a port through which more
    are executed (``command``). Raises UsageError for an empty command or an unknown capability or limit.
    """
    own = (WaitPath(disk), Mkdir(ROOT), Mount(disk, ROOT, file_system, 0))
    return Plan(
        child=(
            *boot_steps(
                modules, network_steps(spec.link), reports_memory=not served and not pooled
            ),  # two processes cannot read one console
            *_task_limit_steps(spec.resources.pids),
            *share_steps(spec.mounts),
            *(own if writable_disk else overlay_steps(disk, file_system)),
            *root_steps(volatile=not writable_disk, mounts=spec.all_mounts),
            *(Write(f"proc/sys/{name.replace('.', '/')}", (value,)) for name, value in spec.sysctls),
            *(_server(spec.resources.pids, ServePlans(0)) if served else ()),
            *(_server(spec.resources.pids, OpenProcess(1, FIRST_PROCESS), serve_commands()) if commands else ()),
            *MOVE_IN,
            *workload_steps(spec, NO_INPUT, hold=(LogLine(POOLED), WaitInput(CONSOLE_TOO)) if pooled else ()),
        )
    )
