"""systemd, AppArmor and podman's default for real, and what the command line does there with images and applications: a
guest with a stock Debian's userland works off a list of checks.

Neither firmware nor a boot loader is in it, nor udev: the kernel is booted directly, and the root file system is there
when systemd becomes PID 1, which takes 10 s of an emulated guest's time instead of a stock system's 85.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httptools
import invoke
import pycdlib
import pytest
import yaml
from msgspec.structs import replace

from benchmarks import docker_registry
from runtime.home import store_root
from runtime.images.model import Image, Layer
from runtime.images.store import Store
from testbed.ladder.build import GAUGE
from testbed.neighbours.build import NEIGHBOUR
from testbed.qemu.shares import find_virtiofsd
from tests.runtime.check_guest import (
    BOOT,
    layer_of_code,
    layer_of_unit,
    layers_of_checks,
    outcomes_of,
)
from tests.runtime.systemd_checks import CHECKS
from tests.testbed.ladder import walls
from vm_images.container_host import ensure_host_image
from vm_images.disk import layer_name
from vm_images.plans.container_host import ContainerHost

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.network]

# On an idle host boot and checks take 130 s; this is for a busy one.
TIMEOUT_S = 600.0
_CHECKOUT = Path(__file__).parents[2]
_ADDED = ("units", "code", "modules", "lender")
# For the network of a build's RUN.
_MODULES = ("tun.ko",)
_DOCKERFILE = Path(__file__).with_name("systemd_host.dockerfile")


def layers(kernel: Path, directory: Path) -> Image:
    """The checks, the rest of this checkout and of the kernel that they need, and the unit that runs them."""
    image = layers_of_checks(directory, "systemd_*.py", ("sh", "true", "cat", "sleep", "dd"))
    checks = directory / "checks"
    (checks / "benchmarks").mkdir()
    shutil.copy2(docker_registry.__file__, checks / "benchmarks")
    shutil.copy2(_CHECKOUT / "tasks.py", checks)
    rungs = checks / Path(walls.__file__).relative_to(_CHECKOUT)
    rungs.parent.mkdir(parents=True)
    shutil.copy2(walls.__file__, rungs)
    (probes,) = walls.make_probe_image(directory / "probes").layers
    for program in (GAUGE, NEIGHBOUR):
        shutil.copy2(program.build(), probes.path)
    unit = layer_of_unit(directory, "tests.runtime.systemd_checks", "dbus.socket user@1000.service", _MODULES)
    copy_with_libraries(find_virtiofsd(), directory / "lender")
    code = layer_of_code(directory, _list_packages())
    (directory / "modules").mkdir()
    for name in _MODULES:
        shutil.copy2(next(kernel.rglob(name)), directory / "modules")
    copied = (Layer(f"sha256:{name}", directory / name) for name in ("modules", "lender"))
    added = (unit, code, *copied, replace(probes, diff_id="sha256:probes"))
    return replace(image, layers=(*image.layers, *added))


def copy_with_libraries(program: Path, folder: Path) -> None:
    """Copy the program that lends directories to machines, what says where it is, and the libraries that it is linked
    with, but for those that every program has."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    libraries = [Path(word) for word in listed.split() if word.startswith("/lib/")]
    for path in (program, *libraries, *Path("/usr/share/qemu/vhost-user").iterdir()):
        if not path.name.startswith(("libc.", "libm.")):
            # A merged /usr: /lib is a link there, which no layer may cover with a directory.
            there = folder / "usr" / path.relative_to("/usr" if path.is_relative_to("/usr") else "/")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, there)


def _list_packages() -> tuple[Path, ...]:
    """What ``./invoke`` runs and imports, but for the runtime, which is in the image."""
    libraries = [Path(module.__file__ or "").parent for module in (httptools, invoke, pycdlib, yaml)]
    (own_version,) = Path(invoke.__file__).parents[1].glob("invoke-*.dist-info")  # which the library asks for
    return (*(_CHECKOUT / name for name in ("reports", "testbed", "vm_images")), *libraries, own_version)


@pytest.fixture(scope="module")
def outcomes(kernel_package: Path) -> dict[str, str]:
    """One boot for all checks."""

    def host_image() -> Image:
        return ensure_host_image(Store(store_root() / "images"), print, _DOCKERFILE, "testbed/systemd-host")

    def machine(host: Image) -> ContainerHost:
        used = (*map(layer_name, host.layers), *_ADDED)
        return ContainerHost(used, ("/bin/sh", "-c", BOOT), "/", "host", None, "")

    return outcomes_of(host_image, partial(layers, kernel_package), machine, memory_mib=2560, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_systemd(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
