"""What is checked of VirtualBox. It runs in the reference machine, booted with VirtualBox in KVM's place, not under
pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/testbed/machine/test_virtualbox_machine.py reads.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.errors import PrerequisiteError
from testbed.machine.inside import make_host
from tests.runtime.guest_checks import be_init, work_off
from tests.waiting import until

# VirtualBox's service ends by itself some seconds after its last client.
TIMEOUT_S = 60.0


@contextmanager
def manager() -> Iterator[Callable[..., str]]:
    """VirtualBox's command, which returns what it says; its settings, and the service that it starts for itself, are
    nobody else's."""
    with TemporaryDirectory() as settings:
        own = {"VBOX_USER_HOME": settings, "VBOX_IPC_SOCKETID": "checks", "HOME": settings}

        def run(*arguments: str) -> str:
            done = subprocess.run(
                ["VBoxManage", *arguments],
                env=os.environ | own,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done
            return done.stdout

        yield run
        until(lambda: "VBoxSVC" not in find_processes(), TIMEOUT_S)


def find_processes() -> set[str]:
    """The names of all processes."""
    return {path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm")}


def the_machine_has_virtualbox_in_kvms_place() -> None:
    make_host("virtualbox")
    loaded = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    assert {"vboxdrv", "vboxnetflt"} <= loaded and not {"kvm", "kvm_amd"} & loaded, loaded
    assert Path("/dev/vboxdrv").is_char_device() and not Path("/dev/kvm").exists()
    try:
        make_host("kvm")
    except PrerequisiteError as error:
        assert "has no /dev/kvm" in error.message, error
    else:
        raise AssertionError("a machine without KVM was taken for one with it")


def a_module_can_be_loaded_for_the_kernel_that_runs() -> None:
    """Its modules are where every kernel's are, though it is not where the machine's own kernel is."""
    subprocess.run(["modprobe", "dummy"], check=True)
    assert Path("/sys/module/dummy").is_dir()


def virtualbox_answers_and_may_virtualise() -> None:
    with manager() as run:
        version, host = run("--version"), run("list", "hostinfo")
    assert version.startswith("7."), version
    assert "Processor supports HW virtualization: yes" in host and "Processor supports nested paging: yes" in host, host


CHECKS: tuple[Callable[[], None], ...] = (
    the_machine_has_virtualbox_in_kvms_place,
    a_module_can_be_loaded_for_the_kernel_that_runs,
    virtualbox_answers_and_may_virtualise,
)

if __name__ == "__main__":
    be_init(lambda: work_off(CHECKS))
    Path("/proc/sysrq-trigger").write_text("b")
