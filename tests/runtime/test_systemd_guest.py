"""systemd, AppArmor and podman's default for real: a guest with a stock Debian's userland works off a list of checks.

Neither firmware nor a boot loader is in it, nor udev: the kernel is booted directly, and the root file system is there
when systemd becomes PID 1, which takes 10 s of an emulated guest's time instead of a stock system's 85.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.store import Store
from runtime.plan.container_host import LAYERS, ContainerHost
from testbed.platforms.emulator import find_qemu
from tests.runtime.systemd_checks import CHECKS
from vm_images.container_host import ensure_host_image, host_initrd
from vm_images.disk import ensure_layer_disk, layer_name
from vm_images.guest import COMMAND_LINE, ensure_guest

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.network]

# On an idle host boot and checks take 90 s; this is for a busy one.
TIMEOUT_S = 400.0
_CHECKS = Path(__file__).with_name("systemd_checks.py")
_DOCKERFILE = Path(__file__).with_name("systemd_host.dockerfile")

# From what our guests find to what systemd expects: a kernel's own /dev, and /sys as it is on a host.
_BOOT = """
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
ExecStart=/usr/bin/python3 {LAYERS}/checks/{_CHECKS.name}
ExecStopPost=/bin/sh -c "sleep 0.3; echo b > /proc/sysrq-trigger"
"""


def layers_of_checks(directory: Path) -> Image:
    """An image with busybox for containers, the checks, and the unit that runs them, each a layer."""
    (directory / "busybox" / "bin").mkdir(parents=True)
    shutil.copy2("/bin/busybox", directory / "busybox" / "bin" / "busybox")
    for command in ("sh", "true", "cat", "sleep", "dd"):
        (directory / "busybox" / "bin" / command).symlink_to("busybox")
    (directory / "checks").mkdir()
    shutil.copy2(_CHECKS, directory / "checks")
    units = directory / "units" / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    (units / "checks.service").write_text(_UNIT)
    found = tuple(Layer(f"sha256:{name}", directory / name) for name in ("busybox", "checks", "units"))
    return Image("test/checks", "sha256:checks", ImageConfig(), found)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each check came to, ``ok`` or a traceback, by its name: one boot for all of them."""
    try:
        store = Store(store_root() / "images")
        host = ensure_host_image(store, print, _DOCKERFILE, "testbed/systemd-host")
        guest = ensure_guest(store_root() / "guest")
        qemu = find_qemu()
    except TestbedError as error:
        pytest.skip(f"no guest that runs systemd: {error}")
    # Hard links from the store's layers to a disk: on one file system. It is no image that anybody keeps.
    work = Path(store_root() / "guest" / f"test-{tmp_path_factory.mktemp('work').parent.name}-systemd")
    work.mkdir()
    try:
        disk = ensure_layer_disk(work / "disks", [host, layers_of_checks(work / "layers")])
        layers = (*map(layer_name, host.layers), "units")
        machine = ContainerHost(layers, ("/bin/sh", "-c", _BOOT), "/", "host", None, "")
        (work / "initrd").write_bytes(host_initrd(guest, machine))
        return boot(qemu, guest.kernel.image, work / "initrd", disk)
    finally:
        shutil.rmtree(work)


def boot(qemu: Path, kernel: Path, initrd: Path, disk: Path) -> dict[str, str]:
    command = [
        *(str(qemu), "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", COMMAND_LINE),
        *("-drive", f"file={disk},format=raw,if=virtio,readonly=on"),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    console = done.stdout.decode(errors="replace").replace("\r", "")
    print(console, done.stderr.decode())
    found = re.findall(r"^check: (\w+): [\d.]+ s: (.*)$", console, re.MULTILINE)
    return {name: said if said == "ok" else json.loads(said) for name, said in found}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_systemd(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
