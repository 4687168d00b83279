"""What is checked of guests of Xen's. It runs in the reference machine, booted under Xen, not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/testbed/machine/test_xen_machine.py reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from runtime.home import store_root
from runtime.spec import Process, Resources, Spec
from testbed.host.facts import is_domain_0
from testbed.host.libvirt_library import load_libvirt
from testbed.ladder.attack import attack
from testbed.platforms.paravirtual import PARAVIRTUAL, ParavirtualPlatform
from testbed.platforms.protocol import Instance
from testbed.probes.read import read_probes
from testbed.rungs.read import find_rung
from testbed.xen.domain_0 import URI, start_services
from tests.runtime.guest_checks import be_init, work_off
from tests.testbed.machine.served import IMAGE, MIB, PROGRAMS, RUN, SERVE, TIMEOUT_S, prepared
from tests.testbed.platforms.answers import fetch
from tests.waiting import until

RAM = 128 * MIB
_LOG = Path("/run/xen-services.log")
# What a guest's own kernel answers, what Xen keeps it to, what is its own, and what was for domain 0 to prevent.
_VERDICTS = {
    "files-root-of-process": "blocked",
    "processes-trace": "blocked",
    "signals-pidfd": "blocked",
    "names-host": "blocked",
    "time-adjust": "blocked",
    "devices-disk-write": "blocked",
    "settings-write": "blocked",
    "resources-memory": "blocked",
    "resources-processors": "blocked",
    "files-change-own": "permitted",
    "network-raw": "permitted",
    "network-forge-address": "leaked",
    "covert-lock": "untestable",
}


def xen_is_below_and_its_services_start() -> None:
    assert Path("/sys/hypervisor/type").read_text() == "xen\n" and not Path("/dev/kvm").exists()
    start_services(_LOG)
    assert is_domain_0()


def a_guest_serves_xen_counts_what_it_takes_and_its_end_is_told() -> None:
    with prepared(ParavirtualPlatform) as (platform, lab, _):
        assert platform.label == f"{PARAVIRTUAL} (Xen, paravirtual)" and platform.facts()["accelerator"] == "xen"
        link, free_bytes = lab.link(0, 0), platform.read_host().available_bytes
        process = Process(("sh", "-c", SERVE), ("PATH=/bin",))
        spec = Spec(process, (PROGRAMS,), "served", Resources(RAM, 0.5, 24), link)
        one = Instance("a0", 0, {"web": spec}, Path("/run/a0.log"))
        platform.start(one)
        phases = platform.started(one, TIMEOUT_S).phases
        assert phases["request"] < phases["created"] < phases["kernel_entry"] < phases["first_process"], phases
        assert fetch(f"http://{link.address.ip}/", TIMEOUT_S) == "answered\n"
        meter, host = platform.meter(one), platform.read_host()
        assert meter.memory_bytes() == RAM <= free_bytes - host.available_bytes < 2 * RAM, (free_bytes, host)
        used_ns = meter.cpu_usage_ns()
        assert 0 < used_ns < phases["first_process"] and used_ns // 10**7 <= host.busy_ticks < host.total_ticks
        parts = platform.memory_parts(one)
        assert sum(parts.values()) == RAM and parts["application"] > 0 and parts["guest_free"] > RAM // 4, parts
        assert platform.alive(one) and platform.exit_status(one, 0) is None
        assert fetch(f"http://{link.address.ip}/cgi-bin/end", TIMEOUT_S) == "ending\n"
        assert platform.exit_status(one, TIMEOUT_S) == 7 and platform.ending(one) == "exit status 7"
        assert not platform.alive(one)
        platform.stop(one)
        until(lambda: platform.read_host().available_bytes > free_bytes - MIB)  # Xen clears it first


def probes_in_a_guest_reach_nothing_of_domain_0() -> None:
    probes = [one for one in read_probes() if one.name in _VERDICTS]
    with prepared(ParavirtualPlatform) as (platform, lab, scratch):
        outcomes = attack(platform, find_rung(PARAVIRTUAL), lab, IMAGE, scratch, print, probes=probes)
    assert {one.probe: one.verdict for one in outcomes} == _VERDICTS, outcomes


def nothing_is_left() -> None:
    connection = load_libvirt().open(URI)
    assert [domain.name() for domain in connection.listAllDomains()] == ["Domain-0"]
    connection.close()
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith("vif")]
    disks = store_root() / "guest" / "disks"
    backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [path for path in backing if path.startswith(str(disks))]
    assert not Path("/run/testbed", RUN).exists()


CHECKS: tuple[Callable[[], None], ...] = (
    xen_is_below_and_its_services_start,
    a_guest_serves_xen_counts_what_it_takes_and_its_end_is_told,
    probes_in_a_guest_reach_nothing_of_domain_0,
    nothing_is_left,
)

if __name__ == "__main__":
    be_init(lambda: work_off(CHECKS))
    Path("/proc/sysrq-trigger").write_text("b")
