"""A machine with nothing in it, started by a daemon as a run would: whether that daemon lets us do all that takes."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError
from runtime.lease import cgroup_name
from runtime.plan.encode import encode
from runtime.spec import Resources
from runtime.speed import factor
from testbed.qemu.account import find_emulator_account, make_guest_account, next_number
from testbed.qemu.connection import Connection, destroy_domain, learn_emulator, start_domain
from testbed.qemu.domain import Domain, domain_xml
from testbed.qemu.emulator import admit, daemons_emulator, emulator_plan, make_cgroup
from testbed.qemu.reader import ConsoleReader
from testbed.qemu.running import limit_start

_MEMORY_BYTES = 64 << 20
_OWN_CGROUPS = (
    "its guests' cgroups are to be the run's, not the daemon's: add the line `cgroup_controllers = []` to "
    "/etc/libvirt/qemu.conf, and run `systemctl restart libvirtd` (or virtqemud)"
)


def introduce(libvirt: Connection, emulator: Path, qemu: Path, kind: str, run: str, scratch: Path) -> Path:
    """Have libvirt learn what our emulator can do, and, a daemon, start a machine; where it may execute the emulator.

    ``kind`` as ``learn_emulator``'s; ``run`` and its ``scratch`` directory are a lease's. Raises PrerequisiteError with
    what to change.
    """
    if libvirt.embedded:
        learn_emulator(libvirt.current(), emulator, kind)
        return emulator
    emulator = daemons_emulator(emulator, libvirt.security_models())
    learn_emulator(libvirt.current(), emulator, kind)
    try_daemon(libvirt, emulator, qemu, run, scratch)
    return emulator


def try_daemon(libvirt: Connection, emulator: Path, qemu: Path, run: str, scratch: Path) -> None:
    """Start such a machine, paused, see where its QEMU is, and end it. Raises PrerequisiteError with what to change."""
    name, folder = f"trial-{run}", scratch / "trial"
    account = make_guest_account(find_emulator_account(), run, next_number())
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir()
        domain = Domain(
            name=name,
            machine="q35",
            bus="pci",
            accelerator="tcg",
            cpu="maximum",
            memory_bytes=_MEMORY_BYTES,
            vcpus=1,
            emulator=emulator,
            emulator_plan=folder / "plan",
            kernel=None,
            initrd=folder / "initrd",
            command_line="",
            disks=(),
            console_socket=folder / "console",
            bridge="",
            mac=None,
            daemon=True,
            unlabelled=libvirt.security_models(),
        )
        admission, cgroup = folder / "admission", Cgroup(cgroup_name(run, "trial"))
        here = f"/proc/{os.getpid()}/ns/net"
        domain.emulator_plan.write_bytes(encode(emulator_plan(qemu, admission, account, namespace=here)))
        reader = ConsoleReader()
        undo.callback(reader.close)
        undo.callback(cgroup.remove)
        undo.callback(cgroup.kill)
        cgroup.make_parent()
        make_cgroup(cgroup, Resources())
        reader.listen(domain.console_socket, folder / "log")
        reader.admit(admission, partial(admit, cgroup, account))
        account.give(domain.emulator_plan, domain.console_socket, admission)
        try:
            with limit_start(cgroup, name, factor()):
                machine = start_domain(libvirt.current(), domain_xml(domain), name, paused=True)
        except TestbedError as error:
            hint = _OWN_CGROUPS if "cgroup" in error.message else "see its log: journalctl --unit libvirtd"
            raise PrerequisiteError(f"start a machine by libvirt at {libvirt.uri}: {error.message}", hint) from error
        undo.callback(destroy_domain, machine)
        _require_own(cgroup, account.uid, libvirt.uri)


def _require_own(cgroup: Cgroup, uid: int, uri: str) -> None:
    """Raise PrerequisiteError unless QEMU is in the cgroup, in each hierarchy, with all its threads, and the user's."""
    pids = cgroup.pids()
    for directory in cgroup.directories():
        members = next(path for name in ("tasks", "cgroup.threads") if (path := directory / name).exists())
        members_now = {int(thread) for thread in members.read_text().split()}
        threads = {int(path.name) for pid in pids for path in Path(f"/proc/{pid}/task").iterdir()}
        if not pids or members_now != threads:
            raise PrerequisiteError(f"libvirt at {uri} has moved threads of QEMU out of {directory}", _OWN_CGROUPS)
    if any(Path(f"/proc/{pid}").stat().st_uid != uid for pid in pids):
        raise PrerequisiteError(f"QEMU of libvirt at {uri} does not run as user {uid}", "report this")
