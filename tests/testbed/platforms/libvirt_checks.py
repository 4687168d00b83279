"""What is checked on a server with systemd, AppArmor and libvirt's daemon, on cgroup v2 alone. It runs inside a guest,
not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/testbed/platforms/test_libvirt_guest.py reads.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

from runtime.cgroups import hierarchies
from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.lease import cgroup_name, lease
from runtime.spec import Process, Resources, Spec
from testbed import doctor
from testbed.lab import BRIDGE, Lab
from testbed.platforms.libvirt_lxc import LibvirtLxcPlatform
from testbed.platforms.protocol import Instance
from testbed.qemu.connection import connect, learn_emulator
from testbed.qemu.emulator import ensure_emulator, find_qemu
from tests.runtime.guest_checks import work_off
from tests.waiting import until

BUSYBOX = "/layers/busybox"
SYSTEM = "qemu:///system"
NOWHERE = Path("/nonexistent")
# Everything in the guest is emulated, the emulator too.
TIMEOUT_S = 60.0
TASKS = 12
SEEN = f"""
grep Seccomp: /proc/self/status
i=0; while [ $i -lt {TASKS + 8} ]; do sleep 1 & i=$((i+1)); done 2>&1 | tail -1
exec sleep 99
"""


def the_host_is_what_it_should_be() -> None:
    assert hierarchies().mode == "v2"
    assert "libvirtd (enforce)" in Path("/sys/kernel/security/apparmor/profiles").read_text()
    assert os.readlink("/proc/1/exe").endswith("systemd")


def libvirts_containers_run_within_their_limits() -> None:
    """The whole platform: its own libvirtd, a container with all limits on the bridge, nothing left behind."""
    lab = Lab()
    with lease("checks") as scratch:
        platform = LibvirtLxcPlatform(scratch, BRIDGE, "checks", lab)
        with ExitStack() as undo:
            undo.callback(platform.close)
            undo.enter_context(lab)
            process = Process(("sh", "-c", SEEN), ("PATH=/bin",))
            spec = Spec(process, (BUSYBOX,), "boxed", Resources(64 << 20, 0.5, TASKS), lab.link(0, 0))
            one = Instance("a0-web", 0, {"web": spec}, scratch / "log")
            platform.start(one)
            try:
                platform.started(one, TIMEOUT_S)
                until(lambda: "fork" in one.log.read_text(), TIMEOUT_S, one.log.read_text)
                assert "Seccomp:\t2" in one.log.read_text()
                cgroup = platform.cgroup(one)
                assert cgroup.name.startswith(cgroup_name("checks", "libvirtd")), cgroup.name
                assert cgroup.file("memory", "", "memory.max").read_text().strip() == str(64 << 20)
                assert cgroup.file("cpu", "", "cpu.max").read_text().split()[0] == "50000"
                assert int(cgroup.file("cpu", "", "pids.max").read_text()) <= TASKS + 3, "libvirt's own beside"
                assert cgroup.memory_bytes() > 0 and cgroup.cpu_usage_ns() > 0
                assert len(cgroup.pids()) >= 2
            finally:
                platform.stop(one)
            assert not any(path.exists() for path in cgroup.directories())


def a_daemon_with_cgroups_of_its_own_is_told_what_to_add() -> None:
    """As Debian has it, libvirt makes a scope of systemd's for QEMU, which goes with QEMU's leaving it."""
    check = doctor.check_connection(SYSTEM)
    assert not check.ok and "cgroup_controllers = []" in check.fix, check
    with Path("/etc/libvirt/qemu.conf").open("a") as configuration:
        configuration.write("cgroup_controllers = []\n")
    subprocess.run(["systemctl", "restart", "libvirtd"], check=True)


def doctor_has_the_daemon_start_a_machine() -> None:
    """In our cgroup, as its guest's user, and from where AppArmor lets the daemon execute what is ours."""
    check = doctor.check_connection(SYSTEM)
    assert check.ok and "exempt from apparmor" in check.detail, check


def where_apparmor_refuses_it_the_hint_says_what_to_add() -> None:
    """So that the check above can fail."""
    emulator = ensure_emulator(store_root() / "guest", find_qemu())
    with connect(SYSTEM, NOWHERE, NOWHERE) as daemon:
        try:
            learn_emulator(daemon.current(), emulator, "qemu")
        except PrerequisiteError as error:
            assert f"{emulator} ixr," in error.hint and "apparmor_parser" in error.hint, error
        else:
            raise AssertionError("AppArmor let the daemon execute what is in the store")


CHECKS = (
    the_host_is_what_it_should_be,
    libvirts_containers_run_within_their_limits,
    a_daemon_with_cgroups_of_its_own_is_told_what_to_add,
    doctor_has_the_daemon_start_a_machine,
    where_apparmor_refuses_it_the_hint_says_what_to_add,
)

if __name__ == "__main__":
    (store_root() / "guest").mkdir(parents=True, exist_ok=True)
    work_off(CHECKS)
