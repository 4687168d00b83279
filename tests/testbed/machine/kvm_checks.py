"""What is checked on a server with a real KVM, systemd and cgroup v2 alone. It runs inside the reference machine, not
under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/testbed/machine/test_kvm_machine.py reads.
"""

from __future__ import annotations

import grp
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from xml.etree import ElementTree

from msgspec import Struct

from runtime import speed
from runtime.cgroups import Cgroup, hierarchies
from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.lease import cgroup_name, lease
from runtime.spec import Process, Resources, Spec
from testbed import checks_of_machines
from testbed.breakdown import GUEST_PARTS
from testbed.host import ksm, kvm
from testbed.lab import BRIDGE, Lab
from testbed.platforms.pooled_vm import PooledVmPlatform
from testbed.platforms.protocol import Instance
from testbed.platforms.registry import choose_vm_class
from testbed.platforms.restored import RestoredPlatform, Warmed
from testbed.platforms.vm import VmPlatform
from testbed.qemu.accelerator import (
    AUTO,
    KVM_DEVICE,
    TIME_LIMIT_S,
    decide,
    explain_closed_kvm,
    kvm_limit_s,
    reach_verdict,
    try_accelerator,
)
from testbed.qemu.account import find_emulator_account, make_guest_account
from testbed.qemu.emulator import find_qemu
from testbed.qemu.memory import OVERCOMMIT
from testbed.qemu.variants import VARIANTS
from tests.runtime.guest_checks import work_off
from tests.testbed.platforms.answers import fetch
from tests.waiting import until
from vm_images.guest import ensure_guest

BUSYBOX = "/layers/busybox"
IMAGE = Image("test/busybox", "sha256:busybox", ImageConfig(), (Layer("sha256:busybox", Path(BUSYBOX)),))
RUN = "checks"
# The names of the checks that an earlier boot has done.
DONE = "/done"
MIB = 1 << 20
RAM = 128 * MIB
# Nothing here is a question of time.
TIMEOUT_S = 120.0
SERVE = "echo answered > /index.html; exec busybox httpd -f -p 80 -h /"
# Keeps equal pages.
HELD = 16 * MIB
HOLD = f"busybox dd if=/dev/zero of=/held bs={MIB} count={HELD // MIB} 2>/dev/null; {SERVE}"
# Gives them back to the guest's kernel when it is asked to.
FREE = f"""
busybox mkdir /cgi-bin; echo '#!/bin/sh' > /cgi-bin/free; echo 'busybox rm /held; echo; echo freed' >> /cgi-bin/free
busybox chmod 755 /cgi-bin/free
{HOLD}"""


class Served(Struct, frozen=True):
    """A machine that has answered, the process that is its QEMU, and how that is described to libvirt."""

    platform: VmPlatform
    instance: Instance
    pid: int
    xml: ElementTree.Element

    @property
    def command(self) -> list[str]:
        """QEMU's command line."""
        return Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")

    @property
    def opened(self) -> list[str]:
        """What QEMU's descriptors are of."""
        return [os.readlink(entry) for entry in Path(f"/proc/{self.pid}/fd").iterdir()]


def prepared(name: str, undo: ExitStack) -> VmPlatform:
    """The platform of a variant, prepared for machines of busybox."""
    scratch = undo.enter_context(lease(RUN))
    platform = choose_vm_class(VARIANTS[name])(scratch, BRIDGE, RUN, VARIANTS[name], "kvm")
    undo.callback(platform.close)
    platform.prepare_images([IMAGE])
    return platform


def server(lab: Lab, application: int, *, script: str = SERVE, ram: int = RAM) -> Spec:
    return Spec(
        Process(("sh", "-c", script), ("PATH=/bin",)),
        (BUSYBOX,),
        "served",
        Resources(ram, 1.0, 24),
        lab.link(application, 0),
    )


def start(platform: VmPlatform, spec: Spec, application: int = 0) -> Served:
    """Start a machine and have it answer. All that must be true of it under KVM is."""
    one = Instance(f"a{application}", application, {"web": spec}, Path(f"/run/{platform.name}-{application}.log"))
    if isinstance(platform, PooledVmPlatform):
        platform.fill(one)
    platform.start(one)
    phases = platform.started(one, TIMEOUT_S * platform.patience).phases
    print(
        f"{one.log.stem}: { ({name: (at - phases['request']) // 10**6 for name, at in phases.items()}) } ms", flush=True
    )
    try:
        expect_answer(spec)
    except OSError as error:
        raise AssertionError(f"{error}: {one.log.read_text()[-2000:]}") from error
    (pid,) = platform.cgroup(one).pids()
    served = Served(platform, one, pid, ElementTree.fromstring(platform._running[one.name].domain.XMLDesc()))
    expect_kvm(served)
    return served


def expect_answer(spec: Spec) -> None:
    assert spec.link is not None
    said = fetch(f"http://{spec.link.address.ip}/", TIMEOUT_S)
    assert said == "answered\n", said


