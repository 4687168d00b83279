"""systemd, AppArmor and podman's default for real: a guest with a stock Debian's userland works off a list of checks.

Neither firmware nor a boot loader is in it, nor udev: the kernel is booted directly, and the root file system is there
when systemd becomes PID 1, which takes 10 s of an emulated guest's time instead of a stock system's 85.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.home import store_root
from runtime.images.model import Image, Layer
from runtime.images.store import Store
from runtime.plan.container_host import ContainerHost
from tests.runtime.check_guest import CHECKS as CHECKS_DIRECTORY
from tests.runtime.check_guest import layers_of_checks, outcomes_of
from tests.runtime.systemd_checks import CHECKS
from vm_images.container_host import ensure_host_image
from vm_images.disk import layer_name

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.network]

# On an idle host boot and checks take 90 s; this is for a busy one.
TIMEOUT_S = 400.0
_DOCKERFILE = Path(__file__).with_name("systemd_host.dockerfile")

# From what our guests find to what systemd expects: a kernel's own /dev, and /sys as it is on a host.
BOOT = """
mount -t devtmpfs devtmpfs /dev
mount -o remount,rw /sys
exec /lib/systemd/systemd --unit=checks.service --show-status=0 </dev/console >/dev/console 2>&1
"""
# The last line of the console must be out of the serial port before the machine is gone.
_UNIT = f"""[Unit]
Wants=dbus.socket user@1000.service
After=dbus.socket user@1000.service apparmor.service
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStopSec=2
WorkingDirectory={CHECKS_DIRECTORY}
ExecStart=/usr/bin/python3 -m tests.runtime.systemd_checks
ExecStopPost=/bin/sh -c "sleep 0.3; echo b > /proc/sysrq-trigger"
"""


def layers(directory: Path) -> Image:
    """The checks, and the unit that runs them."""
    image = layers_of_checks(directory, "systemd_checks.py", ("sh", "true", "cat", "sleep", "dd"))
    units = directory / "units" / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    (units / "checks.service").write_text(_UNIT)
    return replace(image, layers=(*image.layers, Layer("sha256:units", directory / "units")))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One boot for all checks."""

    def host_image() -> Image:
        return ensure_host_image(Store(store_root() / "images"), print, _DOCKERFILE, "testbed/systemd-host")

    def machine(host: Image) -> ContainerHost:
        return ContainerHost((*map(layer_name, host.layers), "units"), ("/bin/sh", "-c", BOOT), "/", "host", None, "")

    name = f"test-{tmp_path_factory.mktemp('work').parent.name}-systemd"
    return outcomes_of(name, host_image, layers, machine, memory_mib=1024, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_systemd(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
