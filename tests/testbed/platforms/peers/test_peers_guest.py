"""Peers on a server for real: a guest with systemd, on cgroup v2 alone, works off a list of checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.store import Store
from tests.runtime.check_guest import BOOT, layer_of_code, layer_of_unit, layers_of_checks, outcomes_of
from tests.testbed.platforms.peers.peer_checks import CHECKS
from vm_images.container_host import ensure_host_image
from vm_images.disk import layer_name
from vm_images.plans.container_host import ContainerHost

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.network]

TIMEOUT_S = 500.0
ADDED = ("units", "code")
_DOCKERFILE = Path(__file__).with_name("peers_host.dockerfile")
_CHECKOUT = Path(__file__).parents[4]


def layers(directory: Path) -> Image:
    """The checks, the rest of this checkout that they need, and the unit that runs them."""
    commands = ("sh", "true", "cat", "sleep", "grep")
    image = layers_of_checks(directory, "peer_checks.py", commands, Path(__file__).parent)
    unit = layer_of_unit(directory, "tests.testbed.platforms.peers.peer_checks", "dbus.socket")
    code = layer_of_code(directory, (_CHECKOUT / "testbed", _CHECKOUT / "vm_images"))
    return replace(image, layers=(*image.layers, unit, code))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """One boot for all checks."""

    def host_image() -> Image:
        return ensure_host_image(Store(store_root() / "images"), print, _DOCKERFILE, "testbed/peers-host")

    def machine(host: Image) -> ContainerHost:
        used = (*map(layer_name, host.layers), *ADDED)
        return ContainerHost(used, ("/bin/sh", "-c", BOOT), "/", "host", None, "")

    return outcomes_of(host_image, layers, machine, memory_mib=1024, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_server_with_systemd(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