def expect_kvm(served: Served) -> None:
    """It is libvirt's machine under KVM with the host's processor, and its QEMU is nobody who may do anything else."""
    facts = served.platform.facts()
    assert facts["accelerator"] == "kvm" and facts["cpu"] == "host-passthrough", facts
    assert served.platform.label == f"{served.platform.name} (KVM on an emulated host)", served.platform.label
    assert not served.platform.emulated
    assert served.xml.get("type") == "kvm"
    cpu = served.xml.find("cpu")
    assert cpu is not None and cpu.get("mode") == "host-passthrough"
    command = served.command
    assert command[command.index("-accel") + 1].startswith("kvm"), command
    assert command[command.index("-cpu") + 1].startswith("host"), command
    assert str(KVM_DEVICE) in served.opened and "anon_inode:kvm-vm" in served.opened, served.opened
    expect_unprivileged(served)
    expect_cgroup(served)
    # "network" of the facts says so, and that all kinds of machine have it the same.
    assert "without vhost-net" in str(facts["network"])
    assert "/dev/vhost-net" not in served.opened


def expect_unprivileged(served: Served) -> None:
    """It may open the device as a member of the group kvm, and has no other rights."""
    lines = Path(f"/proc/{served.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    block = make_guest_account(find_emulator_account(), RUN, 0).uid
    assert all(block <= int(uid) < block + 100 for uid in status["Uid"].split()), (block, status["Uid"])
    assert set(status["Gid"].split()) == {str(grp.getgrnam("kvm").gr_gid)}, status["Gid"]
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")), status
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", status


def expect_cgroup(served: Served) -> None:
    """KVM's virtual processors are threads of QEMU, so the quota is theirs, too."""
    cgroup = served.platform.cgroup(served.instance)
    quota_usec, period_usec = cgroup.file("cpu", "", "cpu.max").read_text().split()
    assert quota_usec == period_usec
    charged = set(cgroup.file("cpu", "", "cgroup.threads").read_text().split())
    threads = {path.name: (path / "comm").read_text().strip() for path in Path(f"/proc/{served.pid}/task").iterdir()}
    assert charged == set(threads) and "CPU 0/KVM" in threads.values(), (charged, threads)
    assert cgroup.memory_bytes() > 0 and cgroup.cpu_usage_ns() > 0


@contextmanager
def machine_of(name: str, *, script: str = SERVE, ram: int = RAM) -> Iterator[Served]:
    """A machine of a variant while it serves; nothing of it is left."""
    with ExitStack() as undo:
        platform = prepared(name, undo)
        lab = undo.enter_context(Lab())
        served = start(platform, server(lab, 0, script=script, ram=ram))
        yield served
        stop(served)


def stop(served: Served) -> None:
    served.platform.stop(served.instance)
    assert not served.platform.cgroup(served.instance).exists()
    assert not Path(f"/proc/{served.pid}").exists()


def the_server_has_kvm_systemd_and_cgroup_v2_alone() -> None:
    assert os.readlink("/proc/1/exe").endswith("systemd")
    assert hierarchies().mode == "v2" and not hierarchies().v1
    found = kvm.detect()
    assert (found.kind, found.nested) == ("amd", True), found
    assert "vhost_net" in Path("/proc/modules").read_text()


def systemd_gives_the_device_to_the_group_kvm() -> None:
    """As on every server, and not as the kernel makes it: root's alone."""
    for device in (KVM_DEVICE, Path("/dev/vhost-net")):
        status = device.stat()
        assert stat.S_IMODE(status.st_mode) == 0o660 and grp.getgrgid(status.st_gid).gr_name == "kvm", status
    assert explain_closed_kvm() == ""


def limits_of_time_are_those_of_a_slow_host() -> None:
    factor = speed.factor()
    print(f"this host is {factor} times slower", flush=True)
    assert factor > 1.5, factor
    assert kvm_limit_s((), "kvm") == TIME_LIMIT_S * factor


def kvm_takes_the_hosts_own_processor() -> None:
    """Within the limit that it has on such a host when a run asks for it."""
    root = store_root() / "guest"
    verdict = reach_verdict(root, find_qemu(), ensure_guest(root), "kvm")
    print(f"kvm: {verdict.reason}", flush=True)
    assert (verdict.accelerator, verdict.cpu, verdict.hardware) == ("kvm", "host-passthrough", True), verdict


def a_device_out_of_qemus_reach_is_not_used() -> None:
    """Who may open it is root, who is not whom QEMU runs as."""
    root = store_root() / "guest"
    KVM_DEVICE.chmod(0o600)
    try:
        reach_verdict(root, find_qemu(), ensure_guest(root), "kvm")
    except PrerequisiteError as error:
        assert f"may not open {KVM_DEVICE}" in error.message and f"chmod 660 {KVM_DEVICE}" in error.message, error
    else:
        raise AssertionError("a KVM that QEMU cannot open was taken")
    finally:
        KVM_DEVICE.chmod(0o660)


def left_to_itself_the_probe_chooses_kvm() -> None:
    """The translator, itself translated here, is given twice the time; to wait for it would take minutes."""
    root, qemu = store_root() / "guest", find_qemu()
    guest = ensure_guest(root)
    (tried,) = reach_verdict(root, qemu, guest, "kvm").attempts
    assert tried.boot_s is not None and tried.boot_s < kvm_limit_s((), AUTO)
    translated = try_accelerator(qemu, guest, "tcg", 2 * tried.boot_s)
    verdict = decide((tried, translated), explain_closed_kvm())
    assert (verdict.accelerator, verdict.cpu, verdict.hardware) == ("kvm", "host-passthrough", True), verdict


def doctor_names_the_kind_of_kvm() -> None:
    device = checks_of_machines.check_kvm()
    assert device.ok and "AMD's SVM, nested" in device.detail, device


def vm_serves() -> None:
    with machine_of("vm") as served:
        assert 0 < resident_bytes(served) <= RAM


def vm_micro_serves() -> None:
    with machine_of("vm-micro") as served:
        assert served.command[served.command.index("-machine") + 1].startswith("microvm")


def vm_pooled_serves() -> None:
    with machine_of("vm-pooled"):
        pass


def vm_restored_serves_as_two_copies() -> None:
    """With the state that KVM keeps of a processor, and its clock."""
    with ExitStack() as undo:
        platform = prepared("vm-restored", undo)
        assert isinstance(platform, RestoredPlatform)
        lab = undo.enter_context(Lab())
        began_s = time.monotonic()
        platform.save({"web": Warmed(server(lab, 9), (80,))}, {"web": IMAGE})
        print(f"vm-restored: warm and saved after {time.monotonic() - began_s:.1f} s", flush=True)
        for served in [start(platform, server(lab, application), application) for application in (0, 1)]:
            stop(served)


def vm_hugepages_serves_from_huge_pages() -> None:
    before = OVERCOMMIT.read_text()
    with machine_of("vm-hugepages") as served:
        assert huge_pages() == RAM // (2 * MIB)
        assert resident_bytes(served) == RAM
    assert OVERCOMMIT.read_text() == before
    until(lambda: huge_pages() == 0)


def huge_pages() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("HugePages_Total")).split()[1])


