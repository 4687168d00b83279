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
from runtime.images.model import Image
from runtime.images.store import Store
from tests.runtime.check_guest import BOOT, layer_of_unit, layers_of_checks, outcomes_of
from tests.runtime.systemd_checks import CHECKS
from vm_images.container_host import ensure_host_image
from vm_images.disk import layer_name
from vm_images.plans.container_host import ContainerHost

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.network]

# On an idle host boot and checks take 90 s; this is for a busy one.
TIMEOUT_S = 400.0
_DOCKERFILE = Path(__file__).with_name("systemd_host.dockerfile")


def layers(directory: Path) -> Image:
    """The checks, and the unit that runs them."""
    image = layers_of_checks(directory, "systemd_checks.py", ("sh", "true", "cat", "sleep", "dd"))
    unit = layer_of_unit(directory, "tests.runtime.systemd_checks", "dbus.socket user@1000.service")
    return replace(image, layers=(*image.layers, unit))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """One boot for all checks."""

    def host_image() -> Image:
        return ensure_host_image(Store(store_root() / "images"), print, _DOCKERFILE, "testbed/systemd-host")

    def machine(host: Image) -> ContainerHost:
        return ContainerHost((*map(layer_name, host.layers), "units"), ("/bin/sh", "-c", BOOT), "/", "host", None, "")

    return outcomes_of(host_image, layers, machine, memory_mib=1024, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_systemd(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
