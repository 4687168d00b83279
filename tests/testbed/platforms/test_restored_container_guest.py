"""Containers restored by CRIU for real: a guest with Debian's kernel and its CRIU works off a list of checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httptools
import pytest
import yaml
from msgspec.structs import replace

from runtime.home import store_root
from runtime.images.model import Image, Layer
from runtime.images.store import Store
from tests.runtime.check_guest import CHECKS as CHECKS_DIRECTORY
from tests.runtime.check_guest import layer_of_code, layers_of_checks, outcomes_of
from tests.testbed.platforms.restored_container_checks import CHECKS
from vm_images.container_host import INTERPRETER, ensure_host_image
from vm_images.disk import layer_name
from vm_images.plans.container_host import ContainerHost

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.network]

TIMEOUT_S = 400.0
ADDED = ("code", "modules")
_PROGRAM = "tests.testbed.platforms.restored_container_checks"
_DOCKERFILE = Path(__file__).with_name("criu_host.dockerfile")
_CHECKOUT = Path(__file__).parents[3]
# What CRIU asks the kernel about sockets by, and what it locks the network by. In the order of loading.
_MODULES = ("inet_diag", "tcp_diag", "udp_diag", "raw_diag", "unix_diag", "af_packet_diag", "netlink_diag")
_LOCK_MODULES = ("nfnetlink", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_conntrack", "nf_conntrack_netlink", "nf_tables")


def layers(kernel: Path, directory: Path) -> Image:
    """The checks, the rest of this checkout and of the kernel that they need."""
    commands = "sh true cat sleep mkdir printf chmod od tr id hostname head".split()
    image = layers_of_checks(directory, "restored_container_checks.py", tuple(commands), Path(__file__).parent)
    (directory / "busybox" / "tmp").mkdir(mode=0o777)
    (directory / "busybox" / "tmp").chmod(0o1777)
    installed = (Path(str(one.__file__)).parent for one in (httptools, yaml))
    code = layer_of_code(directory, (_CHECKOUT / "testbed", _CHECKOUT / "vm_images", *installed))
    (directory / "modules").mkdir()
    names = [f"{name}.ko" for name in (*_MODULES, *_LOCK_MODULES)]
    for name in names:
        shutil.copy2(next(kernel.rglob(name)), directory / "modules")
    (directory / "modules" / "order").write_text(" ".join(names))
    return replace(image, layers=(*image.layers, code, Layer("sha256:modules", directory / "modules")))


@pytest.fixture(scope="module")
def outcomes(kernel_package: Path) -> dict[str, str]:
    """One boot for all checks."""

    def host_image() -> Image:
        return ensure_host_image(Store(store_root() / "images"), print, _DOCKERFILE, "testbed/criu-host")

    def machine(host: Image) -> ContainerHost:
        used = (*map(layer_name, host.layers), *ADDED)
        return ContainerHost(used, (INTERPRETER, "-m", _PROGRAM), CHECKS_DIRECTORY, "host", None, "")

    return outcomes_of(host_image, partial(layers, kernel_package), machine, memory_mib=1024, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_criu(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