def vm_ksm_serves_from_merged_pages() -> None:
    """KVM must drop its mappings of a page that is merged, and copy one that is written to. Many of a guest's own are
    equal, so that one will do."""
    before = settings_of_ksm()
    with machine_of("vm-ksm", script=HOLD) as served:
        assert settings_of_ksm()["run"].strip() == "1"
        until(lambda: ksm.read_counters().saved_bytes > HELD, TIMEOUT_S, ksm.read_counters)
        assert served.platform.memory_parts(served.instance)["merged"] < -HELD
        expect_answer(served.instance.spec)
    assert settings_of_ksm() == before


def settings_of_ksm() -> Mapping[str, str]:
    return {name: (ksm.KSM / name).read_text() for name in ("run", "pages_to_scan")}


def vm_reporting_gives_free_pages_back() -> None:
    """The host has them again, from under KVM's mappings. A guest's kernel reports while it has 64 MiB free, and whole
    blocks of 2 MiB: how much of what was held is in such is not for us to say."""
    with machine_of("vm-reporting", script=FREE, ram=2 * RAM) as served:
        before = resident_bytes(served)
        link = served.instance.spec.link
        assert link is not None and fetch(f"http://{link.address.ip}/cgi-bin/free", TIMEOUT_S) == "freed\n"
        until(lambda: resident_bytes(served) <= before - HELD // 4, TIMEOUT_S, lambda: (before, resident_bytes(served)))
        expect_answer(served.instance.spec)


def resident_bytes(served: Served) -> int:
    """How much of its guest's RAM the host holds."""
    parts = served.platform.memory_parts(served.instance)
    return sum(parts.get(part, 0) for part in GUEST_PARTS)


def nothing_is_left() -> None:
    assert not Cgroup(cgroup_name(RUN, "")).exists()
    assert not [name for name in os.listdir("/proc") if name.isdecimal() and is_qemu(name)]


def is_qemu(pid: str) -> bool:
    try:
        return "qemu" in os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False


CHECKS: tuple[Callable[[], None], ...] = (
    the_server_has_kvm_systemd_and_cgroup_v2_alone,
    systemd_gives_the_device_to_the_group_kvm,
    doctor_names_the_kind_of_kvm,
    limits_of_time_are_those_of_a_slow_host,
    kvm_takes_the_hosts_own_processor,
    left_to_itself_the_probe_chooses_kvm,
    a_device_out_of_qemus_reach_is_not_used,
    vm_serves,
    vm_micro_serves,
    vm_pooled_serves,
    vm_restored_serves_as_two_copies,
    vm_hugepages_serves_from_huge_pages,
    vm_ksm_serves_from_merged_pages,
    vm_reporting_gives_free_pages_back,
    nothing_is_left,
)
LAST = CHECKS[-1]

if __name__ == "__main__":
    print(flush=True)  # after what systemd sets the terminal up by
    done = Path(DONE).read_text().split()
    work_off([check for check in CHECKS if check.__name__ not in done])
