"""libvirt on a server for real: a guest with systemd, AppArmor and libvirt's daemon works off a list of checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.home import store_root
from runtime.images.model import Image, Layer
from runtime.images.store import Store
from tests.runtime.check_guest import BOOT, layer_of_code, layer_of_unit, layers_of_checks, outcomes_of
from tests.testbed.platforms.libvirt_checks import CHECKS
from vm_images.container_host import ensure_host_image
from vm_images.disk import layer_name
from vm_images.plans.container_host import ContainerHost

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.network]

TIMEOUT_S = 500.0
ADDED = ("units", "code", "modules")
# libvirt takes a /dev that lies over another for a file system below /dev.
_BOOT = f"umount -l /dev\n{BOOT}"
_DOCKERFILE = Path(__file__).with_name("libvirt_host.dockerfile")
_CHECKOUT = Path(__file__).parents[3]
_WANTED = "dbus.socket libvirtd.socket virtlogd.socket"
_MODULES = ("fuse.ko", "tun.ko")


def layers(kernel: Path, directory: Path) -> Image:
    """The checks, the rest of this checkout and of the kernel that they need, and the unit that runs them."""
    commands = ("sh", "true", "cat", "sleep", "grep", "tail")
    image = layers_of_checks(directory, "libvirt_checks.py", commands, Path(__file__).parent)
    unit = layer_of_unit(directory, "tests.testbed.platforms.libvirt_checks", _WANTED, _MODULES)
    code = layer_of_code(directory, (_CHECKOUT / "testbed", _CHECKOUT / "vm_images"))
    (directory / "modules").mkdir()
    for name in _MODULES:
        shutil.copy2(next(kernel.rglob(name)), directory / "modules")
    return replace(image, layers=(*image.layers, unit, code, Layer("sha256:modules", directory / "modules")))


@pytest.fixture(scope="module")
def outcomes(kernel_package: Path) -> dict[str, str]:
    """One boot for all checks."""

    def host_image() -> Image:
        return ensure_host_image(Store(store_root() / "images"), print, _DOCKERFILE, "testbed/libvirt-host")

    def machine(host: Image) -> ContainerHost:
        used = (*map(layer_name, host.layers), *ADDED)
        return ContainerHost(used, ("/bin/sh", "-c", _BOOT), "/", "host", None, "")

    return outcomes_of(host_image, partial(layers, kernel_package), machine, memory_mib=1024, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_server_with_libvirt(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
