"""What is checked of VirtualBox and of its guests. It runs in the reference machine, booted with VirtualBox in KVM's
place, not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/testbed/machine/test_virtualbox_machine.py reads.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, WorkloadError
from runtime.lease import cgroup_name
from runtime.spec import Process, Resources, Spec
from testbed.ladder.attack import attack
from testbed.machine.inside import make_host
from testbed.platforms.protocol import Instance
from testbed.platforms.virtualbox import VIRTUALBOX, VirtualBoxPlatform
from testbed.probes.read import read_probes
from testbed.rungs.read import find_rung
from testbed.virtualbox.installation import require_virtualbox
from tests.runtime.guest_checks import be_init, work_off
from tests.testbed.machine.served import IMAGE, MIB, PROGRAMS, RUN, SERVE, TIMEOUT_S, prepared
from tests.testbed.platforms.answers import fetch
from tests.waiting import until

RAM = 80 * MIB  # the least that a guest is given
_VERDICTS = {
    "files-root-of-process": "blocked",
    "processes-trace": "blocked",
    "signals-pidfd": "blocked",
    "names-host": "blocked",
    "time-adjust": "blocked",
    "settings-write": "blocked",
    "resources-memory": "blocked",
    "resources-processors": "blocked",
    "files-change-own": "permitted",
    "network-raw": "permitted",
}


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


def all_that_its_machines_need_is_found() -> None:
    assert require_virtualbox().version.startswith("7.")


def a_guest_serves_what_it_takes_is_counted_and_its_end_is_told() -> None:
    with prepared(VirtualBoxPlatform) as (platform, lab, _):
        link = lab.link(0, 0)
        process = Process(("sh", "-c", SERVE), ("PATH=/bin",))
        spec = Spec(process, (PROGRAMS,), "served", Resources(RAM, None, 24), link)
        one = Instance("a0", 0, {"web": spec}, Path("/run/a0.log"))
        platform.start(one)
        phases = platform.started(one, TIMEOUT_S).phases
        assert phases["request"] < phases["created"] < phases["kernel_entry"] < phases["first_process"], phases
        assert fetch(f"http://{link.address.ip}/", TIMEOUT_S) == "answered\n"
        meter = platform.meter(one)
        assert RAM // 4 < meter.guest_bytes() < meter.memory_bytes() < 2 * RAM
        assert 0 < meter.cpu_usage_ns() < phases["first_process"] - phases["request"]
        parts = platform.memory_parts(one)
        assert (
            parts["application"] > 0 and parts["overhead"] > 0 and abs(sum(parts.values()) - meter.memory_bytes()) < MIB
        )
        assert platform.alive(one) and platform.exit_status(one, 0) is None
        assert fetch(f"http://{link.address.ip}/cgi-bin/end", TIMEOUT_S) == "ending\n"
        assert platform.exit_status(one, TIMEOUT_S) == 7 and platform.ending(one) == "exit status 7"
        assert not platform.alive(one)
        platform.stop(one)


def probes_in_a_guest_reach_nothing_of_the_host() -> None:
    probes = [one for one in read_probes() if one.name in _VERDICTS]
    with prepared(VirtualBoxPlatform) as (platform, lab, scratch):
        outcomes = attack(platform, find_rung("virtualbox-2007"), lab, IMAGE, scratch, print, probes=probes)
    assert {one.probe: one.verdict for one in outcomes} == _VERDICTS, outcomes


def what_keeps_a_machine_from_being_made_is_told_in_virtualboxs_words() -> None:
    subprocess.run(["modprobe", "kvm_amd"], check=True)
    try:
        with prepared(VirtualBoxPlatform) as (platform, _, scratch):
            spec = Spec(Process(("sh",), ("PATH=/bin",)), (PROGRAMS,), "refused", Resources(RAM))
            one = Instance("a0", 0, {"web": spec}, Path("/run/a0.log"))
            try:
                platform.start(one)
            except WorkloadError as error:
                assert "AMD-V is being used by another hypervisor" in error.message and "rmmod" in error.hint, error
            else:
                raise AssertionError("a machine was started with a processor that KVM has")
            assert not platform.alive(one) and not list(scratch.rglob("*.vbox"))
            assert not Cgroup(cgroup_name(RUN, "a0")).exists() and "VBoxHeadless" not in find_processes()
    finally:
        subprocess.run(["rmmod", "kvm_amd", "kvm"], check=True)


def nothing_is_left() -> None:
    until(lambda: not [name for name in find_processes() if name.startswith("VBox")])
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith("vbox")]
    assert not Path("/run/testbed", RUN).exists() and not list(Path("/tmp").glob(".vbox*"))
    assert not Cgroup(cgroup_name(RUN, VIRTUALBOX)).exists()


def find_processes() -> set[str]:
    """The names of all processes."""
    return {path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm")}


CHECKS: tuple[Callable[[], None], ...] = (
    the_machine_has_virtualbox_in_kvms_place,
    a_module_can_be_loaded_for_the_kernel_that_runs,
    all_that_its_machines_need_is_found,
    a_guest_serves_what_it_takes_is_counted_and_its_end_is_told,
    probes_in_a_guest_reach_nothing_of_the_host,
    what_keeps_a_machine_from_being_made_is_told_in_virtualboxs_words,
    nothing_is_left,
)

if __name__ == "__main__":
    be_init(lambda: work_off(CHECKS))
    Path("/proc/sysrq-trigger").write_text("b")
