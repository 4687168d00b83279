"""The program that libvirt takes for QEMU: our launcher, which has itself put into a cgroup and then becomes QEMU.

So QEMU is charged to its cgroup from its first page on, with all its threads. The launcher asks at a socket, where we
learn from the kernel who it is, put it in, and give the word; then it becomes the guest's account, which has no rights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from errno import EEXIST
from pathlib import Path

from msgspec.structs import replace

from runtime.atomic import partial
from runtime.cgroups import Cgroup
from runtime.cgroups.resources import settings
from runtime.errors import PrerequisiteError, TestbedError
from runtime.launcher import STATIC_BINARY
from runtime.plan.cgroup import join_steps
from runtime.plan.constants import CLONE_NEWNET
from runtime.plan.encode import encode
from runtime.plan.steps import (
    Ambient,
    Capabilities,
    Exec,
    JoinNamespace,
    Mkdir,
    Mknod,
    Plan,
    RequestAdmission,
    SetUser,
    Step,
    Umask,
)
from runtime.spec import Resources, configured_limits
from testbed.qemu import tap
from testbed.qemu.account import Account

_QEMU = "qemu-system-x86_64"
_DAEMONS, _DAEMONS_NAME = Path("/var/lib/libvirt"), "virtd-testbed-"


def find_qemu() -> Path:
    """Return QEMU's path. Raises PrerequisiteError when it is not installed."""
    path = shutil.which(_QEMU)
    if path is None:
        raise PrerequisiteError(f"{_QEMU} is not on the PATH", "install qemu-system-x86")
    return Path(path)


def read_qemu_version(qemu: Path) -> str:
    """Return the first line of ``--version``."""
    done = subprocess.run([str(qemu), "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


# Libvirt gives an emulator that it only asks what it can do power over files, as if its account could open more than
# it can. It then learns of a KVM that is out of reach, sees that it is, and asks again, for ever.
_WITHOUT_POWER = (Ambient(0), Capabilities(0, 0))
# The name that libvirt gives to its secret for whatever else it encrypts, where it names the file to QEMU.
_MASTER_KEY = b'"masterKey0"'


def _become(qemu: Path) -> Exec:
    return Exec((str(qemu),), append_arguments=True)


def _abroad(namespace: str) -> tuple[Step, ...]:
    """Return the steps from a daemon's network namespace into ours, with the device that a tap is opened by.

    A daemon gives QEMU a /dev with nothing in it but what the domain is known to need.
    """
    return (
        Umask(0),  # a daemon's own may take from everybody what the modes here give
        Mkdir("/dev/net", tolerate=(EEXIST,)),
        Mknod(tap.DEVICE, *tap.DEVICE_NUMBER, tolerate=(EEXIST,)),
        Umask(0o077),
        JoinNamespace(namespace, CLONE_NEWNET),
    )


def emulator_plan(
    qemu: Path, admission: Path, account: Account, arguments: tuple[str, ...] = (), *, namespace: str | None = None
) -> Plan:
    """Return the plan for one instance: ask to be put into its cgroup, become ``account``, become QEMU.

    ``arguments`` come before libvirt's. QEMU takes the first accelerator that it is given, so one that libvirt
    has no word for can be named here. ``namespace`` is the path of the network namespace to enter when a daemon,
    which is in another, starts QEMU.
    """
    abroad = () if namespace is None else _abroad(namespace)
    user = SetUser(account.uid, account.gids[0], account.gids)
    return Plan((RequestAdmission(str(admission)), *abroad, user, Exec((str(qemu), *arguments), append_arguments=True)))


def make_cgroup(cgroup: Cgroup, resources: Resources, emulator_cpus: float = 0.0) -> None:
    """Make an instance's cgroup with its limits. Raises TestbedError when the kernel refuses.

    Of the limits, it holds the CPU quota only. RAM is limited by the machine's size and tasks within the guest;
    what QEMU needs besides the guest's RAM is a cost to be measured, not to be cut. ``emulator_cpus`` come on top of
    the quota, if there is one: where that is a whole number of processors, the guest's cannot use them.
    """
    if resources.cpus is not None:
        resources = replace(resources, cpus=resources.cpus + emulator_cpus)
    quota = replace(configured_limits(resources), devices=(), memory=None, pids=None)
    try:
        cgroup.make(delegate=False)
        for controller, file, value in settings(cgroup.hierarchies, quota):
            cgroup.file(controller, file, file).write_text(value)
    except OSError as error:
        raise TestbedError(f"make cgroup {cgroup.name}: {error}", "run `invoke doctor`") from error


def enter_cgroup(cgroup: Cgroup, pid: int) -> None:
    """Put a process that has one thread into the cgroup, in every hierarchy in use. Raises OSError."""
    for step in join_steps(cgroup.hierarchies, cgroup.name):
        Path(step.path).write_text(str(pid))


def daemons_emulator(emulator: Path, models: Sequence[str]) -> Path:
    """Return where a daemon whose guests are under these security models may execute ``emulator``.

    AppArmor's profiles of libvirt's daemons name what they may execute: of what is not the distribution's, files of
    this name. Raises PrerequisiteError when it cannot be written.
    """
    if "apparmor" not in models:
        return emulator
    target = _DAEMONS / f"{_DAEMONS_NAME}{emulator.parent.name.rpartition('-')[2]}"
    try:
        for suffix in (".plan", ""):
            if not target.with_name(target.name + suffix).exists():
                with partial(target.with_name(target.name + suffix)) as unfinished:
                    shutil.copy2(emulator.with_name(emulator.name + suffix), unfinished)
    except OSError as error:
        raise PrerequisiteError(f"copy {emulator} to {target}: {error.strerror}", "reinstall libvirt-daemon") from error
    return target


def daemons_emulators() -> tuple[Path, ...]:
    """Return all that was copied to where daemons may execute it."""
    return tuple(_DAEMONS.glob(f"{_DAEMONS_NAME}*"))


def admit(cgroup: Cgroup, account: Account, pid: int) -> None:
    """Put an emulator into its cgroup before it becomes QEMU, and give its account the key that libvirt has written for
    root, with the domain's own directory, in which that is.

    Raises OSError.
    """
    enter_cgroup(cgroup, pid)
    for argument in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
        if _MASTER_KEY in argument:
            key = Path(json.loads(argument)["file"])
            for path in (key, key.parent):
                os.chown(f"/proc/{pid}/root{path}", account.uid, -1, follow_symlinks=False)


def ensure_emulator(guest_root: Path, qemu: Path) -> Path:
    """Return the launcher under a name of its own, with a plan next to it for when no instance's is named.

    Libvirt remembers what an emulator can do by its path and change time, so its folder, named after the
    launcher's and QEMU's identity, is stored below ``guest_root`` and serves as libvirt's ``cache`` too.
    """
    status = qemu.stat()
    asked = encode(Plan((*_WITHOUT_POWER, _become(qemu))))
    identity = f"{qemu} {status.st_mtime_ns} {status.st_size}".encode() + STATIC_BINARY.read_bytes() + asked
    folder = guest_root / f"emulator-{hashlib.sha256(identity).hexdigest()[:12]}"
    if not folder.exists():
        with partial(folder) as unfinished:
            unfinished.mkdir()
            shutil.copy2(STATIC_BINARY, unfinished / "emulator")
            (unfinished / "emulator.plan").write_bytes(asked)
    return (folder / "emulator").resolve()  # libvirt remembers it by this name
