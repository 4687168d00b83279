"""cgroup v2 for real: a guest that is a host of containers, where no other version is, works off a list of checks."""

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
from tests.runtime.version_two_checks import CHECKS
from vm_images.container_host import INTERPRETER, ensure_host_image, host_initrd
from vm_images.disk import ensure_layer_disk, layer_name
from vm_images.guest import COMMAND_LINE, ensure_guest

pytestmark = [pytest.mark.root, pytest.mark.vm]

# On an idle host the checks take 25 s; this is for a busy one.
TIMEOUT_S = 240.0
_PROGRAM = "tests.runtime.version_two_checks"
_CHECKS = f"{LAYERS}/checks"


def busybox(layers: Path) -> Image:
    """An image with busybox and the checks, each a layer."""
    (layers / "busybox" / "bin").mkdir(parents=True)
    shutil.copy2("/bin/busybox", layers / "busybox" / "bin" / "busybox")
    for command in ("sh", "true", "cat", "sleep", "dd", "mknod", "head", "wc", "setsid"):
        (layers / "busybox" / "bin" / command).symlink_to("busybox")
    (layers / "busybox" / "tmp").mkdir()
    checks = layers / "checks" / "tests" / "runtime"
    checks.mkdir(parents=True)
    for source in Path(__file__).parent.glob("version_two_*.py"):
        shutil.copy2(source, checks)
    found = tuple(Layer(f"sha256:{name}", layers / name) for name in ("busybox", "checks"))
    return Image("test/checks", "sha256:checks", ImageConfig(), found)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each check came to, ``ok`` or a traceback, by its name: one boot for all of them."""
    try:
        host = ensure_host_image(Store(store_root() / "images"), print)
        guest = ensure_guest(store_root() / "guest")
        qemu = find_qemu()
    except TestbedError as error:
        pytest.skip(f"no guest that is a host of containers: {error}")
    # Hard links from the store's layers to a disk: on one file system. It is no image that anybody keeps.
    work = Path(store_root() / "guest" / f"test-{tmp_path_factory.mktemp('work').parent.name}")
    work.mkdir()
    try:
        disk = ensure_layer_disk(work / "disks", [host, busybox(work / "layers")])
        args = (INTERPRETER, "-m", _PROGRAM)
        machine = ContainerHost(tuple(map(layer_name, host.layers)), args, _CHECKS, "host", None, "")
        (work / "initrd").write_bytes(host_initrd(guest, machine))
        return boot(qemu, guest.kernel.image, work / "initrd", disk)
    finally:
        shutil.rmtree(work)


def boot(qemu: Path, kernel: Path, initrd: Path, disk: Path) -> dict[str, str]:
    command = [
        *(str(qemu), "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "384"),
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
def test_on_a_host_with_version_two(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
