"""What libvirt takes for QEMU: our launcher, which enters a cgroup and then becomes QEMU.

So QEMU is charged to its cgroup from its first page on, with all its threads.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from errno import EEXIST
from pathlib import Path

from runtime.atomic import partial
from runtime.cgroups import Hierarchies, create_steps, join_steps
from runtime.errors import PrerequisiteError
from runtime.launcher import STATIC_BINARY
from runtime.plan.constants import CLONE_NEWNET
from runtime.plan.encode import encode
from runtime.plan.steps import Exec, JoinNamespace, Mkdir, Mknod, Plan, Step
from runtime.spec import Resources
from testbed.platforms import tap

_QEMU = "qemu-system-x86_64"


def find_qemu() -> Path:
    """QEMU's path. Raises PrerequisiteError when it is not installed."""
    found = shutil.which(_QEMU)
    if found is None:
        raise PrerequisiteError(f"{_QEMU} is not on the PATH", "install qemu-system-x86")
    return Path(found)


def qemu_version(qemu: Path) -> str:
    """The first line of ``--version``."""
    done = subprocess.run([str(qemu), "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def _become(qemu: Path) -> Exec:
    return Exec((str(qemu),), append_arguments=True)


def _abroad(namespace: str) -> tuple[Step, ...]:
    """From a daemon's into our network namespace, with the device that a tap is opened by.

    A daemon gives QEMU a /dev with nothing in it but what the domain is known to need.
    """
    return (
        Mkdir("/dev/net", tolerate=(EEXIST,)),
        Mknod(tap.DEVICE, *tap.DEVICE_NUMBER, tolerate=(EEXIST,)),
        JoinNamespace(namespace, CLONE_NEWNET),
    )


def emulator_plan(
    qemu: Path, found: Hierarchies, cgroup: str, resources: Resources, *, namespace: str | None = None
) -> Plan:
    """The plan for one instance: make the cgroup with its limits, join it, become QEMU.

    Of the limits, the cgroup holds the CPU quota only. RAM is limited by the machine's size and tasks within the
    guest; what QEMU needs beside the guest's RAM is a cost to be measured, not to be cut. ``namespace`` is the path
    of the network namespace to enter when a daemon, which is in another, starts QEMU.
    """
    return Plan(
        (
            *create_steps(found, cgroup, Resources(cpus=resources.cpus), confine_devices=False),
            *join_steps(found, cgroup),
            *(() if namespace is None else _abroad(namespace)),
            _become(qemu),
        )
    )


def ensure_emulator(guest_root: Path, qemu: Path) -> Path:
    """The launcher under a name of its own, beside it a plan for when no instance's is named.

    Libvirt remembers what an emulator can do by its path and change time, so its folder, named after the
    launcher's and QEMU's identity, is kept below ``guest_root`` and serves as libvirt's ``cache`` too.
    """
    status = qemu.stat()
    identity = f"{qemu} {status.st_mtime_ns} {status.st_size}".encode() + STATIC_BINARY.read_bytes()
    folder = guest_root / f"emulator-{hashlib.sha256(identity).hexdigest()[:12]}"
    if not folder.exists():
        with partial(folder) as unfinished:
            unfinished.mkdir()
            shutil.copy2(STATIC_BINARY, unfinished / "emulator")
            (unfinished / "emulator.plan").write_bytes(encode(Plan((_become(qemu),))))
    return (folder / "emulator").resolve()  # libvirt remembers it by this name
