"""What a service is granted of a kernel, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.config.resources import DeviceRule
from runtime.errors import UsageError
from runtime.spec import Process, Resources, Spec, configuration
from testbed.compose.model import HostDevice, Service
from testbed.platforms.requirements import require_grants
from testbed.services.kernel import find_devices, require_sysctls

WEB = Service("web", Resources())


def test_settings_of_the_whole_kernel_are_refused() -> None:
    require_sysctls((replace(WEB, sysctls=(("net.core.somaxconn", "77"), ("kernel.shmmax", "1"))),))
    other = replace(WEB, name="db", sysctls=(("vm.overcommit_memory", "1"), ("net/../vm/swappiness", "1")))
    with pytest.raises(UsageError, match=r"db\.sysctls: vm\.overcommit_memory belongs to the whole kernel") as raised:
        require_sysctls((WEB, other))
    assert "db.sysctls: net/../vm/swappiness" in raised.value.message and "net.*" in raised.value.hint


def test_a_device_is_the_hosts_with_what_may_be_done() -> None:
    (granted,) = find_devices(replace(WEB, devices=(HostDevice("/dev/zero", "/dev/nought", "r"),)))
    node = granted.node
    assert (node.path, node.type, node.major, node.minor, granted.access) == ("/dev/nought", "c", 1, 5, "r")
    assert node.file_mode == Path("/dev/zero").stat().st_mode & 0o777
    config = configuration(Spec(Process(("true",)), (), "web", devices=(granted,), sysctls=(("net.a", "1"),)))
    assert config.linux.devices == (node,) and config.linux.sysctl == {"net.a": "1"}
    assert config.linux.resources is not None
    assert config.linux.resources.devices == (DeviceRule(False), DeviceRule(True, "c", 1, 5, "r"))


def test_settings_that_would_be_the_hosts_are_refused() -> None:
    """Also of who shares with one that has the host's."""
    vpn = Service("vpn", Resources(), network_mode="host")
    web = replace(WEB, network_mode="service:vpn", sysctls=(("net.core.somaxconn", "77"), ("kernel.shmmax", "1")))
    require_sysctls((replace(vpn, network_mode=""), web))
    with pytest.raises(UsageError, match=r"web\.sysctls: net\.core.* the host itself \(network_mode: host\)"):
        require_sysctls((vpn, web))
    with pytest.raises(UsageError, match=r"web\.sysctls: kernel\.shmmax would be set on the host itself \(ipc: host\)"):
        require_sysctls((replace(web, ipc="host", network_mode=""),))


@pytest.mark.parametrize(("path", "why"), [("nothing", "No such file"), ("", "is no device")])
def test_what_is_no_device_is_named(tmp_path: Path, path: str, why: str) -> None:
    source = str(tmp_path / path)
    with pytest.raises(UsageError, match=rf"web\.devices: {source}.*{why}"):
        find_devices(replace(WEB, devices=(HostDevice(source, "/dev/x"),)))


def test_platforms_that_cannot_grant_it_are_named() -> None:
    asking = (replace(WEB, sysctls=(("net.a", "1"),)), replace(WEB, name="alone", network_mode="none"))
    require_grants(("container", "container-pooled", "vm", "vm-micro"), asking)
    require_grants(("vm-pod", "runc", "vm-cloud"), (WEB,))
    with pytest.raises(UsageError, match=r"web\.sysctls, alone\.network_mode: none: not on vm-pod, vm-cloud, crun"):
        require_grants(("container", "vm-pod", "vm-cloud", "crun"), asking)
